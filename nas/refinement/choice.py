"""Which proposal of a step is the best, and how well its accuracy is known."""

from collections.abc import Sequence

from nas.refinement.record import Tried
from nas.refinement.settings import Choice

__all__ = ["merit", "ranked", "standard_error"]


def ranked(choose: Choice, rows: Sequence[Tried], reference: float, current_ms: float) -> list[Tried]:
    """All of them, the best first by ``merit``; those that another one beats in both score and estimated latency stand behind the rest.

    Where accuracy rises, the ratio alone would prefer what saves less: +0.2 points for 1 ms to +0.3 points for 3 ms.
    """
    return sorted(rows, key=lambda r: (not _is_beaten(r, rows), *merit(choose, r, reference, current_ms)), reverse=True)


def merit(choose: Choice, row: Tried, reference: float, current_ms: float) -> tuple[float, float, str]:
    """The higher the better: by the rule, then by the latency saved; the id settles what is left.

    ``ratio``: (score - ``reference``) / (ms saved), MobileNetV3's ΔAcc / |ΔLatency|; ``accuracy``: the score (NetAdapt).
    """
    saved_ms = current_ms - row.ms
    score = row.score or 0.0
    return ((score - reference) / saved_ms if choose == "ratio" else score), saved_ms, row.arch.id


def standard_error(score: float, images: int) -> float:
    """The standard error of a fraction of so many images that were right.

    >>> standard_error(0.5, 2500)
    0.01
    """
    return float((score * (1 - score) / images) ** 0.5)


def _is_beaten(row: Tried, rows: Sequence[Tried]) -> bool:
    """Whether another row is as good in score and estimated latency, and better in one of them."""
    score, ms = row.score or 0.0, row.ms
    return any((r.score or 0.0) >= score and r.ms <= ms and ((r.score or 0.0) > score or r.ms < ms) for r in rows)
