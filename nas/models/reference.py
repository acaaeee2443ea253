"""Reference networks that are no ``Architecture``: CIFAR's residual networks, a small transformer, networks for signals; never searched.

The residual networks' parameter names are those of the widely used CIFAR ResNet checkpoints (``layer1.0.conv1.weight`` … ``linear.bias``).
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.models.signal_nets import ClST, kd_cnn, kd_mobilenet
from nas.models.vit import vit_tiny
from search_spaces.errors import UnknownName

__all__ = ["REFERENCES", "SIGNALS", "ResNet", "reference"]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with BN around a shortcut without weights ("option A")."""

    def __init__(self, in_ch: int, out_ch: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_ch, out_ch, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_ch)
        self.conv2 = nn.Conv2d(out_ch, out_ch, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_ch)
        self.stride, self.more_ch = stride, out_ch - in_ch

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_ch, H, W) -> (N, out_ch, ceil(H / stride), ceil(W / stride))."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        """Every second row and column where the block strides; new channels are zeros, half before and half after."""
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.more_ch // 2
        return F.pad(x, (0, 0, 0, 0, before, self.more_ch - before)) if self.more_ch else x


class ResNet(nn.Module):
    """6n + 2 layers: a 3×3 stem, three stages of n blocks at 16, 32, 64 channels, global mean, linear.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2. Any input size; made for 32×32.
    """

    def __init__(self, depth: int, *, outputs: int, in_ch: int = 3) -> None:
        super().__init__()
        assert depth % 6 == 2, "6n + 2 layers"
        blocks = depth // 6
        self.conv1 = nn.Conv2d(in_ch, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)  #  H × 16
        self.layer2 = _stage(16, 32, 2, blocks)  #  H/2 × 32
        self.layer3 = _stage(32, 64, 2, blocks)  #  H/4 × 64
        self.linear = nn.Linear(64, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, in_ch, H, W) -> logits (N, outputs)."""
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(in_ch: int, out_ch: int, stride: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(in_ch, out_ch, stride), *(BasicBlock(out_ch, out_ch, 1) for _ in range(blocks - 1)))


SIGNALS: Mapping[str, Callable[..., nn.Module]] = {"clst_r": ClST, "kd_cnn_r": kd_cnn, "kd_mobilenet_r": kd_mobilenet}
REFERENCES: Mapping[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in (20, 32, 44, 56, 110)},
    **SIGNALS,
    "vit_tiny": vit_tiny,
}


def reference(
    name: str, *, outputs: int, in_ch: int = 3, input_hw: tuple[int, int] = (32, 32), generator: torch.Generator | None = None
) -> nn.Module:
    """A freshly initialised reference network in training mode: He-normal weights (fan in), BN 1 and 0, biases 0; ViTs as torchvision's.

    ``input_hw`` matters to a ViT alone, which is made for one size of images.

    Raises:
        UnknownName: no such network (known: ``REFERENCES``).
        InvalidArchitecture: a ViT cannot cut such images into patches.
    """
    if name not in REFERENCES:
        raise UnknownName.among("reference network", name, REFERENCES)
    if name == "vit_tiny":
        return vit_tiny(outputs=outputs, in_ch=in_ch, input_hw=input_hw, generator=generator)
    with torch.device("meta"):
        network = REFERENCES[name](outputs=outputs, in_ch=in_ch)
    network.to_empty(device="cpu")
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Conv1d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm):
            part.reset_parameters()
    return network
