"""Start the test phone, unplug it, and reach it with the real adb; each phone has a network of its own, so no ports and servers meet."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["FOLDER", "SERIAL", "FakePhone", "missing", "phone"]

FOLDER = Path(os.environ.get("NAS_TEST_PHONE", Path(__file__).parents[2] / "scratch/phone"))
SERIAL = "127.0.0.1:5655"
TOOLS = ("adb", "qemu-aarch64-static", "unshare", "nsenter", "ip", "mount")


def missing() -> str:
    """Why no test phone can be started here; "" where one can."""
    if os.geteuid() != 0:
        return "the test phone wants root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"the test phone wants {', '.join(absent)} (Debian: adb, qemu-user-static, util-linux, iproute2)"
    return "" if (FOLDER / "ready").exists() else "the test phone is not built: python -m tests.phone build"


@dataclass(frozen=True, kw_only=True)
class FakePhone:
    """``adb`` is a program that sees this phone alone, for ``$ADB``; ``fake`` holds what it says of heat and battery."""

    work: Path
    holder: int  # process 1 of the phone, as this computer numbers it

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

    def unplug(self) -> None:
        """Kill the daemon and all that it runs."""
        (self.work / "plugged").unlink()
        _wait(lambda: not _children(self.holder), "the test phone did not go")

    def plug_in(self) -> None:
        """Start the daemon and wait for it."""
        before = self._starts()
        (self.work / "plugged").touch()
        _wait(lambda: self._starts() > before, "the test phone's adbd did not start")

    def _starts(self) -> int:
        return (self.work / "log").read_bytes().count(b"adbd started")


@contextmanager
def phone(work: Path) -> Iterator[FakePhone]:
    """A running phone with its files in ``work``; skips the test where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    shutil.copytree(FOLDER / "root/fake", work / "fake")
    with (work / "log").open("wb") as words:
        namespaces = ("--net", "--mount", "--pid", "--user", "--map-root-user", "--fork", "--kill-child")
        inside = (Path(__file__).with_name("inside.py"), FOLDER / "root", work, str(shutil.which("qemu-aarch64-static")))
        spawned = subprocess.Popen(
            ["unshare", *namespaces, sys.executable, *inside], stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
        )
    made: FakePhone | None = None
    try:
        _wait(lambda: bool(_children(spawned.pid)) or spawned.poll() is not None, "the test phone's namespaces were not made")
        if spawned.poll() is not None:
            pytest.skip(f"this computer cannot make a test phone: {' '.join((work / 'log').read_text().split())}")
        made = FakePhone(work=work, holder=_children(spawned.pid)[0])
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
