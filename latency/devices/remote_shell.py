"""One command on another machine, so that its answer is known to be whole: an exit code alone is not trusted.

``adb shell`` of some versions ends with 0 when the phone is pulled out in mid-command, and 255 from ``ssh`` may be its own or the
command's. So the command's standard output begins and ends with a line that only this call can know; without the last one, the
answer was cut off.
"""

import contextlib
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Answer", "Finished", "decoded", "finish", "read_answer", "script"]

LAST_LINES = 5
# ONNX Runtime 1.32 writes a device id and a database of events into the user's cache, and runs threads that would upload them.
QUIET = "export ORT_DISABLE_TELEMETRY=1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A program of this computer that ended, or was killed after its time: ``timed_out``, with what it had written by then."""

    code: int
    out: bytes
    err: bytes
    timed_out: bool = False

    @property
    def says(self) -> str:
        """Its last words, in one line: of standard error, else of standard output."""
        end = "no end in time" if self.timed_out else f"exit code {self.code}"
        return _last_words(decoded(self.err)) or _last_words(decoded(self.out)) or end


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a remote command wrote. ``code`` is None where the answer was cut off, ``pid`` None where it had not begun."""

    code: int | None
    pid: int | None
    out: str


def finish(argv: Sequence[str], *, timeout_s: float, stdin: Path | None = None, stdout: Path | None = None) -> Finished:
    """Run a program of this computer to its end, at most ``timeout_s`` seconds; a file may feed it, a file may take what it writes.

    Raises:
        OSError: the program cannot be started, or a file cannot be opened.
    """
    with contextlib.ExitStack() as files:
        feed = files.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        take = files.enter_context(stdout.open("wb")) if stdout else subprocess.PIPE
        try:
            done = subprocess.run(argv, stdin=feed, stdout=take, stderr=subprocess.PIPE, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as late:
            return Finished(code=-9, out=late.stdout or b"", err=late.stderr or b"", timed_out=True)
    return Finished(code=done.returncode, out=done.stdout or b"", err=done.stderr)


def script(argv: Sequence[str], mark: str) -> str:
    """A shell line that runs ``argv`` between the two marked lines; the first one also says the command's process id.

    It is one word of any login shell: ``sh -c '…'``.

    >>> print(script(["echo", "a b"], "m1"))
    sh -c 'sh -c '"'"'echo m1 $$; export ORT_DISABLE_TELEMETRY=1; exec "$0" "$@"'"'"' echo '"'"'a b'"'"'; code=$?; echo; echo m1 $code'
    """
    inner = f'echo {mark} $$; {QUIET}; exec "$0" "$@"'
    return "sh -c " + shlex.quote(f"sh -c {shlex.quote(inner)} {shlex.join(argv)}; code=$?; echo; echo {mark} $code")


def read_answer(out: bytes, mark: str) -> Answer:
    """The answer between the marked lines of a standard output; what stands before the first, such as a greeting, is dropped.

    >>> read_answer(b"welcome\\nm1 71\\nhello\\n\\nm1 3\\n", "m1")
    Answer(code=3, pid=71, out='hello\\n')
    >>> read_answer(b"m1 71\\nhel", "m1")
    Answer(code=None, pid=71, out='hel')
    """
    text = decoded(out)
    begin = re.search(rf"^{mark} (\d+)\n", text, flags=re.MULTILINE)
    if begin is None:
        return Answer(code=None, pid=None, out="")
    rest = text[begin.end() :]
    end = re.search(rf"\n{mark} (\d+)\s*\Z", rest)
    code = int(end.group(1)) if end else None
    return Answer(code=code, pid=int(begin.group(1)), out=rest[: end.start()] if end else rest)


def decoded(data: bytes) -> str:
    """Text of another machine: UTF-8 with replacement, line ends as here (old phones' shells write CR LF)."""
    return data.decode("utf-8", errors="replace").replace("\r\n", "\n")


def _last_words(text: str) -> str:
    """The lines that say "error", else the last lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join([line for line in lines if "error" in line.lower()][:LAST_LINES] or lines[-LAST_LINES:])
