"""Networks for radio signals (I and Q over time): ClST-R, a transformer with convolutions, as teacher, and two small students.

Reconstructions, hence the R: of ClST (Hou et al., IEEE TWC 23(7), 2024) the abstract alone was at hand: a hierarchy of transformers
containing convolution (taken from CvT, Wu et al., ICCV 2021, whose words it uses), parallel spatial-channel attention, a
convolutional projection. Signals are (N, 2, L), or (N, 2, 1, L) as tasks have them: images of height 1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ClST", "ParallelAttention", "ProjectedTransformer", "kd_cnn", "kd_mobilenet"]


class ParallelAttention(nn.Module):
    """x + x · channel gate + x · place gate, both computed from the same x (not one after the other, as CBAM does)."""

    def __init__(self, ch: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(nn.Linear(ch, ch // 4), nn.ReLU(), nn.Linear(ch // 4, ch))
        self.place = nn.Conv1d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) -> same shape."""
        by_channel = torch.sigmoid(self.channel(x.mean(2)) + self.channel(x.amax(2))).unsqueeze(2)
        by_place = torch.sigmoid(self.place(torch.stack([x.mean(1), x.amax(1)], 1)))
        return x + x * by_channel + x * by_place


class Projection(nn.Module):
    """CvT's convolutional projection of tokens: depthwise convolution and BN over time, then linear."""

    def __init__(self, ch: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(ch, ch, 3, stride, 1, groups=ch, bias=False)
        self.bn = nn.BatchNorm1d(ch)
        self.linear = nn.Linear(ch, ch)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L, C) -> (N, ceil(L / stride), C)."""
        y: Tensor = self.linear(self.bn(self.conv(tokens.transpose(1, 2))).transpose(1, 2))
        return y


class ProjectedTransformer(nn.Module):
    """A pre-norm transformer block with convolutional projections: queries at stride 1, keys and values at stride 2.

    The softmax is scaled by the whole width, C^-½, as in CvT's code, not by the width of a head.
    """

    def __init__(self, ch: int, heads: int, *, kv_stride: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(ch)
        self.query, self.key, self.value = Projection(ch, 1), Projection(ch, kv_stride), Projection(ch, kv_stride)
        self.out = nn.Linear(ch, ch)
        self.norm2 = nn.LayerNorm(ch)
        self.mlp = nn.Sequential(nn.Linear(ch, 4 * ch), nn.GELU(), nn.Linear(4 * ch, ch))
        self.heads = heads

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L, C) -> same shape."""
        tokens = tokens + self._attended(self.norm1(tokens))
        y: Tensor = tokens + self.mlp(self.norm2(tokens))
        return y

    def _attended(self, tokens: Tensor) -> Tensor:
        query, key, value = (part(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, scale=tokens.shape[2] ** -0.5)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y


class _Stage(nn.Module):
    def __init__(self, in_ch: int, ch: int, kernel: int, heads: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(in_ch, ch, kernel, 2, kernel // 2)
        self.norm = nn.LayerNorm(ch)
        self.attention = ParallelAttention(ch)
        self.blocks = nn.Sequential(*(ProjectedTransformer(ch, heads) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_ch, L) -> (N, ch, ceil(L / 2))."""
        x = self.norm(self.embed(x).transpose(1, 2)).transpose(1, 2)
        y: Tensor = self.blocks(self.attention(x).transpose(1, 2))
        return y.transpose(1, 2)


class ClST(nn.Module):
    """ClST-R: three stages (embedding at stride 2, parallel attention, projected transformers), mean over time, linear."""

    def __init__(
        self, *, outputs: int, in_ch: int = 2, dims: tuple[int, int, int] = (16, 32, 64), depths: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        widths = (in_ch, *dims)
        settings = zip((7, 3, 3), (1, 2, 4), depths, strict=True)  # kernel, heads, depth
        self.stages = nn.Sequential(*(_Stage(widths[i], dims[i], k, h, d) for i, (k, h, d) in enumerate(settings)))
        self.norm = nn.LayerNorm(dims[-1])
        self.linear = nn.Linear(dims[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Signals (N, in_ch, L) or (N, in_ch, 1, L) -> logits (N, outputs)."""
        tokens = self.stages(x.squeeze(2) if x.ndim == 4 else x).transpose(1, 2)
        logits: Tensor = self.linear(self.norm(tokens).mean(1))
        return logits


class _Pooled(nn.Module):
    """Layers over time, the mean of what they give, a linear layer."""

    def __init__(self, layers: nn.Sequential, ch: int, outputs: int) -> None:
        super().__init__()
        self.layers, self.linear = layers, nn.Linear(ch, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Signals (N, in_ch, L) or (N, in_ch, 1, L) -> logits (N, outputs)."""
        logits: Tensor = self.linear(self.layers(x.squeeze(2) if x.ndim == 4 else x).mean(2))
        return logits


def kd_cnn(*, outputs: int, in_ch: int = 2) -> nn.Module:
    """KD-CNN-R: three convolutions with BN and ReLU, two poolings; 12,811 parameters for 11 classes."""
    layers: list[nn.Module] = []
    for i, (a, b, kernel) in enumerate(((in_ch, 32, 7), (32, 32, 5), (32, 64, 3))):
        layers += [nn.Conv1d(a, b, kernel, padding=kernel // 2), nn.BatchNorm1d(b), nn.ReLU(), *([nn.MaxPool1d(2)] if i < 2 else [])]
    return _Pooled(nn.Sequential(*layers), 64, outputs)


def kd_mobilenet(*, outputs: int, in_ch: int = 2) -> nn.Module:
    """KD-MobileNet-R: a strided stem and five depthwise-separable convolutions; 35,131 parameters for 11 classes."""
    layers: list[nn.Module] = [nn.Conv1d(in_ch, 16, 3, 2, 1, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    for a, b, stride in ((16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [nn.Conv1d(a, a, 3, stride, 1, groups=a, bias=False), nn.BatchNorm1d(a), nn.ReLU()]
        layers += [nn.Conv1d(a, b, 1, bias=False), nn.BatchNorm1d(b), nn.ReLU()]
    return _Pooled(nn.Sequential(*layers), 128, outputs)
