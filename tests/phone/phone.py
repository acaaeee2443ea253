"""Start the test phone, unplug it, and reach it with the real adb; each phone has a network of its own, so no ports and servers meet."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.phone.build import version
from tests.phone.contents import CORES

__all__ = ["FOLDER", "SECOND", "SERIAL", "FakePhone", "missing", "phone"]

FOLDER = Path(os.environ.get("NAS_TEST_PHONE", Path(__file__).parents[2] / "scratch/phone"))
SERIAL, SECOND = "127.0.0.1:5655", "127.0.0.1:5657"
TOOLS = ("adb", "qemu-aarch64-static", "unshare", "nsenter", "ip", "mount")


def missing() -> str:
    """Why no test phone can be started here; "" where one can."""
    if os.geteuid() != 0:
        return "the test phone wants root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"the test phone wants {', '.join(absent)} (Debian: adb, qemu-user-static, util-linux, iproute2)"
    ready = FOLDER / "ready"
    if not ready.is_file() or ready.read_text() != version():
        return f"the test phone is {'of another version' if ready.is_file() else 'not built'}: python -m tests.phone build"
    return ""


@dataclass(frozen=True, kw_only=True)
class FakePhone:
    """``adb`` is a program that sees this phone alone, for ``$ADB``; ``fake`` holds what it says of heat and battery."""

    work: Path
    holder: int  # process 1 of the phone, as this computer numbers it
    daemons: int = 1  # so many serials lead to it

    @property
    def adb(self) -> Path:
        """The real adb, in the phone's network, with a server and keys of its own."""
        return self.work / "adb"

    @property
    def fake(self) -> Path:
        """The phone's ``/fake``; its files may be written while it runs."""
        return self.work / "fake"

    def call(self, *words: str) -> str:
        """What adb prints."""
        return subprocess.run([self.adb, *words], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL).stdout

    def heat(self, *, status: int, zone_c: float = 38.5, big_core_khz: int = CORES[-1].max_khz) -> None:
        """Give Android's thermal status, the processor's temperature, and how fast its big core may run."""
        (self.fake / "thermal").write_text(f"{status}\n")
        (self.fake / "zone").write_text(f"{zone_c * 1000:.0f}\n")
        (self.fake / "big_core_max_freq").write_text(f"{big_core_khz}\n")

    def cool(self) -> None:
        """As it was at first."""
        self.heat(status=0)

    def inside(self, path: str) -> Path:
        """A file of the phone, as this computer sees it."""
        return Path(f"/proc/{self.holder}/root{FOLDER}/root{path}")

    def runners(self) -> dict[int, str]:
        """Process ids of the runners that time something now, as this computer numbers them, and the cores that each may use."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                # qemu runs it: its own words stand before the program's
                if b"run" in words and any(b"/runner-" in word for word in words) and self._has(folder):
                    found[int(folder.name)] = (folder / "status").read_text().partition("Cpus_allowed_list:\t")[2].partition("\n")[0]
        return found

    def _has(self, process: Path) -> bool:
        return (process / "ns/pid").readlink() == Path(f"/proc/{self.holder}/ns/pid").readlink()

    def unplug(self) -> None:
        """Kill the daemon and all that it runs."""
        (self.work / "plugged").unlink()
        _wait(lambda: not _children(self.holder), "the test phone did not go")

    def plug_in(self) -> None:
        """Start the daemon and wait for it."""
        before = self._starts()
        (self.work / "plugged").touch()
        _wait(lambda: self._starts() >= before + self.daemons, "the test phone's adbd did not start")

    def _starts(self) -> int:
        return (self.work / "log").read_bytes().count(b"adbd started")


@contextlib.contextmanager
def phone(work: Path, *, daemons: int = 1) -> Iterator[FakePhone]:
    """A running phone with its files in ``work``, which adb sees as ``daemons`` phones; skips the test where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    shutil.copytree(FOLDER / "root/fake", work / "fake")
    with (work / "log").open("wb") as words:
        namespaces = ("--net", "--mount", "--pid", "--user", "--map-root-user", "--fork", "--kill-child")
        inside = (Path(__file__).with_name("inside.py"), FOLDER / "root", work, str(shutil.which("qemu-aarch64-static")), str(daemons))
        spawned = subprocess.Popen(
            ["unshare", *namespaces, sys.executable, *inside], stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
        )
    made: FakePhone | None = None
    try:
        _wait(lambda: bool(_children(spawned.pid)) or spawned.poll() is not None, "the test phone's namespaces were not made")
        if spawned.poll() is not None:
            pytest.skip(f"this computer cannot make a test phone: {' '.join((work / 'log').read_text().split())}")
        made = FakePhone(work=work, holder=_children(spawned.pid)[0], daemons=daemons)
        _write_adb(made)
        made.plug_in()
        yield made
    finally:
        if made:
            made.call("kill-server")
        for pid in _children(spawned.pid):
            os.kill(pid, signal.SIGKILL)
        spawned.wait(timeout=120)


def _write_adb(made: FakePhone) -> None:
    enter = f"nsenter -t {made.holder} -U --preserve-credentials -n"
    made.adb.write_text(f'#!/bin/sh\nexec {enter} env HOME={made.work} ADB_MDNS=0 {shutil.which("adb")} -P 5647 "$@"\n')
    made.adb.chmod(0o755)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _wait(reached: Callable[[], bool], otherwise: str) -> None:
    for _ in range(2400):
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError(otherwise)
