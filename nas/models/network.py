"""``build``: the torch reading of an architecture."""

import torch
from torch import Tensor, nn

from nas.models.heads import HEADS
from nas.models.ops import Layer
from search_spaces.architecture import Architecture, Head, Piece, pieces
from search_spaces.errors import InvalidArchitecture

__all__ = ["Network", "build", "initialise", "module_of"]


class Network(nn.Module):
    """An architecture as a module: ``blocks`` in order, then ``head``. State keys are the contract with ``latency.onnx_graph.emit``."""

    def __init__(self, arch: Architecture, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.arch = arch
        *layers, head = (module_of(piece, dropout=dropout) for piece in pieces(arch))
        self.blocks = nn.ModuleList(layers)
        self.head = head
        for tap in arch.taps:
            if tap.point not in ("output", *dict(self.blocks[tap.block].named_children())):
                raise InvalidArchitecture(f"tap: block {tap.block} is a {arch.blocks[tap.block].op} and has no point {tap.point!r}")

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, outputs); any height and width, at least 1."""
        for layer in self.blocks:
            x = layer(x)
        logits: Tensor = self.head(x)
        return logits

    def forward_taps(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits, and the feature maps (N, C, H, W) of ``arch.taps`` in their order, part of the same autograd graph."""
        found: dict[tuple[int, str], Tensor] = {}
        wanted = {tap.block for tap in self.arch.taps}
        for i, layer in enumerate(self.blocks):
            assert isinstance(layer, Layer)
            points = layer.points(x) if i in wanted else {"output": layer(x)}
            found |= {(i, t.point): points[t.point] for t in self.arch.taps if t.block == i}
            x = points["output"]
        return self.head(x), tuple(found[t.block, t.point] for t in self.arch.taps)


def build(
    arch: Architecture, *, dropout: float = 0.0, generator: torch.Generator | None = None, device: str | torch.device = "cpu",
) -> Network:
    """A freshly initialised network in training mode, on ``device``; the same weights for the same generator state, whatever the device.

    ``dropout`` is the probability before the last linear layer. On ``device="meta"`` nothing is allocated or initialised:
    for ``torch.func.functional_call`` and for counting. ``generator`` is a CPU generator; None draws from torch's global one.

    Raises:
        InvalidArchitecture: a tap names a point that its block does not have.
    """
    with torch.device("meta"):
        network = Network(arch, dropout=dropout)
    if torch.device(device).type == "meta":
        return network
    network.to_empty(device="cpu")
    initialise(network, generator=generator)
    return network.to(device)


def module_of(piece: Piece, *, dropout: float = 0.0) -> nn.Module:
    """The module of one piece, on torch's current default device, its weights torch's defaults; ``dropout`` concerns heads."""
    if isinstance(piece.layer, Head):
        return HEADS[piece.layer.kind](piece.layer, piece.in_chw[0], dropout)
    return Layer(piece.layer, piece.dims)


def initialise(module: nn.Module, *, generator: torch.Generator | None = None) -> None:
    """Draws every weight anew: convolutions normal with variance 2 / fan_out, BN 1 and 0, linear normal(0.01), biases 0.

    fan_out of a depthwise kernel is k·k, as in tpu/mnasnet's initialiser (torchvision's forgets the groups). A linear
    layer that another follows (``hidden``: no BN after it) keeps the variance instead, 2 / fan_in.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.out_channels // part.groups * part.weight[0, 0].numel()
            nn.init.normal_(part.weight, std=(2 / fan_out) ** 0.5, generator=generator)
        elif isinstance(part, nn.Linear):
            std = (2 / part.in_features) ** 0.5 if name.endswith("hidden") else 0.01
            nn.init.normal_(part.weight, std=std, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
