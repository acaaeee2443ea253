"""ONNX Runtime's shared library for a device: taken from a file the user names, or from PyPI's wheels; kept by its hash."""

import contextlib
import hashlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from latency.elf import Elf, Libc, Machine, read_elf
from latency.errors import InvalidRuntime

__all__ = ["RuntimeLibrary", "cache_folder", "from_file", "from_pip", "installed"]

LIBRARY = re.compile(r"(^|/)libonnxruntime\.so(\.[\d.]+)?$")
VERSION = re.compile(rb"VERS_(\d+\.\d+\.\d+)\0")
ARCHIVES = (".whl", ".aar", ".zip", ".tgz", ".tar.gz")
DOWNLOAD_S = 900
WHEEL_LIBC = "manylinux_2_28"  # the newest that ONNX Runtime's wheels name; an older one silently gives an older version


class RuntimeLibrary(msgspec.Struct, frozen=True, kw_only=True):
    """A library on this computer, and what it is for; ``page_size`` is the largest that it can be loaded with, in bytes."""

    path: Path
    sha256: str
    version: str
    machine: Machine
    libc: Libc
    page_size: int

    @property
    def name(self) -> str:
        """For people: ``onnxruntime 1.32.0 for aarch64 (glibc)``."""
        return f"onnxruntime {self.version} for {self.machine} ({self.libc})"


def cache_folder() -> Path:
    """Where libraries taken out of archives and downloads are kept: under ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hardware-aware-nas" / "runtimes"


def from_file(path: Path, *, machine: str | None = None, libc: str | None = None) -> RuntimeLibrary:
    """The library in ``path``: a ``.so`` as it is, or the fitting one of a ``.whl``, ``.aar`` or ``.tgz``, taken out into the cache.

    Args:
        path: the file.
        machine: ``aarch64`` or ``x86_64``; None: whatever the file is for, if that is one.
        libc: ``glibc`` or ``bionic`` (Android's); None: as above.

    Raises:
        InvalidRuntime: there is no such library in it, or several, or it is for something else.
    """
    found = _read(path)
    fitting = [(data, elf) for data, elf in found if machine in (None, elf.machine) and libc in (None, elf.libc)]
    there = ", ".join(sorted({f"{elf.machine} ({elf.libc})" for _, elf in found}))
    if not fitting:
        raise InvalidRuntime(f"{path} is for {there}, and the device is {machine or 'any machine'} ({libc or 'any C library'})")
    if len({hashlib.sha256(data).digest() for data, _ in fitting}) > 1:
        raise InvalidRuntime(f"{path} holds libraries for {there}: say for which machine")
    data, elf = fitting[0]
    return _library(path if not _is_archive(path) else _cached(data), data, elf)


def from_pip(machine: str) -> RuntimeLibrary:
    """The glibc library of the wheel for ``machine`` and the version installed here, downloaded by pip once.

    Raises:
        InvalidRuntime: pip could not download it; the text has its last line.
    """
    version = importlib.metadata.version("onnxruntime")
    kept = cache_folder() / f"onnxruntime-{version}-{machine}.txt"  # holds the name of the library: a hash cannot be known before
    if kept.is_file() and (path := cache_folder() / kept.read_text().strip()).is_file():
        library = from_file(path, machine=machine, libc="glibc")
        if library.sha256 == path.parent.name:
            return library
    with tempfile.TemporaryDirectory(prefix="runtime-") as folder:
        wheel = ("--platform", f"{WHEEL_LIBC}_{machine}", "--only-binary=:all:", "--no-deps", "--dest", folder)
        command = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *wheel, f"onnxruntime=={version}")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise InvalidRuntime(f"pip did not download onnxruntime {version} for {machine} within {DOWNLOAD_S} s") from error
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InvalidRuntime(f"pip cannot download onnxruntime {version} for {machine}: {reason}; name a file with --runtime")
        library = from_file(wheels[0], machine=machine, libc="glibc")
    _write(kept, library.path.relative_to(cache_folder()).as_posix().encode())
    return library


def installed() -> RuntimeLibrary | None:
    """The library of the onnxruntime package installed here; None if it has none of its own, or not for Linux."""
    try:
        files = importlib.metadata.files("onnxruntime") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(f.locate())) for f in files if LIBRARY.search(f.as_posix())]
    return from_file(paths[0]) if paths and paths[0].is_file() else None


def _is_archive(path: Path) -> bool:
    return path.name.endswith(ARCHIVES)


def _read(path: Path) -> list[tuple[bytes, Elf]]:
    """Every 64-bit library in the file, at least one."""
    try:
        data = path.read_bytes()
        found = list(_libraries(path.name, data)) if _is_archive(path) else [(data, read_elf(data))]
    except OSError as error:
        raise InvalidRuntime(f"cannot read the runtime {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = str(error).partition("\n")[0].rstrip(":.") or "it is cut short"
        raise InvalidRuntime(f"{path} is no runtime library: {reason}; name a .so, .whl, .aar or .tgz") from error
    if not found:
        raise InvalidRuntime(f"{path} holds no libonnxruntime.so for a 64-bit machine: name a .so, .whl, .aar or .tgz that does")
    return found


def _libraries(name: str, data: bytes) -> Iterator[tuple[bytes, Elf]]:
    """The 64-bit libraries in a file; an archive within an archive (an .aar in a .tgz) is looked into."""
    for inner, content in _members(name, data):
        if inner.endswith(".aar"):
            yield from _libraries(inner, content)
        else:
            with contextlib.suppress(ValueError):  # an .aar has 32-bit libraries too
                yield content, read_elf(content)


def _members(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    if name.endswith((".tgz", ".tar.gz")):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                if _wanted(entry.name) and (file := archive.extractfile(entry)):
                    yield entry.name, file.read()
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from ((inner, archive.read(inner)) for inner in archive.namelist() if _wanted(inner))


def _wanted(name: str) -> bool:
    return LIBRARY.search(name) is not None or name.endswith(".aar")


def _library(path: Path, data: bytes, elf: Elf) -> RuntimeLibrary:
    found = VERSION.search(data)
    if not found:
        raise InvalidRuntime(f"{path} is no ONNX Runtime: it names no version; name a libonnxruntime.so")
    return RuntimeLibrary(
        path=path, sha256=hashlib.sha256(data).hexdigest(), version=found[1].decode(),
        machine=elf.machine, libc=elf.libc, page_size=elf.page_size,
    )  # fmt: skip


def _cached(data: bytes) -> Path:
    path = cache_folder() / hashlib.sha256(data).hexdigest() / "libonnxruntime.so"
    if not path.is_file() or path.stat().st_size != len(data):
        _write(path, data)
    return path


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, however many write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)
