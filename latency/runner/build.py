"""``python -m latency.runner.build``: makes the runner's four programs with the ``ziglang`` package alone, the same bytes everywhere."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from latency.elf import global_symbols
from latency.runner import ANDROID_START, BINARIES, SOURCES, TARGETS, VERSIONS

__all__ = ["build", "built_with", "main"]

FLAGS = ("-std=gnu99", "-O2", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror")
# Compiled against musl's headers, for their prototypes rename no symbol; what it runs on is Android's C library.
ANDROID_FLAGS = (*FLAGS, "-fPIE", "-fno-stack-protector", "-U_FORTIFY_SOURCE")
STUB_FLAGS = ("-nostdlib", "-shared", "-fPIC", "-fno-builtin", "-fno-sanitize=all", "-w")
ANDROID_LINK = ("-pie", "--eh-frame-hdr", "-z", "max-page-size=16384", "-z", "now", "-z", "relro", "--hash-style=both", "-s")
IN_LIBDL = {"dlopen", "dlsym", "dlerror", "dlclose"}
BY_LINKER = {"_GLOBAL_OFFSET_TABLE_"}


def built_with() -> str:
    """The version of the installed ``ziglang`` package; "" without it."""
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        return ""


def build(target: str) -> bytes:
    """The program for a target of ``TARGETS``, compiled by the ``ziglang`` package."""
    system, machine = target.split("-")
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        made = _linux(machine, Path(folder)) if system == "linux" else _android(machine, Path(folder))
        return made.read_bytes()


def _linux(machine: str, folder: Path) -> Path:
    """Runs with glibc 2.17 and newer."""
    made, objects = folder / "runner", _compile(f"{machine}-linux-gnu.2.17", FLAGS, SOURCES, folder)
    _zig(folder, "cc", "-target", f"{machine}-linux-gnu.2.17", "-s", "-Wl,--build-id=none", *objects, "-o", made.name, "-ldl")
    return made


def _android(machine: str, folder: Path) -> Path:
    """Needs libc.so and libdl.so of API level 24; loads with pages of 4 and 16 KiB."""
    made, target = folder / "runner", f"{machine}-linux-musl"
    objects = _compile(target, ANDROID_FLAGS, (*SOURCES, ANDROID_START), folder)
    symbols = [global_symbols((folder / name).read_bytes()) for name in objects]
    wanted = frozenset[str]().union(*(used for _, used in symbols)) - frozenset().union(*(own for own, _ in symbols))
    for library, names in (("libdl.so", wanted & IN_LIBDL), ("libc.so", wanted - IN_LIBDL - BY_LINKER)):
        # A library of the right name that has the names and nothing else: all that linking asks of Android's own.
        stub = folder / f"{library}.c"
        stub.write_text("".join(f"void {name}(void) {{}}\n" for name in sorted(names)))
        _zig(folder, "cc", "-target", target, *STUB_FLAGS, f"-Wl,-soname,{library}", stub.name, "-o", library)
    linker = ("-dynamic-linker", "/system/bin/linker64", "-e", "_start")
    _zig(folder, "ld.lld", *ANDROID_LINK, *linker, *objects, "libdl.so", "libc.so", "-o", made.name)
    return made


def _compile(target: str, flags: Sequence[str], sources: Sequence[Path], folder: Path) -> tuple[str, ...]:
    for source in sources:
        _zig(folder, "cc", "-target", target, *flags, "-c", str(source), "-o", f"{source.stem}.o")
    return tuple(f"{source.stem}.o" for source in sources)


def _zig(folder: Path, *words: str) -> None:
    done = subprocess.run((sys.executable, "-m", "ziglang", *words), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"zig {' '.join(words[:3])} failed with code {done.returncode}:\n{done.stderr}")


def main() -> None:
    """Write the programs and the record of what made them."""
    version = built_with()
    if not version:
        sys.exit("error: the runner's compiler is missing; run: pip install ziglang")
    BINARIES.mkdir(exist_ok=True)
    hashes = {}
    for target in TARGETS:
        program = build(target)
        path = BINARIES / f"runner-{target}"
        path.write_bytes(program)
        path.chmod(0o755)
        hashes[target] = hashlib.sha256(program).hexdigest()
        print(f"{path} ({len(program)} bytes)", file=sys.stderr)
    VERSIONS.write_text(json.dumps({"ziglang": version, "sha256": hashes}, indent=2) + "\n")


if __name__ == "__main__":
    main()
