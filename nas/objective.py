"""What a search maximises: a Pareto pair, MnasNet's reward, or TuNAS's absolute reward.

Sources: Tan et al., "MnasNet", CVPR 2019, eq. 2 and 3; Bender et al., "Can weight sharing outperform random
architecture search? (TuNAS)", CVPR 2020, the absolute reward.
"""

from typing import Literal

from nas.config import RunConfig

__all__ = ["WORST_SCORE", "directions", "excess", "reward", "values"]

WORST_SCORE = 0.0
"""Told to the sampler for a candidate rejected by ``--max-ms``: no accuracy is lower."""


def directions(config: RunConfig) -> list[Literal["maximize", "minimize"]]:
    """Optuna's directions: (score up, latency down) for ``pareto``, else one reward up."""
    return ["maximize", "minimize"] if config.reward == "pareto" else ["maximize"]


def values(config: RunConfig, score: float, latency_ms: float) -> list[float]:
    """The objective values, in the order of ``directions``."""
    return [score, latency_ms] if config.reward == "pareto" else [reward(config, score, latency_ms)]


def reward(config: RunConfig, score: float, latency_ms: float) -> float:
    """The scalar reward of a score (fraction, higher is better) at a latency, with T = ``target_ms``.

    - ``soft``: score·(LAT/T)^w (MnasNet eq. 2, α = β = w = -0.07);
    - ``hard``: score where LAT ≤ T, else score·(LAT/T)^-1 (eq. 3 with α = 0, β = -1);
    - ``abs``: score + w·|LAT/T - 1| (TuNAS; also punishes what is faster than T).
    """
    assert config.target_ms is not None, "RunConfig demands target_ms for scalar rewards"
    ratio = latency_ms / config.target_ms
    if config.reward == "hard":
        return score / max(ratio, 1.0)
    if config.reward == "abs":
        return score + config.exponent * abs(ratio - 1.0)
    return float(score * ratio**config.exponent)


def excess(config: RunConfig, latency_ms: float) -> float:
    """How far a latency is over ``max_ms``, relative to it: positive is infeasible; without a limit always -1."""
    return latency_ms / config.max_ms - 1.0 if config.max_ms is not None else -1.0
