"""Process 1 of the test phone: mounts what a phone has, then keeps adbd running for as long as the file ``plugged`` is there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PORT = 5655
ENVIRONMENT = {
    "PATH": "/system/bin:/usr/bin:/usr/sbin", "HOME": "/data/local/tmp",
    "QEMU_CPU": "neoverse-n1", "QEMU_SET_ENV": "LD_LIBRARY_PATH=/system/lib64",
}  # fmt: skip
# ELF, 64 bits, little-endian, executable or shared, AArch64: see binfmt_misc in the kernel's documentation.
MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"


def main(root: Path, work: Path) -> None:
    """Never returns; ``work`` holds this phone's own ``fake``, ``plugged`` and adbd's log."""
    _mount(root, work)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    plugged = work / "plugged"
    while True:
        if plugged.exists():
            _serve(root, plugged)
        time.sleep(0.02)


def _serve(root: Path, plugged: Path) -> None:
    daemons = [_daemon(root, PORT + 2 * i) for i in range(int(sys.argv[4]))]
    while plugged.exists():
        if any(os.waitpid(daemon, os.WNOHANG)[0] for daemon in daemons):
            break
        time.sleep(0.02)
    os.kill(-1, signal.SIGKILL)  # all of this namespace but its process 1
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _daemon(root: Path, port: int) -> int:
    daemon = os.fork()
    if daemon == 0:
        os.chroot(root)
        os.chdir("/")
        os.execve("/usr/sbin/adbd", ["adbd"], {**ENVIRONMENT, "ADBD_PORT": str(port)})
    return daemon


def _mount(root: Path, work: Path) -> None:
    dev = root / "dev"
    _run("-t", "proc", "proc", root / "proc")
    _run("--bind", work / "fake", root / "fake")
    _run("--bind", work / "fake/cpuinfo", root / "proc/cpuinfo")
    _run("-t", "tmpfs", "-o", "size=128m,mode=777", "tmpfs", root / "data/local/tmp")
    # This user namespace's own table of program formats (Linux 6.7 and newer): nothing is registered for the whole computer.
    _run("-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc")
    Path("/proc/sys/fs/binfmt_misc/register").write_text(f":test-phone:M::{MAGIC}:{MASK}:{sys.argv[3]}:FPOC")
    _run("-t", "tmpfs", "tmpfs", dev)
    (dev / "pts").mkdir()
    for name in ("null", "zero", "full", "urandom", "random", "tty"):
        (dev / name).touch()
        _run("--bind", f"/dev/{name}", dev / name)
    _run("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", dev / "pts")
    (dev / "ptmx").symlink_to("pts/ptmx")


def _run(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
