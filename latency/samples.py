"""The runs of a measurement that count, process by process: without those that were preempted, and rounds at a lower frequency."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from latency.preemption import MOSTLY, undisturbed

__all__ = ["Kept", "Process", "Rounds", "kept"]

SLOWED = 0.9  # of the usual frequency: a round below that is left out

Rounds = tuple[tuple[int, ...], ...]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


class Process(msgspec.Struct, frozen=True):
    """What counts of one process: ``values_ns`` (S,), the round of each (S,) from 0 without gaps, and by round (R,) the median.

    ``is_cpu_time``: the values are CPU times, since too few of its runs had the core to themselves.
    """

    values_ns: Floats
    rounds: Ints
    round_medians_ns: Floats
    places: Ints  # (R,) which of all the measurement's rounds each of these is
    is_cpu_time: bool = False

    @property
    def p50_ns(self) -> float:
        """The median of the process."""
        return float(np.median(self.values_ns))


class Kept(msgspec.Struct, frozen=True):
    """The processes, and what was left out of them: shares of the runs as preempted, and of the rounds for their frequency."""

    processes: tuple[Process, ...]
    rejected_share: float
    slowed_share: float

    @property
    def values_ns(self) -> Floats:
        """All that counts, (S,)."""
        return np.concatenate([p.values_ns for p in self.processes])


def kept(samples_ns: Rounds, cpu_ns: Rounds, process_rounds: Sequence[int] = (), mhz: Sequence[int] = ()) -> Kept:
    """What counts of so many rounds in each process (none given: all in one); of one that was mostly preempted its CPU times.

    Of a process that would have nothing left, as when its rounds all had a lower frequency than the others', all rounds count.
    """
    wall = np.array([v for r in samples_ns for v in r], dtype=np.float64)
    cpu = np.array([v for r in cpu_ns for v in r], dtype=np.float64) if cpu_ns else wall
    clean = undisturbed(wall, cpu)
    rounds = np.repeat(np.arange(len(samples_ns)), [len(r) for r in samples_ns])
    process = np.searchsorted(np.cumsum(process_rounds or (len(samples_ns),)), rounds, side="right")
    slow, found = _slowed(mhz, len(samples_ns)), list[Process]()
    for i in range(int(process.max()) + 1):
        mine = process == i
        preempted = 1.0 - float(clean[mine].mean()) > MOSTLY
        counts = mine if preempted else mine & clean
        counts = counts & ~slow[rounds] if (counts & ~slow[rounds]).any() else counts
        found.append(_process((cpu if preempted else wall)[counts], rounds[counts], is_cpu_time=preempted))
    return Kept(tuple(found), 1.0 - float(clean.mean()), float(slow.mean()))


def _slowed(mhz: Sequence[int], rounds: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(R,) whether a round ran below the usual frequency; where it was not read, it did not."""
    known = np.array(mhz if len(mhz) == rounds else [0] * rounds, dtype=np.float64)
    usual = float(np.median(known[known > 0])) if (known > 0).any() else 0.0
    return (known > 0) & (known < SLOWED * usual)


def _process(values: Floats, rounds: Ints, *, is_cpu_time: bool) -> Process:
    places, compact = np.unique(rounds, return_inverse=True)
    order = np.lexsort((values, compact))
    ordered, sizes = values[order], np.bincount(compact)
    starts = np.cumsum(sizes) - sizes
    medians = (ordered[starts + (sizes - 1) // 2] + ordered[starts + sizes // 2]) / 2
    return Process(values, compact, medians, places, is_cpu_time)
