"""Files and commands on another machine, over any link: whole answers only, one re-connect, nothing half-pushed."""

import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from latency.devices.remote_shell import Finished, read_answer, script
from latency.devices.transport import Result
from latency.errors import DeviceError, Failed, Unreachable

__all__ = ["Link", "Remote"]

T = TypeVar("T")

SHORT_S = 120.0  # for commands that take no time, on a slow network or a board whose cores are all at work
SLOWEST_BYTES_S = 500_000  # a poor wireless link
# What was cut off for good leaves a .part or a job: those older than an hour, or a day, are no one's any more.
MAKE_FOLDER = """cd; set -- {home}; mkdir -p "$1" && cd "$1" && test -w . && pwd
find . \\( -name '*.part' -mmin +60 -o -name 'job-*' -mmin +1440 \\) -exec rm -f {{}} + 2>/dev/null; :"""
ACCEPT = 'test "$(($(wc -c < "$0")))" -eq "$2" && chmod "$3" "$0" && mv -f "$0" "$1"'
COUNT = 'wc -c < "$0"'
STOP = 'case "$(cat /proc/"$0"/cmdline)" in *"$1"*) kill -9 "$0";; esac'
DROP = 'rm -f "$0"; df -k "${0%/*}"'


class Link(Protocol):
    """What differs between the ways to another machine; only ``connect`` raises for what the other side said."""

    @property
    def name(self) -> str: ...

    @property
    def home(self) -> str:
        """The folder to work in, as a word that the machine's shell expands."""
        ...

    def connect(self) -> None:
        """Reach the machine, or reach it again, within a bounded time.

        Raises:
            Unreachable: it is not there; the text says what to do.
        """
        ...

    def shell(self, line: str, *, timeout_s: float) -> Finished:
        """Run one line in the machine's shell, with nothing to read."""
        ...

    def send(self, source: Path, target: str, *, timeout_s: float) -> Finished:
        """Copy a file there; it may arrive in part."""
        ...

    def receive(self, source: str, target: Path, *, timeout_s: float) -> Finished:
        """Copy a file here; it may arrive in part."""
        ...

    def close(self) -> None:
        """Let go of the machine; closing twice is no error."""
        ...


