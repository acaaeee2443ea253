import gzip
import hashlib
import importlib.metadata
import io
import tarfile
from pathlib import Path

import pytest

from latency import InvalidRuntime
from latency.runner import program_for
from latency.runtime import RuntimeLibrary, cache_folder, from_file, installed, require_fit
from latency.store import store_path
from tests.latency.runtimes import ARM, INTEL, aar, library, wheel_of, zipped

VERSION = importlib.metadata.version("onnxruntime")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))


def test_a_shared_library_is_used_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(ARM)
    found = from_file(tmp_path / "lib.so")
    assert (found.path, found.sha256) == (tmp_path / "lib.so", hashlib.sha256(ARM).hexdigest())
    assert (found.version, found.machine, found.libc, found.page_size) == ("1.20.3", "aarch64", "bionic", 16384)
    assert found.name == "onnxruntime 1.20.3 for aarch64 (bionic)"


@pytest.mark.parametrize(("machine", "data"), [("aarch64", ARM), ("x86_64", INTEL)])
def test_the_machines_library_is_taken_out_of_an_aar_into_the_cache(tmp_path: Path, machine: str, data: bytes) -> None:
    found = from_file(aar(tmp_path), machine=machine)
    assert found.path.read_bytes() == data
    assert cache_folder() in found.path.parents
    assert [path.name for path in found.path.parent.iterdir()] == ["libonnxruntime.so"]


def test_an_aar_within_a_tgz_is_found(tmp_path: Path) -> None:
    data = aar(tmp_path).read_bytes()
    with tarfile.open(tmp_path / "plugin.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("package/Plugins/Android/onnxruntime.aar")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    assert from_file(tmp_path / "plugin.tgz", machine="aarch64", libc="bionic").path.read_bytes() == ARM


def test_a_wheels_library_is_found_by_its_versioned_name(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path, "1.20.3", library("glibc", "aarch64"))
    assert from_file(wheel).libc == "glibc"


def test_several_machines_and_none_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRuntime, match=r"holds libraries for aarch64 \(bionic\), x86_64 \(bionic\): say for which machine"):
        from_file(aar(tmp_path))


def test_a_library_for_another_machine_is_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(ARM)
    with pytest.raises(InvalidRuntime, match=r"is for aarch64 \(bionic\), and the device is x86_64 \(any C library\)"):
        from_file(tmp_path / "lib.so", machine="x86_64")


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.so", b"no library"), ("a.whl", b"no zip"), ("a.tgz", b"no tar"), ("a.tgz", gzip.compress(b"no tar")[:-4]), ("a.so", b"")],
)
def test_files_of_another_kind_are_refused_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidRuntime, match=rf"{name} is no runtime library: .*; name a .so, .whl, .aar or .tgz") as caught:
        from_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_archive_without_a_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRuntime, match=r"holds no libonnxruntime\.so for a 64-bit machine"):
        from_file(zipped(tmp_path / "a.whl", README=b"nothing else"))


def test_a_library_that_is_not_onnx_runtime_is_refused(tmp_path: Path) -> None:
    program = program_for("glibc", "x86_64")
    assert program
    with pytest.raises(InvalidRuntime, match="is no ONNX Runtime"):
        from_file(program)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRuntime, match=r"cannot read the runtime .*nowhere\.aar: No such file"):
        from_file(tmp_path / "nowhere.aar")


def test_the_installed_library_has_the_packages_version() -> None:
    found = installed()
    assert found is None or found.version == VERSION


def test_a_runtime_too_old_for_the_runner_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(library("glibc", "x86_64", version="1.9.0"))
    with pytest.raises(InvalidRuntime, match=r"lib\.so is ONNX Runtime 1\.9\.0, and the runner needs 1\.11 or newer"):
        from_file(tmp_path / "lib.so")


def test_the_newest_glibc_that_a_library_asks_for_is_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(library("glibc", "x86_64") + b"GLIBC_2.4\0GLIBC_2.29\0GLIBC_2.28\0GLIBC_2.3.4\0")
    assert from_file(tmp_path / "lib.so").glibc == "2.29"


def plain(*, page_size: int = 4096, glibc: str = "2.28") -> RuntimeLibrary:
    path = Path("libonnxruntime.so")
    return RuntimeLibrary(path=path, sha256="", version="1.20.3", machine="aarch64", libc="glibc", page_size=page_size, glibc=glibc)


def test_a_device_with_larger_pages_than_the_library_bears_is_refused() -> None:
    with pytest.raises(InvalidRuntime, match=r"memory pages of up to 4,096 bytes, and pi has pages of 16,384: name a newer one"):
        require_fit(plain(), name="pi", page_bytes=16384)
    require_fit(plain(page_size=65536), name="pi", page_bytes=16384)


@pytest.mark.parametrize("glibc", ["2.28", "2.36", "3.0", ""])
def test_a_glibc_that_is_new_enough_or_not_told_is_taken(glibc: str) -> None:
    require_fit(plain(), name="pi", glibc=glibc)


@pytest.mark.parametrize("glibc", ["2.27", "2.4"])
def test_an_older_glibc_is_refused_with_a_way_out(glibc: str) -> None:
    with pytest.raises(InvalidRuntime, match=rf"needs glibc 2\.28 or newer, and pi has {glibc}: .*sherpa-onnx-core"):
        require_fit(plain(), name="pi", glibc=glibc)


def test_libraries_are_kept_beside_the_measured_latencies(tmp_path: Path) -> None:
    assert cache_folder().parent == store_path().parent == tmp_path / "cache"
