"""Which of two models is faster: their rounds in pairs, so that what slows the whole device down cancels."""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from latency.console import three_digits
from latency.measurement import Measurement
from latency.preemption import undisturbed

__all__ = ["Comparison", "compare"]

RESAMPLES = 2000

Clock = Literal["wall", "cpu"]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``ratio`` is latency of b over latency of a: above 1 where a is faster; ``low`` to ``high`` is its 95 % interval.

    ``clock`` is "cpu" where other work on the device left too few undisturbed pairs of rounds to go by wall time.
    """

    a: str
    b: str
    ratio: float
    low: float
    high: float
    rounds: int
    sessions: int
    clock: Clock

    @property
    def text(self) -> str:
        """The outcome in a sentence, the faster model first."""
        pairs = f"{self.rounds} pairs of rounds in {self.sessions} session{'s' * (self.sessions != 1)}"
        by = "" if self.clock == "wall" else ", by CPU time: other work kept interrupting"
        if self.low <= 1 <= self.high:
            return f"no difference beyond the noise: {self.a} is {_times(self, self.a)} as fast as {self.b}; {pairs}{by}"
        first, second = (self.a, self.b) if self.ratio > 1 else (self.b, self.a)
        return f"{first} is {_times(self, first)} as fast as {second}; {pairs}{by}"


def compare(a: str, b: str, first: Sequence[Measurement], second: Sequence[Measurement]) -> Comparison:
    """Two models named ``a`` and ``b`` that were timed side by side, once or in several sessions: one measurement each a session.

    The ratio is the median over sessions of the median over rounds of median latency against median latency. Its interval is a
    bootstrap over sessions and, in them, over rounds: sessions differ by more than rounds do, as memory is laid out anew.
    """
    clock: Clock = "wall" if all(_enough_pairs(x, y) for x, y in zip(first, second, strict=True)) else "cpu"
    ratios = [_ratios(x, y, clock) for x, y in zip(first, second, strict=True)]
    low, high = _interval(ratios)
    return Comparison(
        a=a, b=b, ratio=_center(ratios), low=low, high=high, rounds=sum(map(len, ratios)), sessions=len(ratios), clock=clock,
    )  # fmt: skip


def _ratios(a: Measurement, b: Measurement, clock: Clock) -> Floats:
    """Latency of b over latency of a in the rounds that both have, (R,): what one ran after the other was done has no pair."""
    rounds = min(len(a.samples_ns), len(b.samples_ns))
    paired = _medians(b, clock)[:rounds] / _medians(a, clock)[:rounds]
    return paired[np.isfinite(paired)]


def _medians(m: Measurement, clock: Clock) -> Floats:
    """Median of each round, by wall time without preempted runs (NaN where all were); by CPU time, of all runs."""
    if clock == "cpu" and m.cpu_ns:
        return np.array([np.median(r) for r in m.cpu_ns])
    if clock == "cpu" or not m.cpu_ns:
        return np.array([np.median(r) for r in m.samples_ns])
    return np.array([_clean_median(r, c) for r, c in zip(m.samples_ns, m.cpu_ns, strict=True)])


def _clean_median(wall_ns: tuple[int, ...], cpu_ns: tuple[int, ...]) -> float:
    wall = np.array(wall_ns, dtype=np.float64)
    clean = undisturbed(wall, np.array(cpu_ns, dtype=np.float64))
    return float(np.median(wall[clean])) if clean.any() else float("nan")


def _enough_pairs(a: Measurement, b: Measurement) -> bool:
    """Whether at least half of the rounds that both have hold undisturbed runs of both."""
    return 2 * len(_ratios(a, b, "wall")) >= min(len(a.samples_ns), len(b.samples_ns))


def _center(ratios: Sequence[Floats]) -> float:
    return float(np.median([np.median(r) for r in ratios]))


def _interval(ratios: Sequence[Floats]) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the centre over ``RESAMPLES`` draws of sessions, and of rounds in them, with replacement."""
    rng, sessions = np.random.default_rng(0), len(ratios)
    drawn = rng.integers(0, sessions, (RESAMPLES, sessions))
    medians = np.empty((RESAMPLES, sessions))
    for i, session in enumerate(ratios):
        for slot in range(sessions):
            mine = drawn[:, slot] == i
            picks = rng.integers(0, len(session), (int(mine.sum()), len(session)))
            medians[mine, slot] = np.median(session[picks], axis=1)
    low, high = np.percentile(np.median(medians, axis=1), (2.5, 97.5))
    return float(low), float(high)


def _times(found: Comparison, first: str) -> str:
    """How many times as fast ``first`` is, with its interval: ``1.23× (1.21–1.25)``."""
    values = (found.ratio, found.low, found.high) if first == found.a else (1 / found.ratio, 1 / found.high, 1 / found.low)
    decimals = 2 if values[2] - values[1] >= 0.02 else 3
    ratio, low, high = (f"{v:.{decimals}f}" if v < 10 else three_digits(v) for v in values)
    return f"{ratio}× ({low}–{high})"
