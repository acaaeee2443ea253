"""Landmark KD-Loss: a tough and a tolerant teacher guide coordinates (Fard, Mahoor: Facial landmark points detection using knowledge
distillation-based neural networks, CVIU 215, 2022), and the shape model that makes the tolerant teacher's labels."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import InvalidConfig, InvalidData, InvalidLogits

__all__ = ["LandmarkKD", "Preset", "asm_soft_landmarks", "landmark_kd_loss"]

Preset = Literal["figure", "release"]
Shapes = NDArray[np.floating[Any]]  # (N, P, 2)
Points = NDArray[np.floating[Any] | np.integer[Any]]  # the same, which may be pixels
BEND = 0.5  # of the figures' main loss: linear up to here, quadratic beyond


@dataclass(frozen=True, kw_only=True, slots=True)
class _Constants:
    """``assist`` and ``resist``: weights (tough, tolerant) farther from the truth than the teacher, and nearer. ``quiet``: the
    share of the teacher's own error below which the push fades out (``fades``) or is absent. ``weights``: main, tough, tolerant."""

    assist: tuple[float, float]
    resist: tuple[float, float]
    quiet: float
    fades: bool
    weights: tuple[float, float, float]


_PRESETS: dict[Preset, _Constants] = {
    "figure": _Constants(assist=(0.9, 0.9), resist=(-0.45, -0.45), quiet=0.4, fades=True, weights=(2.5, 1.0, 1.0)),
    "release": _Constants(assist=(1.9, 1.8), resist=(-0.45, -0.40), quiet=0.15, fades=False, weights=(2.0, 1.0, 1.0)),
}


def landmark_kd_loss(predicted: Tensor, truth: Tensor, tough: Tensor, tolerant: Tensor, *, preset: Preset = "figure") -> Tensor:
    """Main loss plus both teachers' assistance, mean over batch, points and coordinates, for landmarks (N, P, 2); the truth is inside.

    Each teacher's point is mirrored to the student's side of the truth; with e and d the student's and the teacher's distance
    from it, the assistance is ω·|e - d|: ω is positive for e ≥ d (come closer), negative below (leave the teacher, for the
    truth), and dies out near the truth. ``preset``: "figure" is the form of the paper's figures, "release" the published code's
    (other constants, no ramp, a main loss linear within the tolerant teacher's own error). No gradient reaches truth or teachers.

    Both forms depend on the scale of the coordinates: they are made for a range of about 1 (pixels over image size).
    """
    if preset not in _PRESETS:
        raise InvalidConfig(f"preset must be {' or '.join(_PRESETS)}, got {preset!r}")
    if not predicted.shape == truth.shape == tough.shape == tolerant.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (predicted, truth, tough, tolerant))
        raise InvalidLogits(f"predicted, true, tough and tolerant landmarks must have one shape (N, P, 2), got {shapes}")
    constants, truth = _PRESETS[preset], truth.detach()
    error = (predicted - truth).abs()
    distances = [(teacher.detach() - truth).abs() for teacher in (tough, tolerant)]
    main = _bent(error) if preset == "figure" else _within_tolerance(error, distances[1])
    parts = [main, *(_assistance(error, d, constants, i) for i, d in enumerate(distances))]
    return torch.stack([w * part.mean() for w, part in zip(constants.weights, parts, strict=True)]).sum()


def _assistance(error: Tensor, distance: Tensor, constants: _Constants, teacher: int) -> Tensor:
    """ω·|e - d| of each coordinate for one teacher (0: tough, 1: tolerant)."""
    quiet = constants.quiet * distance
    assist, resist = (torch.full_like(error, w[teacher]) for w in (constants.assist, constants.resist))
    if constants.fades:
        ramp = resist * error / torch.where(quiet > 0, quiet, torch.ones_like(quiet))
        weight = torch.where(error >= distance, assist, torch.where(error >= quiet, resist, ramp))
    else:
        weight = torch.where(error > distance, assist, torch.where(error >= quiet, resist, torch.zeros_like(error)))
    return weight * (error - distance).abs()


def _bent(error: Tensor) -> Tensor:
    """|Δ| up to ``BEND``, Δ² + h - h² beyond, which meets it in value."""
    return torch.where(error <= BEND, error, error**2 + BEND - BEND**2)


def _within_tolerance(error: Tensor, tolerance: Tensor) -> Tensor:
    """3e within the tolerant teacher's own error, e² beyond, joined in value (its slope drops there, as in the release)."""
    return torch.where(error <= tolerance, 3 * error, error**2 + 3 * tolerance - tolerance**2)


def asm_soft_landmarks(train_shapes: Points, shapes: Points, *, variance: float = 0.95, clamp: float = 3.0) -> Shapes:
    """``shapes`` (N, P, 2) as an active shape model of ``train_shapes`` (M, P, 2) sees them: smoothed labels for the tolerant teacher.

    Principal components of the training shapes in the coordinates they come in (no alignment): the fewest that hold a share
    ``variance`` of their variance; each coefficient is held within ``clamp`` standard deviations. The authors' last runs use 0.95.
    The type of the result is that of ``shapes``, float64 where those are integers (pixels).

    Raises:
        InvalidData: fewer than two training shapes, shapes of different points, or coordinates that are not finite.
        InvalidConfig: ``variance`` is not in (0, 1], or ``clamp`` not above 0 and finite.
    """
    if not 0 < variance <= 1 or not 0 < clamp < float("inf"):
        raise InvalidConfig(f"variance must be above 0 and at most 1, and clamp above 0 and finite, got {variance} and {clamp}")
    if len(train_shapes) < 2 or train_shapes.ndim != 3 or train_shapes.shape[1:] != shapes.shape[1:]:
        raise InvalidData(f"a shape model needs two shapes (M, P, 2) or more of the same points, got {train_shapes.shape}, {shapes.shape}")
    for name, given in (("training shapes", train_shapes), ("shapes", shapes)):
        if not np.isfinite(given).all():
            raise InvalidData(f"coordinates must be finite, and {np.sum(~np.isfinite(given))} of the {name} are not")
    rows = train_shapes.reshape(len(train_shapes), -1).astype(np.float64)
    mean = rows.mean(0)
    _, singular, components = np.linalg.svd(rows - mean, full_matrices=False)
    variances = singular**2 / (len(rows) - 1)
    shares = np.cumsum(variances) / max(variances.sum(), np.finfo(np.float64).tiny)
    kept = min(int(np.searchsorted(shares, variance - 1e-12)) + 1, len(shares))
    basis, bound = components[:kept], clamp * np.sqrt(variances[:kept])
    coefficients = np.clip((shapes.reshape(len(shapes), mean.size) - mean) @ basis.T, -bound, bound)
    dtype = shapes.dtype if np.issubdtype(shapes.dtype, np.floating) else np.dtype(np.float64)
    soft: Shapes = (mean + coefficients @ basis).reshape(shapes.shape).astype(dtype)
    return soft


class LandmarkKD(nn.Module):
    """``landmark_kd_loss`` as a module."""

    def __init__(self, *, preset: Preset = "figure") -> None:
        super().__init__()
        self.preset: Preset = preset

    def forward(self, predicted: Tensor, truth: Tensor, tough: Tensor, tolerant: Tensor) -> Tensor:
        """Landmarks (N, P, 2) of the student, the truth and both teachers -> a scalar."""
        return landmark_kd_loss(predicted, truth, tough, tolerant, preset=self.preset)
