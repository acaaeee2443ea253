"""Intervals of medians by resampling whole rounds, and whole processes above them; exact, seeded, in milliseconds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["RESAMPLES", "interval", "resampled_medians", "two_level"]

RESAMPLES = 2000
FEW = 8  # processes, below which drawing from them tells too little

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def resampled_medians(values: Floats, rounds: Ints, rng: np.random.Generator) -> Floats:
    """``RESAMPLES`` medians, each of the values of R rounds that were drawn with replacement; of an even number the lower middle one.

    Args:
        values: (S,) one for each run.
        rounds: (S,) the round of each value: 0 to R − 1, none left out.
        rng: where the draws come from.
    """
    order = np.argsort(values, kind="stable")
    ordered, of_round, count = values[order], rounds[order], int(rounds.max()) + 1
    drawn = rng.integers(0, count, (RESAMPLES, count)) + count * np.arange(RESAMPLES)[:, None]
    draws = np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(np.float64)
    # The running weight over all values would be RESAMPLES × S: first over cells of √S neighbours, then within the median's cell.
    width = int(len(values) ** 0.5) + 1
    cells = -(-len(values) // width)
    table = np.bincount(of_round * cells + np.arange(len(values)) // width, minlength=count * cells).reshape(count, cells)
    weight = np.cumsum(draws @ table, axis=1)
    cell = np.argmax(weight * 2 >= weight[:, -1:], axis=1)
    rows = np.arange(RESAMPLES)
    before = np.where(cell > 0, weight[rows, cell - 1], 0.0)
    places = cell[:, None] * width + np.arange(width)
    inside = np.minimum(places, len(values) - 1)
    within = np.cumsum(draws[rows[:, None], of_round[inside]] * (places < len(values)), axis=1)
    found = np.argmax((before[:, None] + within) * 2 >= weight[:, -1:], axis=1)
    return np.asarray(ordered[inside[rows, found]], dtype=np.float64)


def two_level(medians: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """``RESAMPLES`` medians over processes drawn with replacement, given the resampled medians of each process.

    Fewer than ``FEW`` processes drawn so never leave the range of what was seen: of three, their range would hold the true median three
    times in four. So in their place come draws from Student's t about the median of the processes, whose standard error is that
    of a mean times √(π/2).
    """
    count = len(medians)
    if count == 1:
        return medians[0]
    if count < FEW:
        own, within = np.array([np.median(m) for m in medians]), float(np.mean([m.std() for m in medians]))
        between = float(own.std(ddof=1))
        draws = between * rng.standard_t(count - 1, RESAMPLES) if between > within else within * rng.standard_normal(RESAMPLES)
        return np.asarray(np.median(own) + draws * math.sqrt((math.pi / 2 if count > 2 else 1) / count))
    shape = RESAMPLES, count
    process, draw = rng.integers(0, count, shape), rng.integers(0, RESAMPLES, shape)
    return np.asarray(np.median(np.stack(medians)[process, draw], axis=1), dtype=np.float64)


def interval(resampled: Floats, center: float) -> tuple[float, float]:
    """2.5th and 97.5th percentile, widened to ``center`` where that lies outside.

    Of an even number of runs a draw takes the lower middle one and a median their mean: it may lie a hair outside.
    """
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(min(low, center)), float(max(high, center))
