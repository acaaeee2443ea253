"""From the sum of a network's pieces to its latency: a few coefficients fitted to whole networks, and how well they do on others.

A piece alone finds as much of its weights in the caches as these hold, and converts its maps at both ends; in a network it does
neither, so the sum is off by 10–20 %, and by how much depends on what the network is made of.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from latency.piece_work import piece_work
from search_spaces.architecture import Block, Piece

__all__ = ["TERMS", "Calibration", "Judged", "estimates_ms", "fit_calibration", "piece_terms", "total_terms"]

TERMS = (
    "constant", "pieces_ms", "fed_elements", "gated_elements", "pooled_elements", "weights_up_to_512_kib", "weights_up_to_4_mib", "pieces",
    "pieces_ms_by_map", "pieces_ms_by_map_squared", "pieces_ms_of_kernel_1",
)  # fmt: skip
CACHES = (2**17, 2**20)  # float32 weights that a small and a large cache of a core hold; the ridge says which of them counts
FREE = 2  # terms that the ridge leaves alone: the constant and the sum
PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 1e6)  # the last leaves a + b · sum
FEWEST = 8  # networks, below which a single factor is all
FURTHEST = 3.0  # a calibration corrects the sum, it does not overrule it: at most to 3 times or a third of it
COVERED = 0.9

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Judged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Estimates beside measurements of ``networks`` networks; errors are relative to the measurement, shares between 0 and 1.

    ``mape``: mean of the absolute errors. ``spearman``: rank correlation, None for fewer than 3 networks.
    """

    networks: int
    mape: float
    bias: float
    worst: float
    within_5: float
    within_10: float
    spearman: float | None

    @classmethod
    def of(cls, estimated_ms: Sequence[float] | Array, measured_ms: Sequence[float] | Array) -> "Judged":
        """The comparison of at least one pair."""
        measured = np.asarray(measured_ms, dtype=np.float64)
        errors = np.asarray(estimated_ms, dtype=np.float64) / measured - 1
        sizes = np.abs(errors)
        return cls(
            networks=len(measured), mape=float(sizes.mean()), bias=float(errors.mean()), worst=float(sizes.max()),
            within_5=float((sizes <= 0.05).mean()), within_10=float((sizes <= 0.1).mean()),
            spearman=_spearman(np.asarray(estimated_ms), measured),
        )  # fmt: skip


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Latency in ms = the sum over ``TERMS`` of coefficient × the network's total, fitted to ``fitted`` networks.

    How good it is was found by holding some of them out of a first fit: the errors and the interval are those of that fit on them.
    A measurement lies within a factor ``ratio_90`` of its estimate in at least 90 % of cases, as the held-out networks have it (split
    conformal prediction); of n < 9 networks it is the largest factor seen, which holds in n of n + 1 cases (``covered``).
    ``sum_alone`` is how the bare sum of the pieces does, ``line`` how ``a + b · sum`` does, for comparison.
    """

    terms: tuple[str, ...] = ()  # of which the coefficients are; () in tables of the first version
    coefficients: tuple[float, ...]
    penalty: float
    fitted: int
    ratio_90: float
    held_out: Judged
    line: Judged
    sum_alone: Judged

    @property
    def covered(self) -> float:
        """The share of measurements that ``ratio_90`` promises."""
        return min(COVERED, self.held_out.networks / (self.held_out.networks + 1))


def piece_terms(piece: Piece, ms: float) -> tuple[float, ...]:
    """What a piece that takes ``ms`` by itself adds to each term but the constant; elements and weights in millions.

    By map: times log2 of the pixels that come in, in tens.
    """
    work, layer = piece_work(piece), piece.layer
    log_pixels = math.log2(math.prod(piece.in_chw[1:])) / 10
    kernel = layer.kernel if isinstance(layer, Block) else 1
    is_gated = isinstance(layer, Block) and layer.se_ch > 0
    is_pooled = isinstance(layer, Block) and layer.skip == "pool"
    out = work.out_elements / 1e6
    cached = (min(work.weights, held) / 1e6 for held in CACHES)
    by_map = (ms * log_pixels, ms * log_pixels**2, ms * (kernel == 1))
    return (ms, work.in_elements / 1e6, out * is_gated, out * is_pooled, *cached, 1.0, *by_map)


def estimates_ms(coefficients: Sequence[float] | Array, totals: Array) -> Array:
    """Latencies (N,) of networks whose terms but the constant sum to ``totals`` (N, 10)."""
    sums = totals[:, 0]
    found: Array = coefficients[0] + totals @ np.asarray(coefficients[1:])
    return np.clip(found, sums / FURTHEST, sums * FURTHEST)


def fit_calibration(fit: tuple[Array, Array], held_out: tuple[Array, Array]) -> Calibration:
    """The calibration fitted to all networks; its errors are those of one fitted to ``fit`` alone on the ``held_out`` ones.

    Each is a pair of totals (N, 10) and measured latencies (N,) in ms. Ridge regression on relative errors; how strongly the terms
    beside ``a + b · sum`` are held back is chosen by leaving out each fitted network in turn. With fewer than 8 networks ``b · sum``
    is all.
    """
    totals, measured_ms = held_out
    is_line = len(fit[1]) < FEWEST
    estimated_ms = estimates_ms(_fit(*fit, _best_penalty(*fit)), totals)
    line = _fit(*fit, PENALTIES[-1])
    every = np.concatenate([fit[0], totals]), np.concatenate([fit[1], measured_ms])
    penalty = PENALTIES[-1] if is_line else _best_penalty(*every)
    coefficients = _factor(*every) if is_line else _fit(*every, penalty)  # what was judged, on more networks
    return Calibration(
        terms=TERMS, coefficients=tuple(coefficients.tolist()), penalty=penalty, fitted=len(every[1]),
        ratio_90=_ratio_90(estimated_ms, measured_ms), held_out=Judged.of(estimated_ms, measured_ms),
        line=Judged.of(estimates_ms(line, totals), measured_ms), sum_alone=Judged.of(totals[:, 0], measured_ms),
    )  # fmt: skip


def total_terms(networks: Iterable[Sequence[tuple[float, ...]]]) -> Array:
    """The terms of networks' pieces, summed: (N, 10)."""
    return np.array([np.sum(terms, axis=0) for terms in networks], dtype=np.float64).reshape(-1, len(TERMS) - 1)


