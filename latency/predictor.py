"""A model of how long pieces take, for those that no table holds; its error is measured on widths and map sizes that it never saw."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from latency.piece_work import piece_work
from search_spaces.architecture import Head, Piece

__all__ = ["Predictor", "PredictorError", "fit_predictor"]

OPS, ACTS, SKIPS = ("conv", "sepconv", "mbconv"), ("relu", "relu6", "hswish", "swish", "none"), ("none", "identity", "pool")
FOLDS = 5
FEWEST = 10  # groups of pieces, below which an error cannot be told
COVERED = 0.9

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class PredictorError(msgspec.Struct, frozen=True, kw_only=True):
    """Errors on pieces by cross-validation: pieces of equal channels and map are all fitted to or all held out.

    ``mape``: mean absolute error relative to the measurement; ``ratio_90``: the factor that nine in ten pieces lie within.
    """

    pieces: int
    mape: float
    ratio_90: float


class Predictor:
    """Latencies of pieces from their numbers: support vector regression of log milliseconds (scikit-learn)."""

    def __init__(self, model: Any, error: PredictorError) -> None:  # Any: scikit-learn has no types
        self._model, self.error = model, error

    def predict_ms(self, pieces: Sequence[Piece]) -> list[float]:
        """The latency of each piece by itself, as a table has it."""
        if not pieces:
            return []
        found: list[float] = np.exp(self._model.predict(_features(pieces))).tolist()
        return found


def fit_predictor(known_ms: Mapping[Piece, float]) -> Predictor:
    """The predictor that measured pieces give, the same at every call; of too few kinds of pieces its error is infinite."""
    pieces = list(known_ms)
    x, log_ms = _features(pieces), np.log(np.array([known_ms[p] for p in pieces]))
    return Predictor(_model().fit(x, log_ms), _error(x, log_ms, [_group(p) for p in pieces]))


def _model() -> Any:  # Any: see Predictor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    return make_pipeline(StandardScaler(), SVR(C=10.0, epsilon=0.01, gamma=0.01))


def _error(x: Array, log_ms: Array, groups: Sequence[str]) -> PredictorError:
    from sklearn.model_selection import GroupKFold

    if len(set(groups)) < FEWEST:
        return PredictorError(pieces=len(log_ms), mape=math.inf, ratio_90=math.inf)
    guessed = np.empty(len(log_ms))
    for fit, held_out in GroupKFold(FOLDS).split(x, log_ms, groups):
        guessed[held_out] = _model().fit(x[fit], log_ms[fit]).predict(x[held_out])
    errors = guessed - log_ms
    return PredictorError(
        pieces=len(log_ms), mape=float(np.mean(np.abs(np.expm1(errors)))), ratio_90=float(np.exp(np.quantile(np.abs(errors), COVERED)))
    )


def _group(piece: Piece) -> str:
    """What near twins share: they differ in kernel, expansion, SE, skip or activation alone."""
    return f"{piece.in_chw} {piece.out_chw}"


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
