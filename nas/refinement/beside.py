"""Networks timed beside the seed: what has slowed the device as a whole since the run began is divided out."""

from collections.abc import Callable, Sequence

import msgspec

from latency import Failed
from latency.onnx_graph import emit
from nas.measuring import Meter
from nas.store import Candidate, Latency
from search_spaces.architecture import Architecture

__all__ = ["timed_beside"]

DRIFTED = 0.05


def timed_beside(
    seed: Candidate, archs: Sequence[Architecture], meter: Meter, say: Callable[[str], None]
) -> list[Latency | Failed]:
    """Each network's latency, all of them in turns with the seed, as it was when the seed's own was measured.

    Args:
        seed: the path's first row.
        archs: the networks.
        meter: of the device that the seed was measured on.
        say: is told where the device has become more than 5 % slower or faster.

    Raises:
        Failed: the device cannot run the seed any more.
        DeviceError: it is gone.
    """
    own, *others = meter.time([emit(seed.arch), *map(emit, archs)])
    assert seed.latency is not None, "the seed is measured"
    if isinstance(own, Failed):
        raise own
    slower = own.measurement.p50_ms / seed.latency.p50_ms
    if abs(slower - 1) > DRIFTED:
        say(f"the seed takes {100 * slower:.0f} % of its latency at the start: what is measured now is corrected for that")
    return [timed if isinstance(timed, Failed) else _at_start(Latency.of(timed.measurement), slower) for timed in others]


def _at_start(latency: Latency, slower: float) -> Latency:
    figures = {name: getattr(latency, name) / slower for name in ("p50_ms", "low_ms", "high_ms")}
    return msgspec.structs.replace(latency, **figures)
