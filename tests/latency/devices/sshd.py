"""A real sshd on a loopback port with keys of its own, and an ``ssh`` that knows it: what a board is to the tests."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Board", "board"]

CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile {folder}/pid
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
SetEnv XDG_CACHE_HOME={folder}/cache
"""
CLIENT = """
Host *
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  GlobalKnownHostsFile none
"""


@dataclass(frozen=True, kw_only=True)
class Board:
    """``address`` stands behind ``ssh:``; ``tools`` is the folder with the ``ssh`` that knows it, for PATH."""

    address: str
    folder: Path
    tools: Path
    sshd: str

    @property
    def log(self) -> Path:
        """What sshd says."""
        return self.folder / "log"

    def start(self) -> None:
        """Start sshd and wait until it answers, at most 2 minutes."""
        subprocess.run([self.sshd, "-f", self.folder / "config", "-E", self.log], check=True, timeout=120, stdin=subprocess.DEVNULL)
        port = int(self.address.rpartition(":")[2])
        for _ in range(2400):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"sshd does not answer: {self.log.read_text()}")

    def refuses(self) -> str:
        """Why a first connection does not work, such as a locked account; "" where it does."""
        host, _, port = self.address.rpartition(":")
        call: list[str | Path] = [self.tools / "ssh", "-o", "BatchMode=yes", "-p", port, host, "true"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
        return "" if done.returncode == 0 else " ".join((done.stderr + self.log.read_text()).split())

    def sessions(self) -> list[int]:
        """Processes of sshd that serve a connection."""
        return _children(self._listener())

    def freeze(self) -> None:
        """Stop the connections without a word, as a board whose network cable is out; new ones may be made."""
        for pid in self.sessions():
            _signal_tree(pid, signal.SIGSTOP)

    def cut(self) -> None:
        """End the connections, as a network that goes; new ones may be made."""
        for pid in self.sessions():
            _signal_tree(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End sshd and its connections; a stopped one may be stopped again."""
        listener = self._listener()
        if listener:
            _signal_tree(listener, signal.SIGKILL)
            (self.folder / "pid").unlink(missing_ok=True)

    def _listener(self) -> int:
        try:
            return int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return 0


@contextmanager
def board(folder: Path) -> Iterator[Board]:
    """A running board; skips the test where there is no sshd."""
    sshd = shutil.which("sshd", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin")))
    client, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
    if not (sshd and client and keygen):
        pytest.skip("no sshd, ssh or ssh-keygen on this computer (Debian: openssh-server, openssh-client)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's privilege separation wants it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tools = folder / "bin"
    tools.mkdir()
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True, timeout=120)
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    (folder / "client").write_text(CLIENT.format(folder=folder))
    (folder / "cache").mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {client} -F {folder}/client "$@"\n')
    (tools / "ssh").chmod(0o755)
    made = Board(address=f"127.0.0.1:{port}", folder=folder, tools=tools, sshd=sshd)
    try:
        made.start()
        if refused := made.refuses():
            pytest.skip(f"this computer's sshd lets nobody in: {refused}")
        yield made
    finally:
        made.stop()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal_tree(pid: int, number: signal.Signals) -> None:
    """Signal a process of ours and those below it that sshd started for a connection."""
    for child in _children(pid):
        if "sshd" in _name(child):
            _signal_tree(child, number)
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
