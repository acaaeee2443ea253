"""Before and after timing: is the device cool, at rest and fed? Waits for the first, says what stands against the rest."""

import sys
import time
from collections.abc import Callable

import msgspec

from latency.devices.facts import Condition, Facts, read_condition
from latency.devices.transport import Transport
from latency.errors import DeviceError

__all__ = ["aftermath", "idle_share", "settle"]

COOL_C, HOT_C = 45.0, {"x86_64": 85.0}  # begin below the first; above the second a figure is doubtful: elsewhere as a listing has it
POLL_S, STEADY_S, STEADY_C = 5.0, 30.0, 1.0  # a device that cools by less than 1 °C in 30 s is as cool as it gets
IDLE = 0.8
STAT = "head -n 1 /proc/stat; sleep 2; head -n 1 /proc/stat"
STAT_S = 60.0

Say = Callable[[str], None]


def settle(
    transport: Transport, facts: Facts, wait_s: float, *, say: Say | None = None, clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, ...]:  # fmt: skip
    """Waits until the device is cool, or as cool as it gets at rest; gives what then stands against measuring, a sentence each.

    Args:
        transport: the way to the device.
        facts: what it is.
        wait_s: how long to wait at most.
        say: takes a sentence where there is something to wait for; None: stderr.
        clock: seconds.
        sleep: waits seconds.

    Raises:
        DeviceError: it still throttles itself after that time.
        Unreachable: it is gone.
    """
    began, seen = clock(), list[tuple[float, float]]()
    while True:
        now, found = clock(), read_condition(transport)
        seen.append((now, found.hottest_c or 0.0))
        if not found.thermal_status and (seen[-1][1] < COOL_C or _is_steady(seen)):
            return (*_standing_against(found, facts), *_busy(transport))
        if now - began + POLL_S > wait_s:
            break
        if len(seen) == 1:
            shown = f"{found.hottest_c:.0f} °C" if found.hottest_c else "of unknown temperature"
            (say or _to_stderr)(f"{transport.name} is {shown}, thermal status {found.thermal_status or 0}: waiting for it to cool")
        sleep(POLL_S)
    if found.thermal_status:
        hot = f"throttled by heat after {wait_s:.0f} s of waiting (thermal status {found.thermal_status})"
        raise DeviceError(f"{transport.name} is {hot}: let it cool, then start again")
    return (*_standing_against(found, facts), *_busy(transport))


def aftermath(transport: Transport) -> tuple[str, ...]:
    """What happened to the device while it was timed: heat that it answered to by throttling, as far as it tells."""
    status = read_condition(transport).thermal_status
    return (f"it became hot while it was timed (thermal status {status}): let it cool, and measure again",) if status else ()


def idle_share(before: str, after: str) -> float | None:
    """Share of the processor's time without work between two ``cpu`` lines of ``/proc/stat``; None where they are none.

    >>> idle_share("cpu  100 0 100 700 100 0 0 0", "cpu  150 0 150 750 150 0 0 0")
    0.5
    """
    if not (before.startswith("cpu ") and after.startswith("cpu ")):
        return None
    first, second = ([int(v) for v in line.split()[1:9]] for line in (before, after))
    spent = [b - a for a, b in zip(first, second, strict=True)]
    return (spent[3] + spent[4]) / sum(spent) if sum(spent) > 0 else None


def _is_steady(seen: list[tuple[float, float]]) -> bool:
    now, latest = seen[-1]
    early = [c for at, c in seen if at <= now - STEADY_S]
    return bool(early) and early[-1] - latest < STEADY_C


def _standing_against(found: Condition, facts: Facts) -> tuple[str, ...]:
    """The condition's problems, its load apart: that of the last minute says less than two seconds at rest do."""
    hot_c = HOT_C.get(facts.machine)
    bare = msgspec.structs.replace(found, load=None)
    if hot_c and (found.hottest_c or 0) < hot_c:
        bare = msgspec.structs.replace(bare, hottest_c=None)
    slow = facts.governor == "powersave" and facts.machine == "aarch64"
    return (*bare.problems(), *(["its governor powersave keeps the cores at their lowest frequency: choose another"] if slow else []))


def _busy(transport: Transport) -> tuple[str, ...]:
    lines = transport.run(["sh", "-c", STAT], timeout_s=STAT_S).out.splitlines()
    idle = idle_share(*lines) if len(lines) == 2 else None
    if idle is None or idle >= IDLE:
        return ()
    return (f"other work took {1 - idle:.0%} of the processor's time before the timing began: stop that",)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