class Remote:
    """A transport over a link; see ``Transport``.

    Where an answer is cut off, the link is made again, once, and the command is run again: it must bear that. ``say`` is told.
    """

    def __init__(self, link: Link, *, say: Callable[[str], None] | None = None) -> None:
        self._link, self._say = link, say or _to_stderr
        self._folder = ""
        self._linked = self._closed = False

    @property
    def name(self) -> str:
        """How messages call the machine."""
        return self._link.name

    @property
    def folder(self) -> str:
        """The working folder over there, made at the first look; it stays, so that a library goes up once."""
        if not self._folder:
            made = self.run(["sh", "-c", MAKE_FOLDER.format(home=self._link.home)], timeout_s=SHORT_S)
            folder = made.out.strip()
            if not re.fullmatch(r"/[\w./-]+", folder, flags=re.ASCII):
                raise Failed(f"{self.name}: cannot work in the folder {folder or self._link.home}: {_line(made.err) or 'an odd name'}")
            self._folder = folder
        return self._folder

    def run(self, command: Sequence[str], *, timeout_s: float) -> Result:
        """See ``Transport.run``."""
        return self._twice(lambda: self._try(command, timeout_s), f"while {Path(command[0]).name} ran")

    def push(self, source: Path, target: str) -> None:
        """See ``Transport.push``; the file appears under its name once it is whole.

        Raises:
            Failed: the disk is full, or the place is not to be written.
        """
        part, size = f"{target}.{secrets.token_hex(4)}.part", source.stat().st_size
        accept = ["sh", "-c", ACCEPT, part, target, str(size), "755" if os.access(source, os.X_OK) else "644"]

        def attempt() -> tuple[Finished, Result]:
            sent = self._link.send(source, part, timeout_s=SHORT_S + size / SLOWEST_BYTES_S)
            return sent, self._try(accept, SHORT_S)

        sent, kept = self._twice(attempt, f"while {source.name} was pushed")
        if kept.code != 0:
            room = self.run(["sh", "-c", DROP, part], timeout_s=SHORT_S).out.strip().splitlines()
            why = sent.says if sent.code != 0 else _line(kept.err) or "it arrived in part"
            raise Failed(f"{self.name}: cannot put {source.name} ({size:,} bytes) at {target}: {why}{_free(room)}")

    def pull(self, source: str, target: Path) -> None:
        """See ``Transport.pull``; the file appears under its name once it is whole.

        Raises:
            Failed: it is not there, or not to be read.
        """
        counted = self.run(["sh", "-c", COUNT, source], timeout_s=SHORT_S)
        if counted.code != 0 or not counted.out.strip().isdigit():
            raise Failed(f"{self.name}: cannot read {source}: {_line(counted.err) or 'no such file'}")
        size, part = int(counted.out), target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")

        def attempt() -> Finished:
            got = self._link.receive(source, part, timeout_s=SHORT_S + size / SLOWEST_BYTES_S)
            if not part.exists() or part.stat().st_size != size:
                self._try(["true"], SHORT_S)
            return got

        try:
            got = self._twice(attempt, f"while {source} was pulled")
            if not part.exists() or part.stat().st_size != size:
                raise Failed(f"{self.name}: cannot get {source} ({size:,} bytes): {got.says}")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the machine; what was pushed stays there."""
        self._closed = True
        self._link.close()

    def _twice(self, attempt: Callable[[], T], when: str) -> T:
        """The attempt's value; after one loss of the connection that of a second attempt."""
        self._require_open()
        if not self._linked:
            self._link.connect()
            self._linked = True
        try:
            return attempt()
        except _Lost as lost:
            self._linked = False
            self._require_open()
            self._link.connect()
            self._linked = True
            self._stop(lost)
            self._say(f"{self.name}: the connection was lost {when} and is back; that is done once more")
        try:
            return attempt()
        except _Lost as lost:
            self._require_open()
            raise Unreachable(f"{self.name}: lost twice {when} ({lost}): check cable, network and power, then start again") from lost

    def _require_open(self) -> None:
        """Whoever closes cuts off what runs: that is no loss, and nothing to be done again."""
        if self._closed:
            raise DeviceError(f"the connection to {self.name} is closed: open it again")

    def _try(self, command: Sequence[str], timeout_s: float) -> Result:
        mark = secrets.token_hex(8)
        done = self._link.shell(script(command, mark), timeout_s=timeout_s)
        answer = read_answer(done.out, mark)
        if answer.code is not None:
            return Result(code=answer.code, out=answer.out, err=done.err.decode("utf-8", errors="replace"))
        lost = _Lost(done.says, answer.pid, Path(command[0]).name)
        if not done.timed_out or not self._answers():
            raise lost
        self._stop(lost)
        raise Unreachable(f"{self.name}: {lost.program} did not end within {timeout_s:g} s and was ended")

    def _answers(self) -> bool:
        mark = secrets.token_hex(8)
        return read_answer(self._link.shell(script(["true"], mark), timeout_s=SHORT_S).out, mark).code == 0

    def _stop(self, lost: "_Lost") -> None:
        """Kill what a cut-off command left running over there, if it is still that program."""
        if lost.pid is not None:
            self._link.shell(script(["sh", "-c", STOP, str(lost.pid), lost.program], secrets.token_hex(8)), timeout_s=SHORT_S)


class _Lost(Exception):
    """An answer was cut off; ``pid`` is the command's over there."""

    def __init__(self, says: str, pid: int | None, program: str) -> None:
        super().__init__(says)
        self.pid, self.program = pid, program


def _line(text: str) -> str:
    return " ".join(text.split())


def _free(df: Sequence[str]) -> str:
    """Room left, from the last line of ``df -k``: its fourth column."""
    columns = df[-1].split() if df else []
    return f" ({int(columns[3]):,} KiB free there)" if len(columns) > 3 and columns[3].isdigit() else ""


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