def _fit(totals: Array, measured_ms: Array, penalty: float) -> Array:
    """Coefficients (11,) that make estimate / measurement − 1 small, the terms from ``FREE`` on held back."""
    x = np.column_stack([np.ones(len(totals)), totals])
    if len(x) < FEWEST:
        return _factor(totals, measured_ms)
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), np.abs(x).max(axis=0))
    scale[scale == 0] = 1
    a = x / scale / measured_ms[:, None]
    held_back = np.diag([1e-9] * FREE + [penalty] * (len(TERMS) - FREE)) * np.mean(np.sum(a * a, axis=0))
    found: Array = np.linalg.solve(a.T @ a + held_back, a.sum(axis=0)) / scale
    return found


def _factor(totals: Array, measured_ms: Array) -> Array:
    return np.array([0.0, float(np.median(measured_ms / totals[:, 0])), *[0.0] * (len(TERMS) - FREE)])


def _best_penalty(totals: Array, measured_ms: Array) -> float:
    if len(measured_ms) < FEWEST:
        return PENALTIES[-1]
    return min(reversed(PENALTIES), key=lambda penalty: float(_left_out_errors(totals, measured_ms, penalty).mean()))


def _left_out_errors(totals: Array, measured_ms: Array, penalty: float) -> Array:
    """Absolute relative error (N,) on each network when fitted to all the others."""
    errors = np.empty(len(measured_ms))
    for i in range(len(measured_ms)):
        others = np.arange(len(measured_ms)) != i
        coefficients = _fit(totals[others], measured_ms[others], penalty)
        errors[i] = abs(float(estimates_ms(coefficients, totals[i : i + 1])[0]) / measured_ms[i] - 1)
    return errors


def _ratio_90(estimated_ms: Array, measured_ms: Array) -> float:
    sizes = np.sort(np.abs(np.log(measured_ms / estimated_ms)))
    rank = min(len(sizes), math.ceil((len(sizes) + 1) * COVERED))
    return float(np.exp(sizes[rank - 1]))


def _spearman(a: Array, b: Array) -> float | None:
    from scipy.stats import rankdata

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
