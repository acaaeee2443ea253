"""ONNX Runtime's shared library for a device: taken out of a file, checked, kept by its hash."""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from latency.elf import Elf, Libc, Machine, read_elf
from latency.errors import InvalidRuntime
from latency.user_cache import user_cache

__all__ = ["RuntimeLibrary", "cache_folder", "from_file", "installed", "installed_package", "keep", "require_fit"]

LIBRARY = re.compile(r"(^|/)libonnxruntime\.so(\.[\d.]+)?$")
VERSION = re.compile(rb"VERS_(\d+\.\d+\.\d+)\0")
ARCHIVES = (".whl", ".aar", ".zip", ".tgz", ".tar.gz")
GLIBC = re.compile(rb"\0GLIBC_(2\.\d+)")
OLDEST = (1, 11)  # whose C interface is the first with all that the runner calls
# What brings the module onnxruntime: one of them is installed.
PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn", "onnxruntime-directml", "onnxruntime-migraphx",
    "onnxruntime-rocm", "onnxruntime-training",
)  # fmt: skip


class RuntimeLibrary(msgspec.Struct, frozen=True, kw_only=True):
    """A library on this computer, and what it is for; ``page_size`` is the largest that it can be loaded with, in bytes.

    ``glibc`` is the oldest version of that C library that it can be loaded with, such as 2.28; "" for Android's.
    """

    path: Path
    sha256: str
    version: str
    machine: Machine
    libc: Libc
    page_size: int
    glibc: str = ""

    @property
    def name(self) -> str:
        """For people: ``onnxruntime 1.32.0 for aarch64 (glibc)``."""
        return f"onnxruntime {self.version} for {self.machine} ({self.libc})"


def cache_folder() -> Path:
    """Where libraries taken out of archives and downloads are kept: ``runtimes`` in ``user_cache()``."""
    return user_cache() / "runtimes"


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


@functools.cache
def installed() -> RuntimeLibrary | None:
    """The library of the onnxruntime package installed here, read once; None if it has none of its own, or not for Linux."""
    package = installed_package()
    files = (package.files or []) if package else []
    paths = [Path(str(f.locate())) for f in files if LIBRARY.search(f.as_posix())]
    return from_file(paths[0]) if paths and paths[0].is_file() else None


def installed_package() -> importlib.metadata.Distribution | None:
    """The package that brings the module onnxruntime here: the one of that name, else a variant such as onnxruntime-gpu."""
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.distribution(name)
    return None


def require_fit(library: RuntimeLibrary, *, name: str, page_bytes: int = 0, glibc: str = "") -> None:
    """Nothing, where the library can be loaded on the device called ``name``; what the device does not say (0, "") is not checked.

    Raises:
        InvalidRuntime: the device has larger pages than the library was built for, or an older glibc.
    """
    if 0 < library.page_size < page_bytes:
        rule = f"{library.name} can be loaded with memory pages of up to {library.page_size:,} bytes"
        raise InvalidRuntime(f"{rule}, and {name} has pages of {page_bytes:,}: name a newer one with --runtime")
    if glibc and library.glibc and _numbers(glibc) < _numbers(library.glibc):
        older = "name one that was built for older systems with --runtime, such as the wheel of sherpa-onnx-core"
        raise InvalidRuntime(f"{library.name} needs glibc {library.glibc} or newer, and {name} has {glibc}: {older}")


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
    version = found[1].decode()
    if _numbers(version)[:2] < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InvalidRuntime(f"{path} is ONNX Runtime {version}, and the runner needs {oldest} or newer: name a newer one")
    return RuntimeLibrary(
        path=path, sha256=hashlib.sha256(data).hexdigest(), version=version, machine=elf.machine, libc=elf.libc, page_size=elf.page_size,
        glibc=max(set(GLIBC.findall(data)), key=lambda v: _numbers(v.decode()), default=b"").decode() if elf.libc == "glibc" else "",
    )  # fmt: skip


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _cached(data: bytes) -> Path:
    path = cache_folder() / hashlib.sha256(data).hexdigest() / "libonnxruntime.so"
    if not path.is_file() or path.read_bytes() != data:
        keep(path, data)
    return path


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache: whole or not at all, however many write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)
