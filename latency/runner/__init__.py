"""The program that times models on a device: its C sources, the built programs, and the job it is given."""

from pathlib import Path

__all__ = ["ANDROID_START", "BINARIES", "SOURCES", "TARGETS", "VERSIONS", "program_for"]

FOLDER = Path(__file__).parent
SOURCES = tuple(FOLDER / f"{name}.c" for name in ("runner", "timing", "course", "ort", "job", "text"))
ANDROID_START = FOLDER / "android_start.c"
BINARIES = FOLDER / "bin"
VERSIONS = BINARIES / "versions.json"
TARGETS = ("linux-aarch64", "linux-x86_64", "android-aarch64", "android-x86_64")
SYSTEMS = {"glibc": "linux", "bionic": "android"}


def program_for(libc: str, machine: str) -> Path | None:
    """The built program for a C library (``glibc`` or ``bionic``) and a machine; None where none was built."""
    path = BINARIES / f"runner-{SYSTEMS.get(libc, libc)}-{machine}"
    return path if path.is_file() else None
