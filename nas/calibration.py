"""Whether a network's confidence can be believed: expected calibration error, negative log-likelihood, Brier score, reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from latency.figures import save_figure

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BINS", "Bin", "Calibration", "calibrate", "draw_reliability", "fitted_temperature"]

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0  # temperatures that are looked at


class Bin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """Images whose confidence falls into one fifteenth of 0..1: how many, their mean confidence, the share that is right."""

    images: int
    confidence: float
    accuracy: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Figures of one network on one split.

    ``ece``: expected calibration error, a fraction of 0..1: Σ (share of images in the bin)·|accuracy - confidence| over 15 equal bins of
    the largest probability ("On Calibration of Modern Neural Networks", equation 3). ``nll``: mean negative log-likelihood in
    nats. ``brier``: mean over images of Σ over classes (probability - truth)², 0..2. ``temperature``: the one that fits the
    logits best, found on the validation split; ``ece_scaled``: the error with logits divided by it. ``bins``: 15, the lowest
    confidence first, empty ones as zeros; left out of rows of the search.
    """

    ece: float
    nll: float
    brier: float
    temperature: float | None = None
    ece_scaled: float | None = None
    bins: tuple[Bin, ...] = ()


def calibrate(logits: Tensor, y: Tensor, *, temperature: float | None = None) -> Calibration:
    """The figures for logits (N, K) against labels (N,); ``temperature``, fitted elsewhere, adds the error after scaling by it."""
    import torch
    from torch.nn import functional as F

    log_p = F.log_softmax(logits.double(), 1)
    bins = _bins(log_p.exp(), y)
    truth = F.one_hot(y, logits.shape[1])
    scaled = None if temperature is None else _ece(_bins(torch.softmax(logits.double() / temperature, 1), y))
    return Calibration(
        ece=_ece(bins), nll=float(F.nll_loss(log_p, y)), brier=float(((log_p.exp() - truth) ** 2).sum(1).mean()),
        temperature=temperature, ece_scaled=scaled, bins=bins,
    )  # fmt: skip


def fitted_temperature(logits: Tensor, y: Tensor) -> float:
    """The temperature of the least negative log-likelihood of logits (N, K) / temperature, 0.05 to 20.

    In 1 / temperature the likelihood is convex, so a golden-section search finds it. Fit on validation, never on test.
    """
    from torch.nn import functional as F

    exact = logits.double()

    def nll(log_inverse: float) -> float:
        return float(F.cross_entropy(exact * math.exp(log_inverse), y))

    low, high, golden = math.log(1 / HOTTEST), math.log(1 / COLDEST), (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if nll(left) <= nll(right):
            high = right
        else:
            low = left
    return math.exp(-(low + high) / 2)


def _bins(p: Tensor, y: Tensor) -> tuple[Bin, ...]:
    """The bins of probabilities (N, K); a confidence on an edge belongs to the bin below it, as in (0, 1/15]."""
    import torch

    confidence, named = p.max(1)
    place = (torch.ceil(confidence * BINS).long() - 1).clamp(0, BINS - 1)
    images = torch.bincount(place, minlength=BINS)
    sums = [torch.bincount(place, weights=w, minlength=BINS) for w in (confidence, (named == y).double())]
    means = [(s / images.clamp_min(1)).tolist() for s in sums]
    return tuple(Bin(images=n, confidence=c, accuracy=a) for n, c, a in zip(images.tolist(), *means, strict=True))


def _ece(bins: Sequence[Bin]) -> float:
    total = sum(b.images for b in bins)
    return sum(b.images * abs(b.accuracy - b.confidence) for b in bins) / total


def draw_reliability(figures: Mapping[str, Calibration], path: Path, *, title: str, columns: int = 4) -> None:
    """Draws accuracy over confidence for each named network, a panel each, with the share of images in every bin below, up to
    ``columns`` side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(columns, len(figures))
    lines = -(-len(figures) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(3.1 * columns, 3.3 * lines), dpi=120, squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for axes in grid.flat[len(figures) :]:
        axes.set_visible(False)
    for i, (axes, (name, found)) in enumerate(zip(grid.flat, figures.items(), strict=False)):
        total = sum(b.images for b in found.bins)
        middles = [(k + 0.5) / BINS for k in range(BINS)]
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        axes.bar(middles, [b.images / total for b in found.bins], width=1 / BINS, color="0.85")
        shown = [b for b in found.bins if b.images]
        axes.plot([b.confidence for b in shown], [b.accuracy for b in shown], color="C0", marker="o", markersize=3)
        axes.set_title(f"{name}\nECE {100 * found.ece:.1f} %, NLL {found.nll:.3f}, Brier {found.brier:.3f}", fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.grid(visible=True, alpha=0.25)
        axes.tick_params(labelsize=8, labelbottom=i + columns >= len(figures))  # the last panel of a column may stand above the last line
    figure.supxlabel("confidence: the largest probability", fontsize=9)
    figure.supylabel("accuracy (line), share of images (bars)", fontsize=9)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)
