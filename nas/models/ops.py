"""Torch modules of one block: with ``heads`` all the torch code that knows layers; ``latency.onnx_graph`` mirrors it op by op."""

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn import functional as F

from latency.onnx_graph import BN_EPS
from search_spaces.architecture import Act, Block, Gate, Op, Skip

__all__ = ["ACTS", "GATES", "OPS", "SKIPS", "ConvNorm", "Layer", "SqueezeExcite"]

# Not in place: ReLU6 would make autograd copy its input first, and the others gain nothing.
ACTS: dict[Act, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "swish": nn.SiLU,
    "none": nn.Identity,
}
GATES: dict[Gate, Callable[[], nn.Module]] = {"sigmoid": nn.Sigmoid, "hsigmoid": nn.Hardsigmoid}


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm (``BN_EPS``), activation; padding keeps ceil(size / stride).

    In 1-D (``dims`` 1) kernel and stride act along the width only. Parameters: ``conv.weight``, ``bn.*``.
    """

    def __init__(
        self, in_ch: int, out_ch: int, *, act: Act = "none", kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_ch, out_ch, _hw(kernel, 1, dims), _hw(stride, 1, dims), _hw((kernel - 1) // 2 * dilation, 0, dims),
            _hw(dilation, 1, dims), groups, bias=False,
        )
        self.bn = nn.BatchNorm2d(out_ch, eps=BN_EPS)
        self.act = ACTS[act]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_ch, H, W) -> (N, out_ch, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class SqueezeExcite(nn.Module):
    """x times a gate per channel: global mean, 1×1 to ``se_ch``, ReLU, 1×1 back, gate; both 1×1 with bias."""

    def __init__(self, ch: int, se_ch: int, gate: Gate) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(ch, se_ch, 1)
        self.act = ACTS["relu"]()
        self.expand = nn.Conv2d(se_ch, ch, 1)
        self.gate = GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> same shape."""
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * gate


Steps = Iterator[tuple[str, nn.Module]]


def _conv(b: Block, dims: int) -> Steps:
    yield "conv", ConvNorm(b.in_ch, b.out_ch, act=b.act, kernel=b.kernel, stride=b.stride, dilation=b.dilation, dims=dims)
    if b.se_ch:
        yield "se", SqueezeExcite(b.out_ch, b.se_ch, b.se_gate)


def _sepconv(b: Block, dims: int) -> Steps:
    ch = b.hidden_ch or b.in_ch
    yield "depthwise", ConvNorm(ch, ch, act=b.act, kernel=b.kernel, stride=b.stride, dilation=b.dilation, groups=ch, dims=dims)
    if b.se_ch:
        yield "se", SqueezeExcite(ch, b.se_ch, b.se_gate)
    yield "project", ConvNorm(ch, b.out_ch)


def _mbconv(b: Block, dims: int) -> Steps:
    yield "expand", ConvNorm(b.in_ch, b.hidden_ch, act=b.act)
    yield from _sepconv(b, dims)


def _pool(x: Tensor, b: Block, dims: int) -> Tensor:
    x = F.avg_pool2d(x, _hw(3, 1, dims), _hw(b.stride, 1, dims), _hw(1, 0, dims), count_include_pad=False)
    if b.in_ch > b.out_ch:
        return x[:, : b.out_ch]
    return F.pad(x, (0, 0, 0, 0, 0, b.out_ch - b.in_ch)) if b.in_ch < b.out_ch else x


OPS: dict[Op, Callable[[Block, int], Steps]] = {"conv": _conv, "sepconv": _sepconv, "mbconv": _mbconv}
SKIPS: dict[Skip, Callable[[Tensor, Tensor, Block, int], Tensor]] = {
    "none": lambda x, y, b, dims: y,
    "identity": lambda x, y, b, dims: y + x,
    "pool": lambda x, y, b, dims: y + _pool(x, b, dims),
}


class Layer(nn.Module):
    """One block of an architecture: its op's steps in order, then the skip. Children are named after the steps."""

    def __init__(self, block: Block, dims: int) -> None:
        super().__init__()
        self.block, self.dims = block, dims
        for name, step in OPS[block.op](block, dims):
            self.add_module(name, step)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_ch, H, W) -> (N, out_ch, ceil(H / stride), ceil(W / stride))."""
        y = x
        for step in self.children():
            y = step(y)
        return SKIPS[self.block.skip](x, y, self.block, self.dims)

    def points(self, x: Tensor) -> dict[str, Tensor]:
        """The result of every step by its name, and ``output``: what ``forward`` returns."""
        found: dict[str, Tensor] = {}
        y = x
        for name, step in self.named_children():
            y = found[name] = step(y)
        return found | {"output": SKIPS[self.block.skip](x, y, self.block, self.dims)}


def _hw(along: int, across: int, dims: int) -> tuple[int, int]:
    """(height, width) of a setting: the same both ways, or ``across`` over the single row of a 1-D map."""
    return (along, along) if dims == 2 else (across, along)
