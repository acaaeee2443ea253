"""DKD: target and non-target knowledge weighted apart (Zhao et al.: Decoupled Knowledge Distillation, CVPR 2022)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.losses.rows import forward_kl, labels_of, others, refuse_negative, refuse_unequal, require_positive

__all__ = ["DKD", "dkd_loss"]


def dkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> Tensor:
    """τ² · (α · TCKD + β · NCKD), mean over the batch; the warm-up factor of the authors' trainer is not in it.

    TCKD is the KL of (target, all others) taken as two classes, NCKD that among the others, both at τ. ``target``: class indices
    (N,), as in the original, or soft rows (N, C), of which the largest entry counts. With α = 1 and β = the teacher's
    probability of the others in each row it would be ``kd_loss`` (the paper's equation 5); β alone is free of that weight.
    """
    refuse_unequal(student_logits, teacher_logits)
    require_positive(temperature=temperature)
    refuse_negative(alpha=alpha, beta=beta)
    labels = labels_of(target).unsqueeze(1)
    student, teacher = student_logits / temperature, teacher_logits.detach() / temperature
    tckd = forward_kl(_two_classes(student, labels), _two_classes(teacher, labels))
    nckd = forward_kl(F.log_softmax(others(student, labels), 1), F.log_softmax(others(teacher, labels), 1))
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


def _two_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Log probabilities (N, 2) of the target and of all others together, exact however sure the logits are."""
    together = torch.logsumexp(others(logits, labels), 1, keepdim=True)
    return F.log_softmax(torch.cat([logits.gather(1, labels), together], 1), 1)


class DKD(nn.Module):
    """``dkd_loss`` as a module. β = 8 and τ = 4 are the authors' for CIFAR-100; for ImageNet they use β 0.5 or 2 and τ = 1."""

    def __init__(self, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C) of both and the target -> a scalar."""
        return dkd_loss(student_logits, teacher_logits, target, alpha=self.alpha, beta=self.beta, temperature=self.temperature)
