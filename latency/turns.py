"""Models that were timed in turns, freed of what slowed or sped up the device as a whole in some of their rounds."""

from collections.abc import Sequence

import numpy as np

from latency.measurement import Measurement
from latency.samples import kept

__all__ = ["levelled_ms"]

ENOUGH = 4  # models in a round, below which nothing is said about the round
STEPS = 20

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def levelled_ms(measured: Sequence[Measurement]) -> list[float]:
    """What each model took, as if the device had been as fast in every round as it was in the middle one.

    In log time a round of a model is the model's own figure plus the round's, common to all models in it; both are found by
    taking medians in turns (Tukey's median polish). On a computer whose speed jumps by 50 % from second to second the figures
    of a batch keep their proportions to a few per cent.

    Args:
        measured: of one call of ``Device.time`` with one process, so that round i of one ran beside round i of the others.
    """
    found = [_rounds(m) for m in measured]
    count = 1 + max(int(places.max()) for places, _ in found)
    logs = np.full((len(found), count), np.nan)
    for row, (places, medians_ns) in zip(logs, found, strict=True):
        row[places] = np.log(medians_ns / 1e6)
    own = np.nanmedian(logs, axis=1)
    shared = np.flatnonzero(np.isfinite(logs).sum(axis=0) >= ENOUGH)
    for _ in range(STEPS if len(shared) else 0):
        factors = np.zeros(count)
        factors[shared] = np.nanmedian(logs[:, shared] - own[:, None], axis=0)
        factors[shared] -= np.median(factors[shared])
        own = np.nanmedian(logs - factors, axis=1)
    return [float(ms) for ms in np.exp(own)]


def _rounds(measured: Measurement) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], Array]:
    """Which of the rounds count, and their medians in nanoseconds."""
    (process,) = kept(measured.samples_ns, measured.cpu_ns, measured.process_rounds, measured.mhz).processes
    return process.places, process.round_medians_ns
