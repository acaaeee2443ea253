"""``emit``: the ONNX reading of an architecture, in milliseconds; mirrors ``nas.models.ops`` and ``nas.models.heads`` op by op."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from search_spaces.architecture import Act, Architecture, Block, Gate, Head, Op, Piece, Skip, pieces
from search_spaces.errors import InvalidArchitecture, NasError, UnknownName

__all__ = ["BN_EPS", "InvalidWeights", "emit", "emit_piece", "emit_pieces"]

BN_EPS = 1e-5  # every BatchNorm's epsilon, here and in nas.models; imported weights fold theirs into running_var
OPSETS = range(14, onnx.defs.onnx_opset_version() + 1)  # HardSwish came with 14

Array = np.ndarray[Any, np.dtype[Any]]  # Any: weights may come as float16 or float32 of any rank


class InvalidWeights(NasError, ValueError):
    """Weights that do not fit the network, or a weights file that cannot be read; the text names the tensor or the file."""


def emit(
    arch: Architecture, weights: Mapping[str, Array] | None = None, *, batch: int | None = 1, opset: int = 17, ir_version: int = 8,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The architecture as an ONNX model: float32, BN folded into its convolution, input ``input`` (N, C, H, W), output ``logits``.

    ``weights`` is a state dict of ``nas.models.build(arch)`` as arrays (``nas.weights.numpy_weights``); None fills in fixed
    pseudo-random values that keep activations of ordinary size, good for timing. ``batch=None`` leaves N symbolic, ``"N"``.
    Taps are not emitted; ``metadata`` becomes metadata_props.

    Raises:
        InvalidWeights: a tensor is missing or has another shape.
        UnknownName: an opset that this writer or the installed onnx does not know.
    """
    if opset not in OPSETS:
        raise UnknownName.among("opset", opset, OPSETS)
    n = "N" if batch is None else batch
    model = _empty_model(arch.id, (n, *arch.input_chw), ("logits", [n, arch.head.outputs]), opset=opset, ir_version=ir_version)
    _append(_Graph(model.graph, weights), pieces(arch))
    helper.set_model_props(model, dict(metadata or {}))
    return model


def emit_piece(piece: Piece) -> onnx.ModelProto:
    """One piece by itself as an ONNX model, for timing: input ``input`` (1, C, H, W), output ``output``, weights as ``emit`` makes them up.

    Equal pieces give equal bytes.
    """
    return emit_pieces([piece])


def emit_pieces(chain: Sequence[Piece]) -> onnx.ModelProto:
    """Consecutive pieces as one model, otherwise as ``emit_piece``.

    Raises:
        InvalidArchitecture: a piece is not fed what the one before it gives.
    """
    for i, (before, piece) in enumerate(pairwise(chain), 1):
        if before.out_chw != piece.in_chw or before.dims != piece.dims:
            raise InvalidArchitecture(f"piece {i} is fed {piece.in_chw}, and the one before it gives {before.out_chw}")
    ch, *sides = chain[-1].out_chw
    out = [1, ch] if isinstance(chain[-1].layer, Head) else [1, ch, *sides]
    model = _empty_model("pieces", (1, *chain[0].in_chw), ("output", out))
    _append(_Graph(model.graph, None), chain)
    model.graph.node[-1].output[0] = "output"
    return model


def _empty_model(
    name: str, in_nchw: Sequence[int | str], output: tuple[str, Sequence[int | str]], *, opset: int = 17, ir_version: int = 8
) -> onnx.ModelProto:
    model = onnx.ModelProto(ir_version=ir_version, producer_name="hardware-aware-nas", opset_import=[helper.make_opsetid("", opset)])
    model.graph.name = name
    model.graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, in_nchw))
    model.graph.output.append(helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1]))
    return model


def _append(graph: "_Graph", chain: Iterable[Piece]) -> None:
    """Writes the nodes of consecutive pieces behind ``input``."""
    x = "input"
    for i, piece in enumerate(chain):
        if isinstance(piece.layer, Head):
            HEADS[piece.layer.kind](graph, x, "head", piece.layer, piece.in_chw[0])
        else:
            x = _layer(graph, x, f"blocks.{i}", piece.layer, piece.dims)


