"""BD-KD: teacher and student train together, each sample by forward and reverse divergence (Amara et al.: BD-KD: Balancing the Divergences
for Online Knowledge Distillation, arXiv 2212.12965).

A reconstruction: only the abstract was at hand. That both divergences are used, weighted per sample by the entropy gap, and that the
teacher gets the reverse one, is said there; weights, switch and temperature are not, and are options here.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.errors import InvalidConfig
from nas.losses.rows import forward_kl, refuse_unequal, require_positive, reverse_kl

__all__ = ["BDKD", "Direction", "Switch", "bdkd_loss"]

Switch = Literal["hard", "sigmoid"]
Direction = Literal["balance", "reversed"]


def bdkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, nu: float = 2.0, temperature: float = 1.0, switch: Switch = "hard",
    softness: float = 1.0, direction: Direction = "balance",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The student's and the teacher's part, both τ² times a mean over the batch, each without gradient to the other network.

    Student: a·KL(teacher ‖ student) + b·KL(student ‖ teacher), where (a, b) = (ν, 1) for a sample on which the student's entropy
    is below the teacher's (it is too sure, and is spread out), else (1, ν). Teacher: KL(student ‖ teacher). The tasks' own
    cross-entropies are not in it. ν = 1 is the unweighted symmetric divergence.

    A reconstruction (see the module): ``switch`` "sigmoid" moves between 1 and ν with the gap over ``softness`` nats in place of
    a step, and ``direction`` "reversed" swaps a and b, which is the choice most worth checking against the paper.
    """
    refuse_unequal(student_logits, teacher_logits)
    require_positive(nu=nu, temperature=temperature, softness=softness)
    for name, value, menu in (("switch", switch, ("hard", "sigmoid")), ("direction", direction, ("balance", "reversed"))):
        if value not in menu:
            raise InvalidConfig(f"{name} must be {' or '.join(menu)}, got {value!r}")
    student, teacher = F.log_softmax(student_logits / temperature, 1), F.log_softmax(teacher_logits / temperature, 1)
    share = _share_of_too_sure(student, teacher, switch, softness)
    if direction == "reversed":
        share = 1 - share
    forward_weight, reverse_weight = 1 + (nu - 1) * share, 1 + (nu - 1) * (1 - share)
    fixed = teacher.detach()
    student_part = (forward_weight * forward_kl(student, fixed) + reverse_weight * reverse_kl(student, fixed)).mean()
    teacher_part = forward_kl(teacher, student.detach()).mean()  # KL(student ‖ teacher): forward, as the teacher sees it
    return temperature**2 * student_part, temperature**2 * teacher_part


@torch.no_grad()
def _share_of_too_sure(student: Tensor, teacher: Tensor, switch: Switch, softness: float) -> Tensor:
    """1 where the student's entropy is below the teacher's and 0 elsewhere (N,), or a sigmoid between. Detached: else the
    student could lower its loss by moving its entropy."""
    gap = _entropy(student) - _entropy(teacher)
    return torch.sigmoid(-gap / softness) if switch == "sigmoid" else (gap < 0).to(gap.dtype)


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(1)


class BDKD(nn.Module):
    """``bdkd_loss`` as a module; the target is not used."""

    def __init__(
        self, *, nu: float = 2.0, temperature: float = 1.0, switch: Switch = "hard", softness: float = 1.0, direction: Direction = "balance"
    ) -> None:
        super().__init__()
        self.nu, self.temperature, self.switch, self.softness, self.direction = nu, temperature, switch, softness, direction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, C) of both -> the student's and the teacher's part."""
        return bdkd_loss(
            student_logits, teacher_logits, nu=self.nu, temperature=self.temperature, switch=self.switch, softness=self.softness,
            direction=self.direction,
        )  # fmt: skip
