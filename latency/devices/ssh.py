"""Boards over the user's own ``ssh``: its configuration, jump hosts, agents and hardware keys work as they do by hand."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from latency.devices.remote_device import open_link, split_address
from latency.devices.remote_shell import Finished, finish
from latency.devices.runner_device import RunnerDevice
from latency.errors import InvalidDevice, Unreachable
from latency.runtime_source import for_linux
from latency.scratch import Scratch

__all__ = ["SshLink", "open_ssh", "parse_address"]

CONNECT_S, ENTER_S = 30, 120  # until the host answers; until the user is let in, which a busy board takes long for
# A board that goes without a word is noticed after some 20 s.
# The private socket's folder is short-lived and this process's own; a master without clients ends itself after a minute.
OPTIONS = (
    "BatchMode=yes", f"ConnectTimeout={CONNECT_S}", "ServerAliveInterval=5", "ServerAliveCountMax=4", "ControlPersist=60",
    "ForwardX11=no", "ForwardAgent=no", "ClearAllForwardings=yes", "RemoteCommand=none", "RequestTTY=no", "LogLevel=ERROR",
)  # fmt: skip
ADVICE = {
    "Host key verification failed": "connect once by hand to accept its key",
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "its key changed: make sure why, then ssh-keygen -R the host",
    "Permission denied": "set up a key that needs no typing: ssh-copy-id, or ssh-add for one with a passphrase",
    "Could not resolve hostname": "check the name",
    "Connection refused": "start its ssh server, or check the port",
    "timed out": "is it on, and in this network?",
    "No route to host": "is it on, and in this network?",
}


def open_ssh(address: str, runtime: str = "") -> RunnerDevice:
    """The board at ``[user@]host[:port][,runtime=FILE]``; without a runtime, that of this Python's version of it: PyPI's.

    Raises:
        InvalidDevice: the address is malformed.
        Unreachable: the board is not there, or does not let this user in without a password; the text says what to do.
        DeviceError, InvalidRuntime: see ``open_link``.
    """
    place, named = split_address(address, "ssh")
    return open_link(SshLink(place), kind="ssh", library=lambda machine: for_linux(machine, named or runtime))


def parse_address(address: str) -> tuple[str, int | None]:
    """``[user@]host[:port]`` as what ssh is given and the port, None where the user's configuration decides.

    >>> parse_address("pi@board.local:2222"), parse_address("board"), parse_address("root@[fe80::1%eth0]:22")
    (('pi@board.local', 2222), ('board', None), ('root@fe80::1%eth0', 22))

    Raises:
        InvalidDevice: not such an address; characters that a shell or ssh itself would act on are refused.
    """
    match = re.fullmatch(r"(?:(\w[\w.-]*)@)?(?:(\w[\w.-]*)|\[([\w:.%]+)\])(?::(\d{1,5}))?", address, flags=re.ASCII)
    if not address:
        raise InvalidDevice("ssh: name the board, ssh:[user@]host[:port], by any name that your ssh knows")
    port = int(match[4]) if match and match[4] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise InvalidDevice(f"ssh: the address must be [user@]host[:port] ([…] round an IPv6 address), got {address!r}")
    host = match[2] or match[3]
    return (f"{match[1]}@{host}" if match[1] else host), port


class SshLink:
    """One connection that all calls share (ControlMaster), through a socket in a private folder."""

    home = '"${XDG_CACHE_HOME:-$HOME/.cache}/hardware-aware-nas"'

    def __init__(self, address: str) -> None:
        self._destination, self._port = parse_address(address)
        self.name = f"ssh {address}"
        self._socket: Scratch | None = None

    def connect(self) -> None:
        """See ``Link.connect``."""
        program = shutil.which("ssh")
        if program is None:
            raise Unreachable(f"{self.name}: there is no ssh on this computer: install OpenSSH's client")
        self._end_master()
        self._socket = self._socket or Scratch("nas-ssh")
        log = self._socket.path / "log"
        # -f: ssh returns once the user is let in, and the master stays; with pipes we would wait for the master's end.
        with log.open("wb") as words:
            try:
                code = subprocess.run(
                    [*self._ssh("-M", "-N", "-f"), self._destination], stdin=subprocess.DEVNULL, stdout=words, stderr=words,
                    timeout=ENTER_S, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired as late:
                raise Unreachable(f"{self.name}: no connection within {ENTER_S} s: is it on, and in this network?") from late
        if code != 0:
            raise Unreachable(f"{self.name}: {_reason(log.read_text(errors='replace'))}")

    def shell(self, line: str, *, timeout_s: float) -> Finished:
        """See ``Link.shell``."""
        return finish([*self._ssh(), self._destination, line], timeout_s=timeout_s)

    def send(self, source: Path, target: str, *, timeout_s: float) -> Finished:
        """See ``Link.send``: through ``cat``, since small boards have neither sftp nor scp."""
        return finish([*self._ssh(), self._destination, f"cat > {shlex.quote(target)}"], timeout_s=timeout_s, stdin=source)

    def receive(self, source: str, target: Path, *, timeout_s: float) -> Finished:
        """See ``Link.receive``."""
        return finish([*self._ssh(), self._destination, f"cat < {shlex.quote(source)}"], timeout_s=timeout_s, stdout=target)

    def close(self) -> None:
        """End the shared connection and remove its socket."""
        self._end_master()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ssh(self, *flags: str) -> list[str]:
        """ssh with our options; without a master at the socket it makes a connection of its own."""
        socket = str(self._socket.path / "s") if self._socket else "none"
        port = ("-p", str(self._port)) if self._port else ()
        master = () if "-M" in flags else ("-o", "ControlMaster=no")
        return ["ssh", *flags, *port, "-S", socket, *master, *(word for option in OPTIONS for word in ("-o", option)), "--"]

    def _end_master(self) -> None:
        if self._socket is not None and (self._socket.path / "s").exists():
            finish([*self._ssh("-O", "exit"), self._destination], timeout_s=CONNECT_S)


def _reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith("@")]
    advice = next((what for words, what in ADVICE.items() if words in log), "see ssh -v")
    return f"{(lines or ['ssh ended without a word'])[-1].rstrip('.')}: {advice}"
