"""A model of how long pieces take, for those that no table holds; its error is measured on widths and map sizes that it never saw."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from latency.piece_work import piece_work
from search_spaces.architecture import Head, Piece

__all__ = ["Guess", "Predictor", "PredictorError", "fit_predictor"]

OPS, ACTS, SKIPS = ("conv", "sepconv", "mbconv"), ("relu", "relu6", "hswish", "swish", "none"), ("none", "identity", "pool")
FOLDS = 5
FEWEST = 10  # groups of pieces, below which an error cannot be told
COVERED = 0.9
FURTHEST = 10.0

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class PredictorError(msgspec.Struct, frozen=True, kw_only=True):
    """Errors on pieces by cross-validation: pieces of equal channels and map are all fitted to or all held out.

    ``mape``: mean absolute error relative to the measurement; ``ratio_90``: the factor that nine in ten pieces lie within.
    ``distance`` is how far those were from the nearest piece that was fitted to, nine in ten of them.
    """

    pieces: int
    mape: float
    ratio_90: float
    distance: float


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """What a piece takes by itself, by prediction: a measurement lies within a factor ``ratio_90`` of it in about 90 % of cases."""

    ms: float
    ratio_90: float


class Predictor:
    """Latencies of pieces from their numbers: a sum of work, each kind at its price, times what pieces like it take beyond that.

    The prices are not negative, so that a piece far from all that were measured has a sane figure; the rest is support vector
    regression (scikit-learn). Far away the interval widens: at n times the ``distance`` of the stated error it is the n-th power, up
    to the tenth.
    """

    def __init__(self, known: Sequence[Piece], model: "_Model", error: PredictorError) -> None:
        self._model, self.error = model, error
        self._seen = _seen(known)

    def covers(self, piece: Piece) -> bool:
        """Whether pieces of its kind were measured: its op with its stride, activation, skip and the like, its kernel between others."""
        seen = self._seen.get(_op(piece), {})
        kernels = seen.get("kernel", set())
        rest = {name: value for name, value in _kind(piece).items() if name != "kernel"}
        if not kernels or any(value not in seen[name] for name, value in rest.items()):
            return False
        return bool(min(kernels) <= _kind(piece)["kernel"] <= max(kernels))

    def guess(self, pieces: Sequence[Piece]) -> list[Guess]:
        """A prediction for each piece that it ``covers``."""
        if not pieces:
            return []
        features = _features(pieces)
        ms, far = self._model.predict_ms(features, _work(pieces)), self._model.distances(features) / self.error.distance
        ratios = self.error.ratio_90 ** np.clip(far, 1.0, FURTHEST)
        return [Guess(ms=float(m), ratio_90=float(r)) for m, r in zip(ms, ratios, strict=True)]


def fit_predictor(known_ms: Mapping[Piece, float]) -> Predictor | None:
    """The predictor that measured pieces give, the same at every call; None: they are of too few widths and map sizes to tell its error."""
    pieces, groups = list(known_ms), [_group(p) for p in known_ms]
    if len(set(groups)) < FEWEST:
        return None
    x, work, ms = _features(pieces), _work(pieces), np.array([known_ms[p] for p in pieces])
    return Predictor(pieces, _Model(x, work, ms), _error(x, work, ms, groups))


class _Model:
    """One fit: ``x`` (N, F) features, ``work`` (N, W) amounts of work, ``ms`` (N,) latencies."""

    def __init__(self, x: Array, work: Array, ms: Array) -> None:
        from scipy.optimize import nnls
        from sklearn.neighbors import NearestNeighbors
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVR

        self._prices, _ = nnls(work / ms[:, None], np.ones(len(ms)))
        self._least = float(ms.min()) / 10  # a piece that does none of what has a price
        self._scaler = StandardScaler().fit(x)
        scaled = self._scaler.transform(x)
        self._rest = SVR(C=10.0, epsilon=0.01, gamma=0.01).fit(scaled, np.log(ms / self._priced(work)))
        self._nearest = NearestNeighbors(n_neighbors=1).fit(scaled)

    def predict_ms(self, x: Array, work: Array) -> Array:
        found: Array = self._priced(work) * np.exp(self._rest.predict(self._scaler.transform(x)))
        return found

    def distances(self, x: Array) -> Array:
        """To the nearest piece fitted to, in standard deviations of the features."""
        found: Array = self._nearest.kneighbors(self._scaler.transform(x))[0][:, 0]
        return found

    def _priced(self, work: Array) -> Array:
        found: Array = np.maximum(self._least, work @ self._prices)
        return found


def _error(x: Array, work: Array, ms: Array, groups: Sequence[str]) -> PredictorError:
    from sklearn.model_selection import GroupKFold

    guessed, far = np.empty(len(ms)), np.empty(len(ms))
    for fit, held_out in GroupKFold(FOLDS).split(x, ms, groups):
        model = _Model(x[fit], work[fit], ms[fit])
        guessed[held_out], far[held_out] = model.predict_ms(x[held_out], work[held_out]), model.distances(x[held_out])
    errors = np.log(guessed / ms)
    return PredictorError(
        pieces=len(ms), mape=float(np.mean(np.abs(np.expm1(errors)))), ratio_90=float(np.exp(np.quantile(np.abs(errors), COVERED))),
        distance=max(1e-9, float(np.quantile(far, COVERED))),
    )  # fmt: skip


def _group(piece: Piece) -> str:
    """What near twins share: they differ in kernel, expansion, SE, skip or activation alone."""
    return f"{piece.in_chw} {piece.out_chw}"


def _op(piece: Piece) -> str:
    return "head" if isinstance(piece.layer, Head) else piece.layer.op


def _kind(piece: Piece) -> dict[str, Any]:  # Any: numbers and words
    """What no number between two others can stand for, and the kernel."""
    b = piece.layer
    if isinstance(b, Head):
        return {"dims": piece.dims, "kernel": 1, "head": b.kind, "is_deep": b.width_ch > 0, "act": b.act}
    return {
        "dims": piece.dims, "kernel": b.kernel, "stride": b.stride, "dilation": b.dilation, "act": b.act, "skip": b.skip,
        "is_gated": b.se_ch > 0, "gate": b.se_gate,
    }  # fmt: skip


def _seen(known: Sequence[Piece]) -> dict[str, dict[str, set[Any]]]:  # Any: see _kind
    found: dict[str, dict[str, set[Any]]] = {}
    for piece in known:
        of_op = found.setdefault(_op(piece), {})
        for name, value in _kind(piece).items():
            of_op.setdefault(name, set()).add(value)
    return found


def _work(pieces: Sequence[Piece]) -> Array:
    """(N, 7) amounts that take time in proportion: the call itself, then in millions."""
    rows = []
    for w in map(piece_work, pieces):
        amounts = (w.macs - w.depthwise_macs, w.depthwise_macs, w.weights, w.in_elements, w.out_elements, w.written_elements)
        rows.append([1.0, *(amount / 1e6 for amount in amounts)])
    return np.array(rows, dtype=np.float64)


def _features(pieces: Sequence[Piece]) -> Array:
    return np.array([_feature(p) for p in pieces], dtype=np.float64)


def _feature(piece: Piece) -> list[float]:
    """Sizes on a log scale, then what the layer is; a head has none of the latter."""
    work, layer = piece_work(piece), piece.layer
    sizes = [
        work.macs - work.depthwise_macs, work.depthwise_macs, work.weights, work.in_elements, work.out_elements, work.written_elements,
        piece.in_chw[0], piece.out_chw[0], piece.in_chw[1] * piece.in_chw[2],
    ]  # fmt: skip
    if isinstance(layer, Head):
        return [*(math.log1p(s) for s in (*sizes, layer.width_ch, 0)), *[0.0] * (len(OPS) + len(ACTS) + len(SKIPS) + 6), 1.0]
    kinds = [*(layer.op == op for op in OPS), *(layer.act == act for act in ACTS), *(layer.skip == skip for skip in SKIPS)]
    resized = layer.skip == "pool" and layer.in_ch != layer.out_ch
    shape = [layer.kernel, layer.stride, layer.se_ch > 0, resized, layer.in_ch % 16 == 0, layer.out_ch % 16 == 0]
    return [*(math.log1p(s) for s in (*sizes, layer.hidden_ch, layer.se_ch)), *map(float, kinds), *map(float, shape), 0.0]
