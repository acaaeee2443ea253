"""DIST: correlations in place of exact probabilities (Huang et al.: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.losses.rows import refuse_negative, refuse_unequal, require_positive

__all__ = ["DIST", "dist_loss"]

EPS = 1e-8  # in the denominator, as in the authors' code


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """τ² · (β · inter + γ · intra): 1 minus Pearson's correlation of probabilities within rows, and within columns of the batch.

    ``intra`` compares images of one class and so depends on the batch: keep 64 or more. The authors weight the whole by 2, which
    is not in it; they use τ = 4 on CIFAR-100 and 1 on ImageNet.
    """
    refuse_unequal(student_logits, teacher_logits)
    require_positive(temperature=temperature)
    refuse_negative(beta=beta, gamma=gamma)
    student = F.softmax(student_logits / temperature, 1)
    teacher = F.softmax(teacher_logits.detach() / temperature, 1)
    inter = 1 - _pearson(student, teacher).mean()
    intra = 1 - _pearson(student.T, teacher.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation (N,) of each row of ``a`` with the same row of ``b``; 0 where a row is constant."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    lengths = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    found: Tensor = (a * b).sum(1) / (lengths + EPS)
    return found


class DIST(nn.Module):
    """``dist_loss`` as a module; the target is not used."""

    def __init__(self, *, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C) of both -> a scalar."""
        return dist_loss(student_logits, teacher_logits, beta=self.beta, gamma=self.gamma, temperature=self.temperature)
