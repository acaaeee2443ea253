import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from latency import InvalidRuntime
from latency.runtime import cache_folder, installed
from latency.runtime_source import NPM_PACKAGE, NpmPackage, for_linux, for_phone, from_npm, from_pip
from tests.latency.runtimes import ARM, INTEL, aar, library, wheel_of

VERSION = importlib.metadata.version("onnxruntime")
with_pip = pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="needs pip")
with_npm = pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))


def offline(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A pip that sees the wheels of one folder and nothing else, whatever its configuration says."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@with_pip
def test_pip_downloads_the_wheel_for_the_machine_once_and_says_so_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, said = wheel_of(tmp_path, VERSION, library("glibc", "aarch64")), list[str]()
    offline(monkeypatch, tmp_path)
    first = from_pip("aarch64", say=said.append)
    wheel.unlink()
    assert from_pip("aarch64", say=said.append) == first
    assert (first.machine, first.libc) == ("aarch64", "glibc")
    assert said == [f"downloading onnxruntime {VERSION} for aarch64 with pip, once: some 25 MB"]


def only_installed(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """A Python whose one package that brings onnxruntime lies in a folder; None: it has none."""

    def distribution(name: str) -> importlib.metadata.Distribution:
        if folder is None or name != "onnxruntime-gpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.Distribution.at(folder)

    monkeypatch.setattr("importlib.metadata.distribution", distribution)


@with_pip
def test_a_variant_of_the_package_gives_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "onnxruntime_gpu-7.8.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 7.8.9+cu12\n")
    only_installed(monkeypatch, folder)
    wheel_of(tmp_path, "7.8.9", library("glibc", "aarch64"))
    offline(monkeypatch, tmp_path)
    assert from_pip("aarch64", say=lambda text: None).machine == "aarch64"


def test_a_python_without_the_package_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    only_installed(monkeypatch, None)
    with pytest.raises(InvalidRuntime, match=r"this Python has no onnxruntime: pip install onnxruntime, or name a file with --runtime"):
        from_pip("aarch64")


@with_pip
def test_a_wheel_that_pip_cannot_find_is_said_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path)
    with pytest.raises(InvalidRuntime, match=rf"pip cannot download onnxruntime {VERSION} for aarch64: .*; name a file with --runtime"):
        from_pip("aarch64")


@with_pip
def test_a_cached_library_that_was_damaged_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel_of(tmp_path, VERSION, library("glibc", "aarch64"))
    offline(monkeypatch, tmp_path)
    kept = from_pip("aarch64").path
    data = kept.read_bytes()
    kept.write_bytes(data[:-1] + b"x")
    assert from_pip("aarch64").path.read_bytes() == data


@pytest.mark.parametrize("chosen", ["", "fetch"])
def test_this_computers_own_package_is_taken_where_it_fits(chosen: str) -> None:
    own = installed()
    if own is None:
        pytest.skip("onnxruntime's package has no library of its own here")
    assert for_linux(own.machine, chosen) == own


def test_a_phones_library_is_refused_for_a_board(tmp_path: Path) -> None:
    with pytest.raises(InvalidRuntime, match=r"is for aarch64 \(bionic\), x86_64 \(bionic\), and the device is aarch64 \(glibc\)"):
        for_linux("aarch64", str(aar(tmp_path)))


def test_a_boards_wheel_is_refused_for_a_phone(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path, "1.20.3", library("glibc", "aarch64"))
    with pytest.raises(InvalidRuntime, match=r"is for aarch64 \(glibc\), and the device is aarch64 \(bionic\)"):
        for_phone("aarch64", str(wheel))


@pytest.mark.parametrize("way", ["python", "runner"])
def test_a_way_to_time_this_computer_is_no_runtime_of_another_device(way: str) -> None:
    with pytest.raises(InvalidRuntime, match=rf"--runtime {way} is for this computer"):
        for_phone("aarch64", way)


def test_the_package_of_npm_is_known_by_its_hashes() -> None:
    hashes = (NPM_PACKAGE.sha256, *NPM_PACKAGE.libraries.values())
    assert set(NPM_PACKAGE.libraries) == {"aarch64", "x86_64"}
    assert all(len(h) == 64 and set(h) <= set("0123456789abcdef") for h in hashes)


def package_file(folder: Path) -> bytes:
    """A package of npm's with an AAR in it, as the one that is known."""
    parts = {
        "package/package.json": json.dumps({"name": "example-runtime", "version": "1.0.0"}).encode(),
        "package/Plugins/Android/onnxruntime.aar": aar(folder).read_bytes(),
    }
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, data in parts.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return file.getvalue()


def package_of(data: bytes) -> NpmPackage:
    libraries = {machine: hashlib.sha256(lib).hexdigest() for machine, lib in (("aarch64", ARM), ("x86_64", INTEL))}
    return msgspec.structs.replace(
        NPM_PACKAGE, name="example-runtime", version="1.0.0", publisher="nobody", size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(), libraries=libraries,
    )  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """A registry on this computer that the real npm talks to, with one package; gives the package's file."""
    data = package_file(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = f"http://{self.headers['Host']}"
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
            dist = {"tarball": f"{place}/example-runtime/-/example-runtime-1.0.0.tgz", "integrity": integrity}
            about = {"name": "example-runtime", "version": "1.0.0", "dist": dist}
            page = json.dumps({"name": "example-runtime", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": about}}).encode()
            found = {"/example-runtime": page, "/example-runtime/-/example-runtime-1.0.0.tgz": data}.get(self.path)
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_address[1]}/")
        monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "npmrc"))
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        yield data
        server.shutdown()
        thread.join()


@with_npm
def test_npm_fetches_the_known_package_once_and_names_its_publisher_before(registry: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    package, said = package_of(registry), list[str]()
    first = from_npm("aarch64", package, say=said.append)
    monkeypatch.setenv("PATH", "")
    assert first.path.read_bytes() == ARM
    assert from_npm("aarch64", package, say=said.append) == first
    assert len(said) == 1
    assert f"by nobody, with the onnxruntime-android AAR 1.29.0 in it; it must have SHA-256 {package.sha256}" in said[0]


@with_npm
def test_a_package_with_another_hash_is_refused_and_not_kept(registry: bytes) -> None:
    package = msgspec.structs.replace(package_of(registry), sha256="0" * 64)
    found = hashlib.sha256(registry).hexdigest()
    with pytest.raises(InvalidRuntime, match=rf"is not the one known here: SHA-256 {found}; it was not used"):
        from_npm("aarch64", package)
    assert not cache_folder().exists()


@with_npm
def test_a_package_that_npm_cannot_find_is_said_with_the_way_out(registry: bytes) -> None:
    package = msgspec.structs.replace(package_of(registry), name="not-there")
    with pytest.raises(InvalidRuntime, match=r"npm cannot fetch not-there@1\.0\.0: .*; name the .aar of com\.microsoft") as caught:
        from_npm("aarch64", package)
    assert "\n" not in str(caught.value)


def test_without_npm_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidRuntime, match=r"there is no npm here: install Node\.js, or name the \.aar of com\.microsoft\.onnxruntime"):
        for_phone("aarch64", "fetch")
