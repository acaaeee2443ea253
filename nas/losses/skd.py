"""SKD: soft and hard targets in one loss, for signal students (Hou et al., IEEE TWC 23(7), 2024: ClST and signal knowledge distillation).

A reconstruction: the abstract alone says "soft targets" and "hybrid loss"; weight and temperature are unknown, so they have no default.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from nas.losses.kd import kd_loss
from nas.losses.rows import require_share

__all__ = ["SKD", "skd_loss"]


def skd_loss(student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, alpha: float, temperature: float) -> Tensor:
    """(1 - α) · cross-entropy + α · ``kd_loss``: the task's cross-entropy is inside, unlike in the other losses, and not smoothed;
    ``nas.distill`` takes the task's own, smoothed loss in its place.

    ``target``: class indices (N,) or soft rows (N, C). α = 0 is plain cross-entropy, α = 1 plain KD; the source's α and τ are not
    known (a reconstruction): tune them on validation, τ among 1, 2, 4 and α in 0.5 to 0.9.
    """
    require_share(alpha=alpha)
    hard = F.cross_entropy(student_logits, target if target.ndim == 1 else target.to(student_logits.dtype))
    return (1 - alpha) * hard + alpha * kd_loss(student_logits, teacher_logits, temperature=temperature)


class SKD(nn.Module):
    """``skd_loss`` as a module."""

    def __init__(self, *, alpha: float, temperature: float) -> None:
        super().__init__()
        self.alpha, self.temperature = alpha, temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C) of both and the target -> a scalar."""
        return skd_loss(student_logits, teacher_logits, target, alpha=self.alpha, temperature=self.temperature)
