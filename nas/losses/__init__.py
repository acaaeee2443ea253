"""LOSSES: what a student learns from beside its labels, by name; each a pure function and a thin module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from nas.losses.bdkd import BDKD, bdkd_loss
from nas.losses.dist import DIST, dist_loss
from nas.losses.dkd import DKD, dkd_loss
from nas.losses.kd import KD, kd_loss
from nas.losses.landmark import LandmarkKD, asm_soft_landmarks, landmark_kd_loss
from nas.losses.nkd import NKD, nkd_loss
from nas.losses.rows import require_share
from nas.losses.skd import SKD, skd_loss
from nas.losses.uskd import USKD, uskd_loss

__all__ = [
    "asm_soft_landmarks", "BDKD", "bdkd_loss", "DIST", "dist_loss", "DKD", "dkd_loss", "KD", "kd_loss", "landmark_kd_loss", "LandmarkKD",
    "LOSSES", "Method", "NKD", "nkd_loss", "SKD", "skd_loss", "USKD", "uskd_loss",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A loss and how its authors use it in training.

    ``needs``: a fixed ``teacher``'s logits; an ``online`` teacher's, which trains beside the student; a ``feature`` map of the
    student and no teacher; teachers' ``landmarks``. The training loss is ``task_weight`` · the task's own + ``weight`` · this
    one, which grows to its weight over the first ``warmup`` of the training (a fraction of it).

    ``soft``: of a loss with the labels' own cross-entropy inside, (1 - alpha) of it, the other part alone, made with its other options.
    In training that is taken alpha times, beside (1 - alpha) times the task's own loss, smoothed as the recipe says: so that a gain
    over training without a teacher is the teacher's.
    """

    module: Callable[..., nn.Module]
    needs: Literal["teacher", "online", "feature", "landmarks"]
    task_weight: float = 1.0
    weight: float = 1.0
    warmup: float = 0.0
    soft: Callable[..., nn.Module] | None = None

    def shares(self, options: Mapping[str, float | str]) -> tuple[float, float]:
        """What the weights of the task's loss and of this one are multiplied with in training."""
        if not self.soft:
            return 1.0, 1.0
        alpha = float(options["alpha"])
        require_share(alpha=alpha)
        return 1 - alpha, alpha

    def term(self, options: Mapping[str, float | str]) -> nn.Module:
        """What is added to the task's loss in training."""
        return self.soft(**{k: v for k, v in options.items() if k != "alpha"}) if self.soft else self.module(**options)


LOSSES: Mapping[str, Method] = {
    "kd": Method(module=KD, needs="teacher", task_weight=0.1, weight=0.9),  # the weights common on CIFAR (with its temperature of 4)
    "dkd": Method(module=DKD, needs="teacher", warmup=20 / 240),
    "dist": Method(module=DIST, needs="teacher", weight=2.0),
    "nkd": Method(module=NKD, needs="teacher"),
    "uskd": Method(module=USKD, needs="feature"),
    "bdkd": Method(module=BDKD, needs="online"),
    "skd": Method(module=SKD, needs="teacher", soft=KD),
    "landmark": Method(module=LandmarkKD, needs="landmarks", task_weight=0.0),
}
