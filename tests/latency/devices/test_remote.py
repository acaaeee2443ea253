import re
from pathlib import Path

import pytest

from latency import DeviceError, Unreachable
from latency.devices.remote import Remote
from latency.devices.remote_shell import Finished


class Cut:
    """A link that answers commands from the ``cuts + 1``-th on; ``remote``, where given, is closed while the first one runs."""

    name, home = "a board", "~/x"

    def __init__(self, cuts: int) -> None:
        self.left, self.connects, self.commands = cuts, 0, 0
        self.remote: Remote | None = None

    def connect(self) -> None:
        self.connects += 1

    def shell(self, line: str, *, timeout_s: float) -> Finished:
        self.commands += 1
        if self.remote is not None:
            self.remote.close()
        if self.left:
            self.left -= 1
            return Finished(code=255, out=b"", err=b"connection reset")
        mark = next(iter(re.findall(r"echo ([0-9a-f]{16}) ", line)))
        return Finished(code=0, out=f"{mark} 7\nhello\n\n{mark} 0\n".encode(), err=b"")

    def send(self, source: Path, target: str, *, timeout_s: float) -> Finished:
        raise NotImplementedError

    def receive(self, source: str, target: Path, *, timeout_s: float) -> Finished:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_command_that_was_cut_off_is_run_once_more() -> None:
    link, said = Cut(1), list[str]()
    assert Remote(link, say=said.append).run(["echo", "hello"], timeout_s=9).out == "hello\n"
    assert (link.connects, link.commands, len(said)) == (2, 2, 1)


def test_command_that_is_cut_off_twice_is_an_error() -> None:
    link = Cut(2)
    with pytest.raises(Unreachable, match="a board: lost twice while echo ran"):
        Remote(link, say=lambda text: None).run(["echo", "hello"], timeout_s=9)


def test_closing_while_a_command_runs_ends_it_for_good() -> None:
    link = Cut(1)
    link.remote = Remote(link, say=pytest.fail)
    with pytest.raises(DeviceError, match="the connection to a board is closed"):
        link.remote.run(["echo", "hello"], timeout_s=9)
    assert (link.connects, link.commands) == (1, 1)
