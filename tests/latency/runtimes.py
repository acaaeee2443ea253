"""Small files that look like ONNX Runtime's libraries and the archives they come in, for the tests of what is made of them."""

import zipfile
from pathlib import Path

from latency.runner import program_for

__all__ = ["ARM", "INTEL", "aar", "library", "wheel_of", "zipped"]


def library(libc: str, machine: str, *, version: str = "1.20.3") -> bytes:
    """A small file for that machine that calls itself ONNX Runtime: one of our own programs with the mark of a version."""
    program = program_for(libc, machine)
    assert program
    return program.read_bytes() + f"\0VERS_{version}\0".encode()


ARM, INTEL = library("bionic", "aarch64"), library("bionic", "x86_64")


def zipped(path: Path, **files: bytes) -> Path:
    """A zip with these files, __ in a name standing for a slash."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return path


def aar(folder: Path) -> Path:
    """An archive as Android's libraries come in, with one for each machine."""
    path = folder / "onnxruntime-android.aar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("AndroidManifest.xml", "<manifest/>")
        archive.writestr("jni/arm64-v8a/libonnxruntime.so", ARM)
        archive.writestr("jni/arm64-v8a/libonnxruntime4j_jni.so", b"another library")
        archive.writestr("jni/x86_64/libonnxruntime.so", INTEL)
        archive.writestr("jni/armeabi-v7a/libonnxruntime.so", b"\x7fELF\x01\x01 of 32 bits")
    return path


def wheel_of(folder: Path, version: str, data: bytes) -> Path:
    """A wheel of onnxruntime for boards that pip takes."""
    path, info = folder / f"onnxruntime-{version}-py3-none-manylinux_2_28_aarch64.whl", f"onnxruntime-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"onnxruntime/capi/libonnxruntime.so.{version}", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: onnxruntime\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n")
        archive.writestr(f"{info}/RECORD", "")
    return path
