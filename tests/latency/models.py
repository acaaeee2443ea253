"""Small ONNX models written by hand, with the arithmetic to check them by."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["conv_net", "one_node"]


def conv_net(*, ch: int = 4, depth: int = 2, side: int = 8, batch: int | str = 1, height: int | str | None = None) -> onnx.ModelProto:
    """``depth`` 3×3 convolutions of ``ch`` channels on a ``side``×``side`` map: depth · ch² · 9 · side² multiply-accumulates."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((ch, ch, 3, 3)).astype(np.float32) * 0.05, f"w{i}") for i in range(depth)]
    names = ["x", *(f"y{i}" for i in range(depth))]
    nodes = [
        helper.make_node("Conv", [names[i], f"w{i}"], [names[i + 1]], kernel_shape=[3, 3], pads=[1, 1, 1, 1]) for i in range(depth)
    ]
    shape = [batch, ch, height or side, side]
    return _model(nodes, [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], names[-1], TensorProto.FLOAT, weights)


def one_node(op: str, *, dtype: int = TensorProto.FLOAT, shape: tuple[int, ...] = (1, 8), out: int | None = None) -> onnx.ModelProto:
    """A model of a single node with one input and one output."""
    node = helper.make_node(op, ["x"], ["y"])
    return _model([node], [helper.make_tensor_value_info("x", dtype, shape)], "y", dtype if out is None else out, [])


def _model(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], output: str, dtype: int, weights: list[onnx.TensorProto],
) -> onnx.ModelProto:  # fmt: skip
    graph = helper.make_graph(nodes, "test", inputs, [helper.make_tensor_value_info(output, dtype, None)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
