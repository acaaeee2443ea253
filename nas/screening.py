"""Which candidates the device need not time: those that a latency table's estimate, at its most hopeful, leaves beaten."""

from collections.abc import Sequence
from typing import Protocol

from nas import objective
from nas.config import RunConfig
from nas.store import Candidate, Latency
from search_spaces.architecture import Architecture

__all__ = ["Estimate", "Estimates", "estimated", "is_clear_of", "near_the_front"]


class Estimate(Protocol):
    """A latency that was not measured, with the 90 % interval of a measurement."""

    @property
    def ms(self) -> float: ...

    @property
    def low_ms(self) -> float: ...

    @property
    def high_ms(self) -> float: ...


class Estimates(Protocol):
    """What gives estimates, such as a ``LatencyTable``."""

    def estimate_many(self, archs: Sequence[Architecture]) -> Sequence[Estimate]:
        """An estimate for each network.

        Raises:
            NasError: there is none for one of them.
        """
        ...

    def missing(self, archs: Sequence[Architecture]) -> Sequence[object]:
        """What it lacks to estimate these networks; empty where it lacks nothing."""
        ...


def is_clear_of(estimate: Estimate, limit_ms: float | None) -> bool:
    """Whether all of the interval is on one side of the limit."""
    return limit_ms is None or estimate.high_ms <= limit_ms or estimate.low_ms > limit_ms


def near_the_front(config: RunConfig, rows: Sequence[Candidate]) -> list[Candidate]:
    """The trained candidates with an estimated latency that may be on the front, or have the best reward, and must be measured.

    Each is taken at the fast end of its interval, and what might beat it at its slow end.
    """
    trained = [r for r in rows if r.status == "trained" and r.score is not None and r.latency is not None]
    ends = [(r.score or 0.0, *_ends(r)) for r in trained]
    rewards = [(_best_reward(config, *e), _worst_reward(config, *e)) for e in ends] if config.reward != "pareto" else []
    most = max((worst for _, worst in rewards), default=0.0)
    return [
        row
        for i, row in enumerate(trained)
        if row.latency_source == "estimate"
        and (not _is_beaten(ends[i], ends[:i] + ends[i + 1 :]) or bool(rewards and rewards[i][0] >= most))
    ]


def _ends(row: Candidate) -> tuple[float, float]:
    """Fastest and slowest latency in ms that the row may have; equal where it was measured."""
    latency = row.latency
    assert latency is not None, "only rows with a latency are looked at"
    return (latency.low_ms, latency.high_ms) if row.latency_source == "estimate" else (latency.p50_ms, latency.p50_ms)


def _is_beaten(mine: tuple[float, float, float], others: Sequence[tuple[float, float, float]]) -> bool:
    score, low_ms, _ = mine
    return any(s >= score and slow_ms <= low_ms for s, _, slow_ms in others)


def _best_reward(config: RunConfig, score: float, low_ms: float, high_ms: float) -> float:
    assert config.target_ms is not None, "RunConfig demands target_ms for scalar rewards"
    best_ms = min(max(config.target_ms, low_ms), high_ms) if config.reward == "abs" else low_ms
    return objective.reward(config, score, best_ms)


def _worst_reward(config: RunConfig, score: float, low_ms: float, high_ms: float) -> float:
    return min(objective.reward(config, score, ms) for ms in (low_ms, high_ms))


def estimated(estimate: Estimate) -> Latency:
    """An estimate as a row keeps it; its interval is of 90 %."""
    return Latency(p50_ms=estimate.ms, low_ms=estimate.low_ms, high_ms=estimate.high_ms)
