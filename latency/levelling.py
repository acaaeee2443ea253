"""Items that were timed in batches, several times each, freed of what made a whole batch fast or slow.

One process of a device is one sample: its anchors come out fast or slow by a few per cent, and with them the ratio to the anchors of
everything in its batch. Items meet others in each of their goes, so that the batches' shares can be told from the items' own.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

__all__ = ["levelled"]

SHRINKAGE = 1.0  # variance of one timing over that of a batch's share: a batch of n items keeps n / (n + 1) of what it shows
FAR = 4.0  # standard deviations, as the median residual tells them, beyond which a timing counts less
STEPS = 10

_Item = TypeVar("_Item", bound=Hashable)
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Places = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def levelled(timings: Mapping[_Item, Sequence[tuple[Hashable, float]]]) -> dict[_Item, float]:
    """What each item took, from its (batch, value) pairs; values above 0, in any unit, which is that of the results.

    In logarithms a value is the item's own figure plus its batch's share plus noise. The shares are random effects with mean 0
    (Henderson, "Best linear unbiased estimation and prediction under a selection model", Biometrics 31, 1975); a timing far from
    the others of its item has the weight of Huber's estimator (Annals of Mathematical Statistics 35, 1964). With one go an item's
    figure is its value as it is.
    """
    flat = [(item, batch, math.log(value)) for item, pairs in timings.items() for batch, value in pairs]
    if not flat:
        return {}
    items, own = _numbered([item for item, _, _ in flat])
    batches, shared = _numbered([batch for _, batch, _ in flat])
    logs = np.array([log for _, _, log in flat])
    weights: Array = np.ones(len(logs))
    figures: Array = np.zeros(len(items))
    for _ in range(STEPS):
        figures, shares = _solved(own, shared, logs, weights, (len(items), len(batches)))
        away = np.abs(logs - figures[own] - shares[shared])
        limit = max(FAR * 1.4826 * float(np.median(away)), 1e-9)
        weights = limit / np.maximum(away, limit)
    return dict(zip(items, np.exp(figures).tolist(), strict=True))


def _solved(own: Places, shared: Places, logs: Array, weights: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """The items' figures and the batches' shares: the mixed model's equations with the items eliminated, one a batch."""
    from scipy import sparse

    met = sparse.csr_array((weights, (own, shared)), shape=shape)
    goes, seen = np.bincount(own, weights, minlength=shape[0]), np.bincount(shared, weights, minlength=shape[1])
    sums = np.bincount(own, weights * logs, minlength=shape[0])
    shown = np.bincount(shared, weights * logs, minlength=shape[1])
    left = np.diag(seen + SHRINKAGE) - (met.T @ sparse.diags_array(1 / goes) @ met).toarray()
    shares: Array = np.linalg.solve(left, shown - met.T @ (sums / goes))
    return (sums - met @ shares) / goes, shares


def _numbered(keys: Sequence[_Item]) -> tuple[list[_Item], Places]:
    """The different keys, and for each key its place among them."""
    places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return list(places), np.array([places[key] for key in keys], dtype=np.int64)