class _Graph:
    """The graph under construction, written straight into the model's proto: copying 20 MB of weights costs more than all the rest."""

    def __init__(self, proto: onnx.GraphProto, weights: Mapping[str, Array] | None) -> None:
        self.proto, self.weights = proto, weights

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:  # Any: an ONNX attribute
        """Appends a node called ``name``, whose one result is called the same; returns that name."""
        self.proto.node.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Array) -> str:
        tensor = self.proto.initializer.add()
        tensor.name, tensor.data_type = name, helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor.dims.extend(value.shape)
        tensor.raw_data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        return name

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        """The tensor of that name, or random values: biases of size 0.1, the rest scaled to keep the variance."""
        if self.weights is None:
            scale = 0.1 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
            return np.resize(_noise() * np.float32(scale), shape)
        if name not in self.weights:
            raise InvalidWeights(f"weights have no tensor {name!r}; give the state dict of build(arch) for this very architecture")
        if self.weights[name].shape != shape:
            raise InvalidWeights(f"{name}: shape must be {shape} for this architecture, got {self.weights[name].shape}")
        return self.weights[name]

    def with_bias(self, prefix: str, shape: tuple[int, ...]) -> list[str]:
        """Weight and bias of a layer without BN, as graph inputs."""
        return [
            self.constant(f"{prefix}.weight", self.read(f"{prefix}.weight", shape).astype(np.float32)),
            self.constant(f"{prefix}.bias", self.read(f"{prefix}.bias", shape[:1]).astype(np.float32)),
        ]

    def folded(self, prefix: str, shape: tuple[int, ...]) -> list[str]:
        """Weight and bias of a convolution with its BN folded in (float64), as graph inputs."""
        if self.weights is None:
            return self.with_bias(f"{prefix}.conv", shape)
        gamma, beta, mean, var = (
            self.read(f"{prefix}.bn.{key}", shape[:1]).astype(np.float64) for key in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(var + BN_EPS)
        weight = self.read(f"{prefix}.conv.weight", shape) * scale.reshape(-1, 1, 1, 1)
        return [
            self.constant(f"{prefix}.conv.weight", weight.astype(np.float32)),
            self.constant(f"{prefix}.conv.bias", (beta - mean * scale).astype(np.float32)),
        ]


@cache
def _noise() -> Array:
    """A fixed block of N(0, 1) values; its prime length keeps the rows of a tiled weight different."""
    return np.random.default_rng(0).standard_normal(9973, dtype=np.float32)


def _clip6(g: _Graph, x: str, name: str) -> str:
    low, high = (g.constant(f"{name}.{key}", np.array(v, np.float32)) for key, v in (("min", 0), ("max", 6)))
    return g.node("Clip", [x, low, high], name)


def _swish(g: _Graph, x: str, name: str) -> str:
    return g.node("Mul", [x, g.node("Sigmoid", [x], f"{name}.sigmoid")], name)


ACTS: dict[Act, Callable[[_Graph, str, str], str]] = {
    "relu": lambda g, x, name: g.node("Relu", [x], name),
    "relu6": _clip6,
    "hswish": lambda g, x, name: g.node("HardSwish", [x], name),
    "swish": _swish,
    "none": lambda g, x, name: x,
}
GATES: dict[Gate, Callable[[_Graph, str, str], str]] = {
    "sigmoid": lambda g, x, name: g.node("Sigmoid", [x], name),
    "hsigmoid": lambda g, x, name: g.node("HardSigmoid", [x], name, alpha=1 / 6, beta=0.5),
}


def _conv_norm(
    g: _Graph, x: str, name: str, in_ch: int, out_ch: int, *, act: Act = "none", kernel: int = 1, stride: int = 1, dilation: int = 1,
    groups: int = 1, dims: int = 2,
) -> str:
    size, pads = _hw(kernel, 1, dims), _hw((kernel - 1) // 2 * dilation, 0, dims)
    y = g.node(
        "Conv", [x, *g.folded(name, (out_ch, in_ch // groups, *size))], f"{name}.conv", kernel_shape=size,
        strides=_hw(stride, 1, dims), dilations=_hw(dilation, 1, dims), pads=pads * 2, group=groups,
    )
    return ACTS[act](g, y, f"{name}.act")


def _squeeze_excite(g: _Graph, x: str, name: str, ch: int, se_ch: int, gate: Gate) -> str:
    y = g.node("GlobalAveragePool", [x], f"{name}.mean")
    y = g.node("Conv", [y, *g.with_bias(f"{name}.reduce", (se_ch, ch, 1, 1))], f"{name}.reduce", kernel_shape=[1, 1])
    y = ACTS["relu"](g, y, f"{name}.act")
    y = g.node("Conv", [y, *g.with_bias(f"{name}.expand", (ch, se_ch, 1, 1))], f"{name}.expand", kernel_shape=[1, 1])
    return g.node("Mul", [x, GATES[gate](g, y, f"{name}.gate")], name)


def _conv(g: _Graph, x: str, name: str, b: Block, dims: int) -> str:
    x = _conv_norm(
        g, x, f"{name}.conv", b.in_ch, b.out_ch, act=b.act, kernel=b.kernel, stride=b.stride, dilation=b.dilation, dims=dims,
    )
    return _squeeze_excite(g, x, f"{name}.se", b.out_ch, b.se_ch, b.se_gate) if b.se_ch else x


def _sepconv(g: _Graph, x: str, name: str, b: Block, dims: int) -> str:
    ch = b.hidden_ch or b.in_ch
    x = _conv_norm(
        g, x, f"{name}.depthwise", ch, ch, act=b.act, kernel=b.kernel, stride=b.stride, dilation=b.dilation, groups=ch, dims=dims,
    )
    if b.se_ch:
        x = _squeeze_excite(g, x, f"{name}.se", ch, b.se_ch, b.se_gate)
    return _conv_norm(g, x, f"{name}.project", ch, b.out_ch)


def _mbconv(g: _Graph, x: str, name: str, b: Block, dims: int) -> str:
    return _sepconv(g, _conv_norm(g, x, f"{name}.expand", b.in_ch, b.hidden_ch, act=b.act), name, b, dims)


def _pool(g: _Graph, x: str, name: str, b: Block, dims: int) -> str:
    x = g.node(
        "AveragePool", [x], f"{name}.pool", kernel_shape=_hw(3, 1, dims), strides=_hw(b.stride, 1, dims), pads=_hw(1, 0, dims) * 2,
        count_include_pad=0,
    )
    if b.in_ch > b.out_ch:
        cut = [g.constant(f"{name}.cut.{key}", np.array([v], np.int64)) for key, v in (("start", 0), ("end", b.out_ch), ("axis", 1))]
        return g.node("Slice", [x, *cut], f"{name}.cut")
    if b.in_ch < b.out_ch:
        pads = g.constant(f"{name}.pad.pads", np.array([0, 0, 0, 0, 0, b.out_ch - b.in_ch, 0, 0], np.int64))
        return g.node("Pad", [x, pads], f"{name}.pad")
    return x


OPS: dict[Op, Callable[[_Graph, str, str, Block, int], str]] = {"conv": _conv, "sepconv": _sepconv, "mbconv": _mbconv}
SKIPS: dict[Skip, Callable[[_Graph, str, str, str, Block, int], str]] = {
    "none": lambda g, x, y, name, b, dims: y,
    "identity": lambda g, x, y, name, b, dims: g.node("Add", [y, x], name),
    "pool": lambda g, x, y, name, b, dims: g.node("Add", [y, _pool(g, x, name, b, dims)], name),
}


def _layer(g: _Graph, x: str, name: str, b: Block, dims: int) -> str:
    return SKIPS[b.skip](g, x, OPS[b.op](g, x, name, b, dims), name, b, dims)


def _classify(g: _Graph, x: str, name: str, head: Head, in_ch: int) -> None:
    x = g.node("GlobalAveragePool", [x], f"{name}.mean")
    x = g.node("Flatten", [x], f"{name}.flat")
    if head.width_ch:
        x = g.node("Gemm", [x, *g.with_bias(f"{name}.hidden", (head.width_ch, in_ch))], f"{name}.hidden", transB=1)
        x = ACTS[head.act](g, x, f"{name}.act")
    g.proto.node.append(
        helper.make_node("Gemm", [x, *g.with_bias(f"{name}.out", (head.outputs, head.width_ch or in_ch))], ["logits"], transB=1),
    )


HEADS: dict[str, Callable[[_Graph, str, str, Head, int], None]] = {"classify": _classify}


def _hw(along: int, across: int, dims: int) -> list[int]:
    """[height, width] of a setting: the same both ways, or ``across`` over the single row of a 1-D map."""
    return [along, along] if dims == 2 else [across, along]
