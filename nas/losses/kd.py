"""KD: the teacher's softened probabilities as targets (Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015)."""

from torch import Tensor, nn
from torch.nn import functional as F

from nas.losses.rows import forward_kl, refuse_unequal, require_positive

__all__ = ["KD", "kd_loss"]


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """τ² · mean over the batch of KL(softmax(teacher/τ) ‖ softmax(student/τ)), logits (N, C); no gradient to the teacher.

    τ² keeps the size of the gradients where τ changes (the paper's section 2). The task's own cross-entropy is not in it.
    """
    refuse_unequal(student_logits, teacher_logits)
    require_positive(temperature=temperature)
    student = F.log_softmax(student_logits / temperature, 1)
    teacher = F.log_softmax(teacher_logits.detach() / temperature, 1)
    return temperature**2 * forward_kl(student, teacher).mean()


class KD(nn.Module):
    """``kd_loss`` as a module; the target is not used."""

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C) of both -> a scalar."""
        return kd_loss(student_logits, teacher_logits, temperature=self.temperature)
