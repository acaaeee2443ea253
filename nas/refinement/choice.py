"""Which proposal of a step is the best, and how well its accuracy is known."""

from nas.refinement.record import Tried
from nas.refinement.settings import Choice

__all__ = ["merit", "standard_error"]


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
