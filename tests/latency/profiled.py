"""Model files of the kinds that people have, for the tests of ``python -m latency.profile``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.latency.models import conv_net

__all__ = ["open_image", "outside_weights", "saved", "token_model"]


def saved(path: Path, model: onnx.ModelProto | None = None) -> Path:
    """Writes the model, by default a small convolution net."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model or conv_net(), path)
    return path


def open_image() -> onnx.ModelProto:
    """A convolution of images of any size: input ``x`` (N, 4, H, W)."""
    model = conv_net(depth=1, batch="N", height="H")
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "W"
    return model


def token_model(*, length: int | str = 6) -> onnx.ModelProto:
    """Embedding, mask and projection with three inputs: ``ids`` and ``mask`` int64 (1, L), ``bias`` float32 (5,); output (1, L, 5)."""
    rng = np.random.default_rng(0)
    table, matrix = (rng.standard_normal(s).astype(np.float32) for s in ((10, 8), (8, 5)))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["masked"]),
        helper.make_node("MatMul", ["masked", "matrix"], ["flat"]),
        helper.make_node("Add", ["flat", "bias"], ["scores"]),
    ]
    inputs = [
        _tensor("ids", TensorProto.INT64, (1, length)),
        _tensor("mask", TensorProto.INT64, (1, length)),
        _tensor("bias", TensorProto.FLOAT, (5,)),
    ]
    weights = [
        numpy_helper.from_array(table, "table"), numpy_helper.from_array(matrix, "matrix"),
        numpy_helper.from_array(np.array([-1]), "last"),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "tokens", inputs, [_tensor("scores", TensorProto.FLOAT, (1, length, 5))], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outside_weights(path: Path) -> Path:
    """Writes a net whose weights lie in ``weights.bin`` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(conv_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def _tensor(name: str, dtype: int, dims: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)
