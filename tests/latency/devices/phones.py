"""The test phone as a device, and moments at which to break it."""

import threading
import time
from collections.abc import Callable

from latency.devices.adb import AdbLink
from latency.devices.remote_device import open_link
from latency.devices.runner_device import RunnerDevice
from latency.runtime_source import for_phone
from tests.phone.phone import FOLDER, SERIAL, FakePhone

__all__ = ["RUNTIME", "device_of", "left_on", "soon"]

RUNTIME = str(FOLDER / "libonnxruntime.so")


def device_of(made: FakePhone, *, back_s: float = 120) -> RunnerDevice:
    """The phone as ``open_device`` gives it, with more patience for it to come back, or less."""
    link = AdbLink(str(made.adb), SERIAL, back_s=back_s)
    return open_link(link, kind="android", library=lambda machine: for_phone(machine, RUNTIME))


def left_on(made: FakePhone) -> list[str]:
    """What lies in our folder on the phone: the first word of each name."""
    return sorted(path.name.partition("-")[0] for path in made.inside(AdbLink.home).iterdir())


def soon(reached: Callable[[], object], then: Callable[[], None]) -> threading.Thread:
    """Call ``then`` once ``reached`` holds, or after 2 minutes."""

    def wait() -> None:
        until = time.monotonic() + 120
        while not reached() and time.monotonic() < until:
            time.sleep(0.02)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
