"""How long one model takes over another that was timed in turns with it: what slowed the device as a whole is divided out."""

from typing import Any

import numpy as np

from latency.bootstrap import interval, resampled_medians, two_level
from latency.measurement import Measurement
from latency.samples import Process, kept

__all__ = ["ratio"]

Floats = np.ndarray[Any, np.dtype[np.float64]]


def ratio(measured: Measurement, beside: Measurement) -> tuple[float, float, float]:
    """Latency over that of ``beside``, and its 95 % interval.

    Round i of a process of the one ran next to round i of the same process of the other, so the device's speed of the moment is in both.
    The figure is the median over processes of the medians over rounds that both have; the interval resamples both levels.

    Args:
        measured: of one call of ``Device.time`` with
        beside: the other, by the same plan.
    """
    rng, pairs = np.random.default_rng(3), zip(measured.split(), beside.split(), strict=False)
    ratios = [_ratios(_only(one), _only(other)) for one, other in pairs]
    center = float(np.median([np.median(r) for r in ratios]))
    return center, *interval(two_level([resampled_medians(r, np.arange(len(r)), rng) for r in ratios], rng), center)


def _only(process: Measurement) -> Process:
    (found,) = kept(process.samples_ns, process.cpu_ns, process.process_rounds, process.mhz).processes
    return found


def _ratios(one: Process, other: Process) -> Floats:
    """By round that both have; where they have none in common, of the processes' medians."""
    _, mine, its = np.intersect1d(one.places, other.places, return_indices=True)
    return one.round_medians_ns[mine] / other.round_medians_ns[its] if len(mine) else np.array([one.p50_ns / other.p50_ns])
