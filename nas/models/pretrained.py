"""Reads torchvision's MobileNetV2, MnasNet and MobileNetV3 weights into our architecture and module; needs no torchvision."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from latency.onnx_graph import BN_EPS, InvalidWeights
from nas.models.network import Network, build
from search_spaces.architecture import Act, Architecture, Block, Head
from search_spaces.errors import UnknownName

__all__ = ["TORCHVISION", "from_torchvision"]

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One block in torchvision's words: ``convs`` are its (convolution, BN) prefixes in order, ``se`` its SE prefix or ""."""

    name: str
    convs: tuple[tuple[str, str], ...]
    stride: int
    act: Act
    se: str = ""
    may_skip: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class _Net:
    """What shapes do not tell: the rows of a network, its linear layers in order, its BN epsilon."""

    rows: Callable[[State], Iterator[_Row]]
    linears: tuple[str, ...]
    eps: float


def from_torchvision(name: str, state_dict: State, *, input_chw: tuple[int, int, int] = (3, 224, 224)) -> tuple[Architecture, Network]:
    """Our architecture and network, in evaluation mode, computing what torchvision's model ``name`` with ``state_dict`` does.

    Widths and the number of outputs are read from the tensors' shapes, so any width multiplier (and V3's reduced tail) is
    recognised; strides are the ImageNet ones whatever ``input_chw``. V3's ``dilated`` variants have the same tensors as the
    plain ones and cannot be told apart: they come out plain. torchvision's BN epsilon (1e-3 in V3) minus ours (``BN_EPS``)
    is added to ``running_var``, which gives the same function in evaluation and differs a little once BN runs in training mode.
    The tensors are copied; dropout is 0.

    Raises:
        UnknownName: no such network (known: ``TORCHVISION``).
        InvalidWeights: a tensor is missing, unexpected, or of a shape that its network cannot have.
    """
    if name not in TORCHVISION:
        raise UnknownName.among("torchvision network", name, TORCHVISION)
    net, used = TORCHVISION[name], _Reader(state_dict)
    blocks, state = [], dict[str, Tensor]()
    for i, row in enumerate(net.rows(state_dict)):
        block = _block(row, used)
        blocks.append(block)
        state |= {f"blocks.{i}.{key}": value for key, value in _block_state(row, block, used, net.eps).items()}
    head = _head(net, used)
    for ours, theirs in zip(("head.hidden", "head.out") if head.width_ch else ("head.out",), net.linears, strict=True):
        state |= {f"{ours}.{key}": used.read(f"{theirs}.{key}") for key in ("weight", "bias")}
    used.refuse_leftovers(name)
    arch = Architecture(input_chw=input_chw, blocks=tuple(blocks), head=head)
    network = build(arch, device="meta").to_empty(device="cpu")
    _load(network, state)
    return arch, network.eval()


class _Reader:
    """A state dict that remembers which of its tensors were read."""

    def __init__(self, state: State) -> None:
        self.state, self.left = state, set(state)

    def read(self, key: str, dims: int | None = None) -> Tensor:
        if key not in self.state:
            raise InvalidWeights(f"state dict has no tensor {key!r}; give the state_dict() of the torchvision network itself")
        if dims is not None and self.state[key].dim() != dims:
            raise InvalidWeights(f"{key}: must have {dims} dimensions, got shape {tuple(self.state[key].shape)}")
        self.left.discard(key)
        return self.state[key]

    def refuse_leftovers(self, name: str) -> None:
        left = sorted(key for key in self.left if not key.endswith("num_batches_tracked"))
        if left:
            raise InvalidWeights(f"state dict has {len(left)} tensors that {name} does not have, the first {left[0]!r}")


def _block(row: _Row, used: _Reader) -> Block:
    """The row's architecture block, channels and kernel read from its weights."""
    shapes = [tuple(used.read(f"{conv}.weight", 4).shape) for conv, _ in row.convs]
    in_ch, out_ch = shapes[0][0] if len(shapes) == 2 else shapes[0][1], shapes[-1][0]
    se_ch = used.read(f"{row.se}.fc1.weight", 4).shape[0] if row.se else 0
    return Block(
        name=row.name, op=("conv", "sepconv", "mbconv")[len(shapes) - 1], in_ch=in_ch, out_ch=out_ch,
        hidden_ch=shapes[0][0] if len(shapes) == 3 else 0, kernel=shapes[0 if len(shapes) < 3 else 1][2], stride=row.stride,
        se_ch=se_ch, se_gate="hsigmoid" if se_ch else "sigmoid", act=row.act,
        skip="identity" if row.may_skip and row.stride == 1 and in_ch == out_ch and len(shapes) > 1 else "none",
    )


def _block_state(row: _Row, block: Block, used: _Reader, eps: float) -> dict[str, Tensor]:
    """The row's tensors under our names within the block."""
    steps = {"conv": ("conv",), "sepconv": ("depthwise", "project"), "mbconv": ("expand", "depthwise", "project")}[block.op]
    state = {}
    for step, (conv, bn) in zip(steps, row.convs, strict=True):
        state[f"{step}.conv.weight"] = used.read(f"{conv}.weight")
        state |= {f"{step}.bn.{key}": used.read(f"{bn}.{key}", 1) for key in ("weight", "bias", "running_mean")}
        state[f"{step}.bn.running_var"] = used.read(f"{bn}.running_var", 1) + (eps - BN_EPS)
    for ours, theirs in (("reduce", "fc1"), ("expand", "fc2")) if row.se else ():
        state |= {f"se.{ours}.{key}": used.read(f"{row.se}.{theirs}.{key}") for key in ("weight", "bias")}
    return state


