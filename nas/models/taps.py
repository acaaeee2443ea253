"""Where a network can be looked into while it trains: taps at the ends of its stages. Export, cost and latency never see them."""

from typing import Protocol, runtime_checkable

import msgspec
from torch import Tensor

from search_spaces.architecture import Architecture, Tap, pieces

__all__ = ["Tapped", "second_to_last", "stage_ends", "tap_ch", "with_taps"]


@runtime_checkable
class Tapped(Protocol):
    """A network that hands out feature maps beside its logits."""

    def forward_taps(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits (N, outputs) and feature maps (N, C, H, W) of one forward pass, part of the same autograd graph."""


def stage_ends(arch: Architecture) -> tuple[Tap, ...]:
    """A tap at the end of each stage, first to last: the last block at each resolution.

    The last resolution ends at its last block but one where the last is a 1×1 convolution, which widens for the head and is no
    stage of its own. Read from strides alone, so that imported and refined networks have them too.
    """
    body = _body(arch)
    ends = [i for i in range(body) if i == body - 1 or arch.blocks[i + 1].stride == 2]
    return tuple(Tap(block=i) for i in ends)


def second_to_last(arch: Architecture) -> Tap:
    """The feature that USKD's weak classifier reads: the block before the last 1×1 convolution (MobileNetV2: 320 channels).

    Without such a convolution it is the end of the second-to-last stage, or the last block where there is one stage only.
    """
    ends = stage_ends(arch)
    return ends[-1] if _body(arch) < len(arch.blocks) or len(ends) == 1 else ends[-2]


def tap_ch(arch: Architecture, tap: Tap) -> int:
    """Channels of the feature map (N, C, H, W) at a tap."""
    piece = pieces(arch)[tap.block]
    block = arch.blocks[tap.block]
    inside = block.hidden_ch or block.in_ch
    return piece.out_chw[0] if tap.point == "output" else inside


def with_taps(arch: Architecture, *taps: Tap) -> Architecture:
    """The same network (the same id) handing out these feature maps through ``Network.forward_taps``."""
    return msgspec.structs.replace(arch, taps=taps)


def _body(arch: Architecture) -> int:
    """How many blocks come before the last 1×1 convolution, all of them where there is none."""
    last = arch.blocks[-1]
    widens = last.op == "conv" and last.kernel == 1 and len(arch.blocks) > 1
    return len(arch.blocks) - widens
