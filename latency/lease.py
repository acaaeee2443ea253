"""One measurement at a time on a device, whichever process asks: a lock of the operating system's, which a killed process leaves."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from latency.console import duration
from latency.devices.base import Device, Model
from latency.devices.runner_device import RunnerDevice
from latency.errors import Busy
from latency.measurement import DeviceInfo, Measurement
from latency.plan import TimingPlan
from latency.user_cache import user_cache

__all__ = ["WAIT_S", "Leased", "leased", "place_of"]

WAIT_S = 900.0


class Leased:
    """A device that is leased anew for every call of ``time``: others get their turn in between. See ``leased``."""

    def __init__(self, device: Device, spec: str, *, say: Callable[[str], None], wait_s: float = WAIT_S) -> None:
        """Take over the device that was opened at ``spec``; ``say`` is told when there is something to wait for."""
        self._device, self._place, self._say, self._wait_s = device, place_of(spec, device), say, wait_s

    def info(self) -> DeviceInfo:
        """What the device is."""
        return self._device.info()

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        """See ``Device.time``."""
        with leased(self._place, wait_s=self._wait_s, say=self._say):
            return self._device.time(models, plan)

    def close(self) -> None:
        """Let go of the device."""
        self._device.close()


def place_of(spec: str, device: Device | None = None) -> str:
    """Which device an address means, such as ``android 1A2B3C``, as exactly as it is known; "" for one that nobody has to wait for."""
    if spec.startswith("fake"):
        return ""
    if isinstance(device, RunnerDevice):
        return device.place
    return "local" if spec.startswith("local") else spec.partition(",")[0]


@contextmanager
def leased(place: str, *, wait_s: float, say: Callable[[str], None], folder: Path | None = None) -> Iterator[None]:
    """Holds the device for as long as the context lasts; others of this user wait for it, in no certain order.

    Where the folder for the locks cannot be written there is nothing to hold, and the context is entered at once.

    Args:
        place: which device it is, as ``place_of`` says.
        wait_s: how long to wait for another that holds it.
        say: is told when there is something to wait for.
        folder: of the locks; by default below ``user_cache()``.

    Raises:
        Busy: it was not free within ``wait_s``.
    """
    if not place:
        yield
        return
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
            raise Busy(text) from error
    try:
        yield
    finally:
        lock.release()
