"""NKD: the non-target classes normalised on both sides (Yang et al.: From Knowledge Distillation to Self-Knowledge Distillation: A Unified
Approach with Normalized Loss and Customized Soft Labels, ICCV 2023)."""

from torch import Tensor, nn
from torch.nn import functional as F

from nas.losses.rows import labels_of, others, refuse_negative, refuse_unequal, require_positive

__all__ = ["NKD", "nkd_loss"]


def nkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, gamma: float = 1.5, temperature: float = 1.0
) -> Tensor:
    """-T_t · log S_t - γ · λ² · Σ over the other classes of T̂^λ · log Ŝ^λ, mean over the batch; λ is ``temperature``.

    T̂ and Ŝ are softmaxes over the C - 1 other classes; λ applies to them alone, the target's term is at temperature 1. It is a
    cross-entropy, not a divergence: most of its value is the teacher's constant entropy, and with λ = 3, γ = 3.5 (the authors'
    for CIFAR-100) it is tens of times the task's loss. ``target``: indices (N,) or soft rows (N, C), whose largest entry counts.
    """
    refuse_unequal(student_logits, teacher_logits)
    require_positive(temperature=temperature)
    refuse_negative(gamma=gamma)
    labels, teacher_logits = labels_of(target).unsqueeze(1), teacher_logits.detach()
    teacher_target = F.softmax(teacher_logits, 1).gather(1, labels).squeeze(1)
    student_target = F.log_softmax(student_logits, 1).gather(1, labels).squeeze(1)
    teacher = F.softmax(others(teacher_logits, labels) / temperature, 1)
    student = F.log_softmax(others(student_logits, labels) / temperature, 1)
    non_target = (teacher * student).sum(1)
    return -(teacher_target * student_target + gamma * temperature**2 * non_target).mean()


class NKD(nn.Module):
    """``nkd_loss`` as a module. γ 1.5 and λ 1 are the authors' for ImageNet; for CIFAR-100 they use 3.5 and 3."""

    def __init__(self, *, gamma: float = 1.5, temperature: float = 1.0) -> None:
        super().__init__()
        self.gamma, self.temperature = gamma, temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C) of both and the target -> a scalar."""
        return nkd_loss(student_logits, teacher_logits, target, gamma=self.gamma, temperature=self.temperature)
