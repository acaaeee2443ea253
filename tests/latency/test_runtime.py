import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from latency import InvalidRuntime
from latency.runner import program_for
from latency.runtime import cache_folder, from_file, from_pip, installed

VERSION = importlib.metadata.version("onnxruntime")


def library(libc: str, machine: str) -> bytes:
    """A small file for that machine that calls itself ONNX Runtime 1.2.3: one of our own programs with the mark of a version."""
    program = program_for(libc, machine)
    assert program
    return program.read_bytes() + b"\0VERS_1.2.3\0"


ARM, INTEL = library("bionic", "aarch64"), library("bionic", "x86_64")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return path


def aar(folder: Path) -> Path:
    path = folder / "onnxruntime-android.aar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("AndroidManifest.xml", "<manifest/>")
        archive.writestr("jni/arm64-v8a/libonnxruntime.so", ARM)
        archive.writestr("jni/arm64-v8a/libonnxruntime4j_jni.so", b"another library")
        archive.writestr("jni/x86_64/libonnxruntime.so", INTEL)
        archive.writestr("jni/armeabi-v7a/libonnxruntime.so", b"\x7fELF\x01\x01 of 32 bits")
    return path


def test_a_shared_library_is_used_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(ARM)
    found = from_file(tmp_path / "lib.so")
    assert (found.path, found.sha256) == (tmp_path / "lib.so", hashlib.sha256(ARM).hexdigest())
    assert (found.version, found.machine, found.libc, found.page_size) == ("1.2.3", "aarch64", "bionic", 16384)
    assert found.name == "onnxruntime 1.2.3 for aarch64 (bionic)"


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
    wheel = wheel_of(tmp_path, "1.2.3", library("glibc", "aarch64"))
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


@pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="needs pip")
def test_pip_downloads_the_wheel_for_the_machine_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_of(tmp_path, VERSION, library("glibc", "aarch64"))
    offline(monkeypatch, tmp_path)
    first = from_pip("aarch64")
    wheel.unlink()
    assert from_pip("aarch64") == first
    assert (first.machine, first.libc) == ("aarch64", "glibc")


@pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="needs pip")
def test_a_wheel_that_pip_cannot_find_is_said_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path)
    with pytest.raises(InvalidRuntime, match=rf"pip cannot download onnxruntime {VERSION} for aarch64: .*; name a file with --runtime"):
        from_pip("aarch64")


def wheel_of(folder: Path, version: str, data: bytes) -> Path:
    path, info = folder / f"onnxruntime-{version}-py3-none-manylinux_2_28_aarch64.whl", f"onnxruntime-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"onnxruntime/capi/libonnxruntime.so.{version}", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: onnxruntime\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def offline(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A pip that sees the wheels of one folder and nothing else, whatever its configuration says."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
