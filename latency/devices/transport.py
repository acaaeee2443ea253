"""The way to a device: a place where files can be put and commands run."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from latency.errors import DeviceError, Unreachable
from latency.scratch import Scratch

__all__ = ["LocalTransport", "Result", "Transport"]

LINKED_BYTES = 2**22


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a command left: its exit code, as far as one can be trusted (negative: ended by that signal), and what it wrote."""

    code: int
    out: str
    err: str


class Transport(Protocol):
    """A folder on a device, reached in one of several ways; every call ends in bounded time.

    ``name`` is for messages (``local``, ``ssh pi@10.0.0.7``, ``android 1A2B3C``); ``folder`` is an absolute path on the device
    without characters that a shell reads, there before the first call that needs it. It survives ``close`` where the device is
    another one, so that what was deployed once stays.
    """

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> str: ...

    def run(self, command: Sequence[str], *, timeout_s: float) -> Result:
        """Run a program with its arguments, as they are: quoting is the transport's own affair. A missing program is a code ≠ 0.

        Raises:
            Unreachable: the device is gone, or the command did not end in time; then it has been ended where that can be done.
        """
        ...

    def push(self, source: Path, target: str) -> None:
        """Put a file at an absolute path on the device, executable if ``source`` is.

        ``source`` is left as it is until ``target`` is removed: a transport may link it.

        Raises:
            Unreachable: the device is gone.
            DeviceError: it is there and the file could not be written.
        """
        ...

    def pull(self, source: str, target: Path) -> None:
        """Copy a file of the device to this computer.

        Raises:
            Unreachable: the device is gone.
            DeviceError: it is there and has no such file.
        """
        ...

    def close(self) -> None:
        """Let go of the device; closing twice is no error."""
        ...


class LocalTransport:
    """This computer, in a private folder that goes when it is closed; large files are linked there and not copied."""

    name = "local"

    def __init__(self) -> None:
        self._scratch: Scratch | None = None

    @property
    def folder(self) -> str:
        """The private folder, made at first use; it goes with the process where no one closes the transport."""
        self._scratch = self._scratch or Scratch()
        return str(self._scratch.path)

    def run(self, command: Sequence[str], *, timeout_s: float) -> Result:
        """See ``Transport.run``."""
        try:
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                env={"ORT_DISABLE_TELEMETRY": "1", **os.environ},
            ) as process:  # fmt: skip
                return _finish(process, timeout_s)
        except OSError as error:
            return Result(code=127, out="", err=str(error))

    def push(self, source: Path, target: str) -> None:
        """See ``Transport.push``."""
        try:
            Path(target).unlink(missing_ok=True)
            if source.stat().st_size > LINKED_BYTES:
                Path(target).symlink_to(source.resolve())
            else:
                shutil.copy(source, target)
        except OSError as error:
            raise DeviceError(f"local: cannot write {target}: {error.strerror}") from error

    def pull(self, source: str, target: Path) -> None:
        """See ``Transport.pull``."""
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise DeviceError(f"local: cannot read {source}: {error.strerror}") from error

    def close(self) -> None:
        """Remove the private folder."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def _finish(process: "subprocess.Popen[str]", timeout_s: float) -> Result:
    """Wait for the process; on anything but its end, an interrupt among them, it is killed: no program times on alone."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"local: {process.args!s} did not end within {timeout_s:g} s") from error
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
    return Result(code=process.returncode, out=out, err=err)
