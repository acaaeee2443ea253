"""Folders for temporary files that outlive no one for long: those of a killed process are removed by the next one that makes some."""

import contextlib
import functools
import os
import re
import shutil
import stat
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

__all__ = ["Scratch", "sweep"]

NAME = re.compile(r"(latency|nas-ssh)\.[a-z0-9_]{8}")
# Sticky: no folder of another program that happens to have such a name is private and sticky.
MODE = 0o1700


class Scratch:
    """A private folder below the system's for temporary files: there until it is closed, or its process ends in any way."""

    def __init__(self, name: str = "latency") -> None:
        """Make the folder; ``name`` is what its own begins with, ``latency`` or ``nas-ssh``. The first one sweeps, see ``sweep``."""
        _sweep_once()
        self.path, lock = _made(name)
        self._remove = weakref.finalize(self, _remove, self.path, lock)

    def close(self) -> None:
        """Remove the folder with all that is in it; closing twice is no error."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def sweep(folder: Path | None = None) -> None:
    """Removes the folders of this user's processes that were killed; those of living ones are locked, and are left alone.

    Args:
        folder: where to look; None: the system's folder for temporary files.
    """
    try:
        names = [entry.name for entry in os.scandir(folder or tempfile.gettempdir()) if NAME.fullmatch(entry.name)]
    except OSError:
        return
    for name in names:
        path = (folder or Path(tempfile.gettempdir())) / name
        with contextlib.suppress(OSError):
            if _is_ours(path) and (lock := _locked(path)) is not None:
                _remove(path, lock)


@functools.cache
def _sweep_once() -> None:
    sweep()


def _made(name: str) -> tuple[Path, int | None]:
    """A new folder and the descriptor that locks it; it has its final name only once it is locked, so that no one sweeps it before."""
    made = Path(tempfile.mkdtemp(prefix=f".{name}."))
    made.chmod(MODE)
    lock = _locked(made)
    final = made.with_name(made.name[1:])
    with contextlib.suppress(OSError):
        return made.rename(final), lock
    return made, lock


def _locked(path: Path) -> int | None:
    """A descriptor that keeps the folder locked for as long as it is open; None where another process has it, or nothing can be locked."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing is swept there
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == MODE and found.st_uid == os.getuid()


def _remove(path: Path, lock: int | None) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if lock is not None:
        os.close(lock)
