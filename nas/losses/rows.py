"""What several losses need of logits (N, C) and targets: labels, soft rows, the logits of the other classes, divergences by row."""

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.errors import InvalidConfig, InvalidLogits

__all__ = [
    "forward_kl", "labels_of", "others", "refuse_negative", "refuse_unequal", "require_positive", "require_share", "reverse_kl",
    "soft_rows",
]  # fmt: skip


def refuse_unequal(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Refuses logits that are not of one shape (N, C).

    Raises:
        InvalidLogits: they are not; the commonest cause is a teacher of other classes.
    """
    if student_logits.shape != teacher_logits.shape or student_logits.ndim != 2:
        raise InvalidLogits(
            f"student and teacher logits must both be (N, C), got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}: "
            "the teacher must know the student's classes, in the same order"
        )


def require_positive(**values: float) -> None:
    """Refuses an option that is not above 0 and finite.

    Raises:
        InvalidConfig: names the option and its value.
    """
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise InvalidConfig(f"{name} must be above 0 and finite, got {value}")


def refuse_negative(**values: float) -> None:
    """Refuses an option below 0 or not finite.

    Raises:
        InvalidConfig: names the option and its value.
    """
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise InvalidConfig(f"{name} must be at least 0 and finite, got {value}")


def require_share(**values: float) -> None:
    """Refuses an option that is not from 0 to 1.

    Raises:
        InvalidConfig: names the option and its value.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InvalidConfig(f"{name} must be 0 to 1, got {value}")


def labels_of(target: Tensor) -> Tensor:
    """Class indices (N,): the target itself, or the largest entry of each of its soft rows (N, C), the first where several are."""
    return target if target.ndim == 1 else target.argmax(1)


def soft_rows(target: Tensor, like: Tensor) -> Tensor:
    """Target probabilities (N, C) in the type of the logits ``like``: one-hot rows of class indices, or the soft rows themselves."""
    return F.one_hot(target, like.shape[1]).to(like.dtype) if target.ndim == 1 else target.to(like.dtype)


def others(values: Tensor, labels: Tensor) -> Tensor:
    """The columns (N, C - L) of ``values`` (N, C) that are not among a row's ``labels`` (N, L), in their order.

    Taken out rather than masked by a large number, so that logits of any size stay finite and exact.
    """
    count = values.shape[1] - labels.shape[1]
    is_label = torch.zeros(values.shape, dtype=torch.int8, device=values.device).scatter_(1, labels, 1)
    return values.gather(1, is_label.argsort(dim=1, stable=True)[:, :count])


def forward_kl(student_log_p: Tensor, teacher_log_p: Tensor) -> Tensor:
    """KL(teacher ‖ student) of each row (N,), in nats: what is commonly meant by distillation. It spreads the student out."""
    return (teacher_log_p.exp() * (teacher_log_p - student_log_p)).sum(1)


def reverse_kl(student_log_p: Tensor, teacher_log_p: Tensor) -> Tensor:
    """KL(student ‖ teacher) of each row (N,), in nats. It sharpens the student on what the teacher finds likely."""
    return (student_log_p.exp() * (student_log_p - teacher_log_p)).sum(1)
