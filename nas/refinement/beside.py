"""Networks timed beside the seed: what has slowed the device as a whole since the run began is divided out."""

import math
from collections.abc import Callable, Sequence

import msgspec

from latency import Failed
from latency.onnx_graph import emit
from nas.measuring import Meter
from nas.store import Latency
from search_spaces.architecture import Architecture

__all__ = ["timed_beside"]

DRIFTED = 0.05


def timed_beside(
    seed: Architecture, then: Latency | None, archs: Sequence[Architecture], meter: Meter, say: Callable[[str], None]
) -> list[Latency | Failed]:
    """Each network's latency, all of them in turns with the seed on one device, as it was when the seed's own was measured.

    Intervals allow for all three figures that go into one; what is wrong with the seed's timing is wrong with all of them.

    Args:
        seed: the path's first network.
        then: its latency when the run began.
        archs: the networks.
        meter: of the device that the seed was measured on.
        say: is told where the device has become more than 5 % slower or faster.

    Raises:
        Failed: the device cannot run the seed any more.
        DeviceError: it is gone.
    """
    own, *others = meter.time([emit(seed), *map(emit, archs)], together=True)
    assert then is not None, "the seed is measured"
    if isinstance(own, Failed):
        raise own
    now = Latency.of(own.measurement)
    slower = now.p50_ms / then.p50_ms
    if abs(slower - 1) > DRIFTED:
        say(f"the seed takes {100 * slower:.0f} % of its latency at the start: what is measured now is corrected for that")
    return [timed if isinstance(timed, Failed) else _at_start(Latency.of(timed.measurement), now, then) for timed in others]


def _at_start(latency: Latency, now: Latency, then: Latency) -> Latency:
    """A latency times the seed's at the start over that of now."""
    p50_ms = latency.p50_ms * then.p50_ms / now.p50_ms
    below = math.hypot(_below(latency), _below(then), _above(now))
    above = math.hypot(_above(latency), _above(then), _below(now))
    problems = tuple(dict.fromkeys((*latency.problems, *(f"of the seed beside it: {p}" for p in now.problems))))
    return msgspec.structs.replace(
        latency, p50_ms=p50_ms, low_ms=p50_ms * max(0.0, 1 - below), high_ms=p50_ms * (1 + above), problems=problems
    )


def _below(latency: Latency) -> float:
    return 1 - latency.low_ms / latency.p50_ms


def _above(latency: Latency) -> float:
    return latency.high_ms / latency.p50_ms - 1
