"""USKD: soft labels without a teacher, from the student's own outputs and a Zipf law (Yang et al., ICCV 2023, as NKD)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.errors import InvalidConfig, InvalidLogits
from nas.losses.rows import others, refuse_negative, soft_rows

__all__ = ["USKD", "Ranking", "uskd_loss"]

Ranking = Literal["probability", "log_softmax"]
SMOOTHING = 0.1  # of the weak classifier's targets
EPS = 1e-6


def uskd_loss(
    logits: Tensor, weak_logits: Tensor, target: Tensor, *, alpha: float = 1.0, beta: float = 0.1, mu: float = 0.005,
    ranking: Ranking = "probability",
) -> Tensor:  # fmt: skip
    """α · target + β · non-target + μ · weak, mean over the batch, for logits (N, C) of the network and of a weak classifier.

    - target: the label's own probability S squared, moved so that its batch mean is 0, plus the label's value, as its soft label;
    - non-target: the other classes get 1 / rank, renormalised; ranks are by W / (1 - W_t) + S / (1 - S_t) over all classes,
      the target's too: where it comes first the others begin at 1/2;
    - weak: cross-entropy of the weak logits with label smoothing 0.1; it alone reaches ``weak_logits``, and through them the
      feature map they come from (no detaching: it trains the backbone too).

    ``target``: class indices (N,), or soft rows (N, C), whose two largest entries are the labels (a second one of value 0 has
    soft label 0, yet is left out of the non-target part, as in the original). ``ranking="log_softmax"`` ranks as the authors'
    repository does since 2023-07-17, where a refactor put log-probabilities in place of S; the default is the paper's.
    """
    if logits.shape != weak_logits.shape or logits.ndim != 2:
        raise InvalidLogits(f"logits and weak_logits must both be (N, C), got {tuple(logits.shape)} and {tuple(weak_logits.shape)}")
    refuse_negative(alpha=alpha, beta=beta, mu=mu)
    if ranking not in ("probability", "log_softmax"):
        raise InvalidConfig(f"ranking must be probability or log_softmax, got {ranking!r}")
    rows = soft_rows(target, logits)
    labels = target.unsqueeze(1) if target.ndim == 1 else rows.argsort(dim=1, descending=True, stable=True)[:, :2]
    log_p = F.log_softmax(logits, 1)
    target_part = -(_soft_targets(log_p, rows, labels) * log_p.gather(1, labels)).sum(1).mean()
    zipf = _zipf(log_p, weak_logits, labels, ranking)
    non_target_part = -(zipf * F.log_softmax(others(logits, labels), 1)).sum(1).mean()
    smoothed = (1 - SMOOTHING) * rows + SMOOTHING / logits.shape[1]
    weak_part = -(smoothed * F.log_softmax(weak_logits, 1)).sum(1).mean()
    return alpha * target_part + beta * non_target_part + mu * weak_part


@torch.no_grad()
def _soft_targets(log_p: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """P (N, L): S² + V - mean over the batch of S² for each label slot; 0 where V is 0. Not clamped: a mixup class may be negative."""
    squared, values = log_p.gather(1, labels).exp() ** 2, rows.gather(1, labels)
    return torch.where(values > 0, squared + values - squared.mean(0, keepdim=True), torch.zeros_like(values))


@torch.no_grad()
def _zipf(log_p: Tensor, weak_logits: Tensor, labels: Tensor, ranking: Ranking) -> Tensor:
    """Soft labels (N, C - L) of the other classes, each row summing to 1: 1 / rank among all C classes, renormalised."""
    strong = log_p.exp() if ranking == "probability" else log_p
    score = _without_labels(F.softmax(weak_logits, 1), labels) + _without_labels(strong, labels)
    ranks = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True) + 1
    kept = others(1 / ranks.to(log_p.dtype), labels)
    return kept / kept.sum(1, keepdim=True)


def _without_labels(values: Tensor, labels: Tensor) -> Tensor:
    return values / (1 - values.gather(1, labels).sum(1, keepdim=True) + EPS)


class USKD(nn.Module):
    """``uskd_loss`` with its weak classifier: a linear layer on the mean of a feature map; dropped after training.

    The feature is the end of the second-to-last stage (MobileNetV2: the 320 channels before the last 1×1 convolution).
    """

    def __init__(
        self, feature_ch: int, classes: int, *, alpha: float = 1.0, beta: float = 0.1, mu: float = 0.005, ranking: Ranking = "probability"
    ) -> None:
        super().__init__()
        self.weak = nn.Linear(feature_ch, classes)
        self.alpha, self.beta, self.mu, self.ranking = alpha, beta, mu, ranking

    def forward(self, logits: Tensor, feature: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C), a feature map (N, F, H, W) of the same forward pass, and the target -> a scalar."""
        weak_logits = self.weak(feature.to(self.weak.weight.dtype).mean((2, 3)))
        return uskd_loss(logits, weak_logits, target, alpha=self.alpha, beta=self.beta, mu=self.mu, ranking=self.ranking)
