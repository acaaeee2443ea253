"""What an ONNX graph has to do, read off the graph: nodes and multiply-accumulates."""

import math
from typing import TYPE_CHECKING

import msgspec

from latency.errors import Failed

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["Work", "work"]

HEAVY = ("Conv", "Gemm", "MatMul")


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes, MACs of the convolutions and matrix products, and elements written by all nodes; a batch that is open counts as 1."""

    nodes: int
    macs: int
    elements: int


def work(data: bytes, model_index: int = 0) -> Work:
    """What the serialized model has to do; its weights' values do not matter, their shapes do.

    Raises:
        Failed: not an ONNX model, or one whose shapes cannot be inferred.
    """
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise Failed(f"model {model_index} is no ONNX model: {_first_line(error)}", model_index=model_index) from error
    graph = model.graph
    if not graph.node:
        raise Failed(f"model {model_index} is no ONNX model: its graph has no nodes", model_index=model_index)
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(d.dim_value or 1 for d in value.type.tensor_type.shape.dim)
    macs = elements = 0
    for node in graph.node:
        written = sum(math.prod(shapes.get(name, ())) for name in node.output)
        elements += written
        if node.op_type in HEAVY:
            try:
                macs += written * _reduced(node, shapes)
            except KeyError as error:
                raise Failed(f"model {model_index}: the shape of {error} is not known", model_index=model_index) from error
    return Work(nodes=len(graph.node), macs=macs, elements=elements)


def _reduced(node: "NodeProto", shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates for each element written: the product of the dimensions summed over."""
    if node.op_type == "Conv":
        return math.prod(shapes[node.input[1]][1:])
    left = shapes[node.input[0]]
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return left[0] if transposed else left[-1]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
