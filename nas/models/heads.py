"""Torch modules of the heads, by the name in ``Head.kind``."""

from torch import Tensor, nn

from nas.models.ops import ACTS
from search_spaces.architecture import Head

__all__ = ["HEADS", "Classify"]


class Classify(nn.Module):
    """Global mean, (linear, act), dropout, linear; parameters ``hidden.*`` (with ``width_ch``) and ``out.*``."""

    def __init__(self, head: Head, in_ch: int, dropout: float) -> None:
        super().__init__()
        self.hidden: nn.Module = nn.Identity()
        self.act: nn.Module = nn.Identity()
        if head.width_ch:
            self.hidden = nn.Linear(in_ch, head.width_ch)
            self.act = ACTS[head.act]()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(head.width_ch or in_ch, head.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, outputs)."""
        logits: Tensor = self.out(self.dropout(self.act(self.hidden(x.mean((2, 3))))))
        return logits


HEADS = {"classify": Classify}
