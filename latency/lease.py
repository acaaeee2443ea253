"""One measurement at a time on a device, whichever process asks: a lock of the operating system's, which a killed process leaves."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latency.console import duration
from latency.errors import Unreachable
from latency.user_cache import user_cache

__all__ = ["leased"]


@contextmanager
def leased(place: str, *, wait_s: float, say: Callable[[str], None], folder: Path | None = None) -> Iterator[None]:
    """Holds the device for as long as the context lasts; others of this user wait for it, in no certain order.

    Where the folder for the locks cannot be written there is nothing to hold, and the context is entered at once.

    Args:
        place: which device it is, such as ``android 1A2B3C``.
        wait_s: how long to wait for another that holds it.
        say: is told when there is something to wait for.
        folder: of the locks; by default below ``user_cache()``.

    Raises:
        Unreachable: it was not free within ``wait_s``.
    """
    import filelock

    folder = folder or user_cache() / "leases"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.lock")
        with suppress(filelock.Timeout):
            lock.acquire(timeout=0)
    except OSError:
        yield
        return
    if not lock.is_locked:
        say(f"waiting for {place}: another process measures on it now")
        try:
            lock.acquire(timeout=wait_s)
        except filelock.Timeout as error:
            text = f"{place} was not free within {duration(wait_s)}: another process measures on it; wait for that one, then start again"
            raise Unreachable(text) from error
    try:
        yield
    finally:
        lock.release()
