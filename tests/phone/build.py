"""Lay out the test phone's files from Debian packages; nothing of this computer's own package state changes."""

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

from latency.runtime_source import from_pip
from tests.phone.contents import write_contents

__all__ = ["build", "version"]

HERE = Path(__file__).parent
# adbd for Linux came with Debian 13; it runs from a root of its own on any other.
PHONE_SUITE, ARM_SUITE = "trixie", "bookworm"
PHONE_PACKAGES = (
    "adbd", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog", "libbrotli1", "libbsd0", "libc6", "libgcc-s1",
    "liblz4-1", "libmd0", "libprotobuf32t64", "libstdc++6", "libsystemd0", "libxxhash0", "libzstd1", "zlib1g", "libcap2", "mksh", "toybox",
    "libselinux1", "libpcre2-8-0", "libssl3t64", "libcrypt1",
)  # fmt: skip
ARM_PACKAGES = ("libc6", "libgcc-s1", "libstdc++6")
ARM_LIBRARIES = (
    "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", "lib/aarch64-linux-gnu/libc.so.6", "lib/aarch64-linux-gnu/libm.so.6",
    "lib/aarch64-linux-gnu/libdl.so.2", "lib/aarch64-linux-gnu/libpthread.so.0", "lib/aarch64-linux-gnu/librt.so.1",
    "lib/aarch64-linux-gnu/libgcc_s.so.1", "usr/lib/aarch64-linux-gnu/libstdc++.so.6",
)  # fmt: skip
TOYS = (
    "basename", "cat", "chmod", "cp", "cut", "date", "df", "dirname", "du", "echo", "find", "free", "grep", "head", "id", "kill", "ln",
    "ls", "mkdir", "mv", "nproc", "ps", "readlink", "rm", "sed", "seq", "sha256sum", "sleep", "sort", "stat", "tail", "taskset", "tee",
    "test", "touch", "tr", "true", "uname", "uptime", "wc", "which", "xargs",
)  # fmt: skip


def version() -> str:
    """What the phone's files are made from, as a hash: a phone of another version is built again."""
    sources = (HERE / "build.py", HERE / "contents.py", HERE / "startup.c")
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def build(folder: Path) -> None:
    """Make the phone in ``folder``, some 150 MB, unless it is there; ``folder/ready`` is written last and holds its version."""
    ready = folder / "ready"
    if ready.is_file() and ready.read_text() == version():
        return
    ready.unlink(missing_ok=True)
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    _unpack(_download(folder / "apt", PHONE_SUITE, "amd64", PHONE_PACKAGES), root)
    _android_folders(root)
    write_contents(root)
    _unpack(_download(folder / "apt", ARM_SUITE, "arm64", ARM_PACKAGES), folder / "arm64")
    _arm_libraries(folder / "arm64", root / "system")
    (folder / "libonnxruntime.so").write_bytes(_as_androids(from_pip("aarch64").path.read_bytes()))
    ready.write_text(version())


def _as_androids(library: bytes) -> bytes:
    """PyPI's library, which the phone's glibc can load, with Android's note in place of its build id: no registry has Microsoft's own."""
    build_id, note = struct.pack("<III", 4, 20, 3) + b"GNU\0", struct.pack("<III", 8, 16, 1) + b"Android\0" + struct.pack("<I", 24)
    at = library.index(build_id)
    return library[:at] + note.ljust(36, b"\0") + library[at + 36 :]


def _android_folders(root: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("proc", "sys", "dev", "tmp", "data/local/tmp", "system/bin", "system/lib64", "fake"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "data/local/tmp").chmod(0o777)
    # Android's shell is mksh.
    for link, target in (("usr/bin/sh", "mksh"), ("system/bin/sh", "/usr/bin/mksh")):
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(target)
    for toy in TOYS:
        (root / "system/bin" / toy).symlink_to("/usr/bin/toybox")


def _arm_libraries(unpacked: Path, system: Path) -> None:
    """glibc in the place of Android's libraries, and start-up code on top of it that Android's programs ask for."""
    lib = system / "lib64"
    for name in ARM_LIBRARIES:
        shutil.copy((unpacked / name).resolve(), lib / Path(name).name)
    shutil.copy(lib / "ld-linux-aarch64.so.1", system / "bin/linker64")
    python = os.environ.get("ZIG_PYTHON", sys.executable)  # one that has the package ziglang
    zig = (python, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28", "-O1", "-shared", "-fPIC")
    subprocess.run([*zig, "-Wl,-soname,libc.so", HERE / "startup.c", "-o", lib / "libc.so", "-lc"], check=True, timeout=300)
    subprocess.run([*zig, "-DEMPTY", "-Wl,-soname,libdl.so", HERE / "startup.c", "-o", lib / "libdl.so"], check=True, timeout=300)


def _unpack(packages: list[Path], root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", package, root], check=True, timeout=120)


def _download(folder: Path, suite: str, machine: str, names: tuple[str, ...]) -> list[Path]:
    """Packages of another Debian or machine, through apt with a state of its own."""
    state = folder / f"{suite}-{machine}"
    packages = state / "packages"
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "debian.sources").write_text(_sources(suite))
    options = {
        "Dir::Etc::SourceParts": "/nonexistent", "Dir::Etc::sourcelist": state / "debian.sources", "Dir::State::Lists": state / "lists",
        "Dir::Cache": state / "cache", "Dir::State::status": "/dev/null", "APT::Sandbox::User": "root", "APT::Architecture": machine,
        "APT::Architectures": machine,
    }  # fmt: skip
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL, timeout=600)
    subprocess.run([*apt, "download", *names], check=True, stdout=subprocess.DEVNULL, cwd=packages, timeout=600)
    return sorted(packages.glob("*.deb"))


def _sources(suite: str) -> str:
    """This computer's Debian mirror, for another suite."""
    stanzas = Path("/etc/apt/sources.list.d/debian.sources").read_text().strip().split("\n\n")
    main = next(stanza for stanza in stanzas if "-security" not in stanza)
    return re.sub(r"(?m)^Suites:.*", f"Suites: {suite}", main) + "\n"
