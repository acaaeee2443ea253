"""How well one figure ranks networks by another: Kendall's tau-b and Spearman's rho, with bootstrap intervals over networks."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from nas.errors import NasError

__all__ = ["FEWEST", "RESAMPLES", "Agreement", "Interval", "agreement", "spearman", "tau_b"]

RESAMPLES = 2000
FEWEST = 3  # networks: two are ranked alike or not

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A correlation and its 95 % interval."""

    value: float
    low: float
    high: float


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Rank correlations of two figures over ``networks`` networks; nan where one of the figures is the same for all."""

    networks: int
    tau: Interval
    rho: Interval


def tau_b(a: Floats, b: Floats) -> float:
    """Kendall's tau-b of two rows (N,): concordant minus discordant pairs, over the geometric mean of the pairs not tied in each.

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 1945.

    >>> round(tau_b(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])), 3)
    0.667
    """
    x, y = (np.sign(v[:, None] - v[None, :]) for v in (a, b))
    untied = float(np.sum(x * x)) * float(np.sum(y * y))
    return float(np.sum(x * y)) / untied**0.5 if untied else float("nan")


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rho of two rows (N,): the correlation of their ranks, tied values sharing the mean of theirs."""
    x, y = (_centred_ranks(v) for v in (a, b))
    scale = float(x @ x) * float(y @ y)
    return float(x @ y) / scale**0.5 if scale else float("nan")


def _centred_ranks(values: Floats) -> Floats:
    ranks: Floats = np.sum(np.sign(values[:, None] - values[None, :]), axis=1) / 2
    return ranks


def agreement(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Agreement:
    """How alike two figures rank the same networks; the interval is of networks drawn with replacement, ``RESAMPLES`` times.

    Equal seeds draw equal networks, so that several figures of the same networks are compared on the same draws.

    Raises:
        NasError: too few networks.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(x) < FEWEST:
        raise NasError(f"a ranking needs at least {FEWEST} networks, got {len(x)}")
    draws = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES, len(x)))
    return Agreement(networks=len(x), tau=_interval(tau_b, x, y, draws), rho=_interval(spearman, x, y, draws))


def _interval(measure: Callable[[Floats, Floats], float], x: Floats, y: Floats, draws: "np.ndarray[Any, np.dtype[np.int64]]") -> Interval:
    resampled = np.array([measure(x[draw], y[draw]) for draw in draws])
    known = resampled[np.isfinite(resampled)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (np.nan, np.nan)
    return Interval(value=measure(x, y), low=float(low), high=float(high))