def _head(net: _Net, used: _Reader) -> Head:
    widths = [used.read(f"{linear}.weight", 2).shape[0] for linear in net.linears]
    if len(widths) == 1:
        return Head(outputs=widths[0])
    return Head(outputs=widths[1], width_ch=widths[0], act="hswish")


def _load(network: Network, state: dict[str, Tensor]) -> None:
    """Copies the tensors in, each checked against the shape that the architecture asks for."""
    for key, mine in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            mine.zero_()
        elif mine.shape != state[key].shape:
            raise InvalidWeights(f"tensor for {key}: shape must be {tuple(mine.shape)}, got {tuple(state[key].shape)}")
        else:
            mine.copy_(state[key])


def _v2_rows(state: State) -> Iterator[_Row]:
    yield _Row(name="stem", convs=(("features.0.0", "features.0.1"),), stride=2, act="relu6")
    repeats, strides, i = (1, 2, 3, 4, 3, 3, 1), (1, 2, 2, 2, 1, 2, 1), 0
    for s, (repeat, stride) in enumerate(zip(repeats, strides, strict=True), start=1):
        for b in range(1, repeat + 1):
            i += 1
            p = f"features.{i}.conv"
            convs = ((f"{p}.0.0", f"{p}.0.1"), (f"{p}.1.0", f"{p}.1.1"), (f"{p}.2", f"{p}.3"))
            yield _Row(
                name=f"s{s}b{b}", convs=convs if i > 1 else (convs[0], (f"{p}.1", f"{p}.2")), stride=stride if b == 1 else 1, act="relu6",
            )
    yield _Row(name="last", convs=(("features.18.0", "features.18.1"),), stride=1, act="relu6")


def _mnasnet_rows(state: State) -> Iterator[_Row]:
    yield _Row(name="stem", convs=(("layers.0", "layers.1"),), stride=2, act="relu")
    yield _Row(name="s1b1", convs=(("layers.3", "layers.4"), ("layers.6", "layers.7")), stride=1, act="relu", may_skip=False)
    for s, (repeat, stride) in enumerate(zip((3, 3, 3, 2, 4, 1), (2, 2, 2, 1, 2, 1), strict=True)):
        for b in range(repeat):
            p = f"layers.{8 + s}.{b}.layers"
            convs = tuple((f"{p}.{j}", f"{p}.{j + 1}") for j in (0, 3, 6))
            yield _Row(name=f"s{s + 2}b{b + 1}", convs=convs, stride=1 if b else stride, act="relu")
    yield _Row(name="last", convs=(("layers.14", "layers.15"),), stride=1, act="relu")


def _v3_rows(state: State, *, strides: tuple[int, ...], relus: int) -> Iterator[_Row]:
    """Rows of V3; the first ``relus`` blocks after the stem use ReLU, all others h-swish."""
    yield _Row(name="stem", convs=(("features.0.0", "features.0.1"),), stride=2, act="hswish")
    for i, stride in enumerate(strides, start=1):
        inside = re.compile(rf"features\.{i}\.block\.(\d+)\.(0|fc1)\.weight")
        parts = sorted((int(m[1]), m[2]) for m in map(inside.fullmatch, state) if m)
        convs = tuple((f"features.{i}.block.{j}.0", f"features.{i}.block.{j}.1") for j, kind in parts if kind == "0")
        if len(convs) not in (2, 3):
            raise InvalidWeights(f"state dict must have 2 or 3 convolutions under 'features.{i}.block', got {len(convs)}")
        se = "".join(f"features.{i}.block.{j}" for j, kind in parts if kind == "fc1")
        yield _Row(name=f"b{i}", convs=convs, stride=stride, act="relu" if i <= relus else "hswish", se=se)
    last = f"features.{len(strides) + 1}"
    yield _Row(name="last", convs=((f"{last}.0", f"{last}.1"),), stride=1, act="hswish")


_MNASNET = _Net(rows=_mnasnet_rows, linears=("classifier.1",), eps=1e-5)
TORCHVISION: dict[str, _Net] = {
    "mobilenet_v2": _Net(rows=_v2_rows, linears=("classifier.1",), eps=1e-5),
    "mnasnet0_5": _MNASNET,
    "mnasnet0_75": _MNASNET,
    "mnasnet1_0": _MNASNET,
    "mnasnet1_3": _MNASNET,
    "mobilenet_v3_large": _Net(
        rows=partial(_v3_rows, strides=(1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1), relus=6),
        linears=("classifier.0", "classifier.3"), eps=1e-3,
    ),
    "mobilenet_v3_small": _Net(
        rows=partial(_v3_rows, strides=(2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1), relus=3), linears=("classifier.0", "classifier.3"), eps=1e-3,
    ),
}
