"""Networks timed beside the seed: what has slowed the device as a whole since the run began is divided out."""

from collections.abc import Callable, Sequence

import msgspec

from latency import Failed, Measurement, doubts
from latency.onnx_graph import emit
from latency.paired import ratio
from nas.measuring import Meter
from nas.store import Latency
from search_spaces.architecture import Architecture

__all__ = ["beside", "timed_beside"]

DRIFTED = 0.05
DOUBTFUL = 0.02  # ± of a ratio


def timed_beside(
    seed: Architecture, then: Latency | None, archs: Sequence[Architecture], meter: Meter, say: Callable[[str], None]
) -> list[Latency | Failed]:
    """Each network's latency, all of them in turns with the seed on one device, as it was when the seed's own was measured.

    A latency is the seed's at the start times the network's ratio to the seed in the same rounds, and its interval is that of the ratio:
    what makes the seed's own figure uncertain is common to all of a refinement.

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
    slower = own.measurement.p50_ms / then.p50_ms
    if abs(slower - 1) > DRIFTED:
        say(f"the seed takes {100 * slower:.0f} % of its latency at the start: what is measured now is corrected for that")
    return [timed if isinstance(timed, Failed) else beside(timed.measurement, own.measurement, then.p50_ms) for timed in others]


def beside(measured: Measurement, own: Measurement, seed_ms: float) -> Latency:
    """The latency of a network that was timed in turns with the seed, where the seed takes ``seed_ms``.

    What only made the device's speed doubtful is told where the ratio suffers by it.
    """
    now, (center, low, high) = Latency.of(measured), ratio(measured, own)
    is_sure = (high - low) / 2 <= DOUBTFUL * center
    told = (*doubts.of(measured, beside_another=is_sure), *(f"of the seed beside it: {p}" for p in doubts.of(own, beside_another=is_sure)))
    return msgspec.structs.replace(
        now, p50_ms=seed_ms * center, low_ms=seed_ms * max(0.0, low), high_ms=seed_ms * high, problems=tuple(dict.fromkeys(told))
    )
