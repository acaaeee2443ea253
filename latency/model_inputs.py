"""The inputs of an ONNX model: which dimensions are open, and fixing them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from search_spaces.errors import NasError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorShapeProto, ValueInfoProto

__all__ = ["Input", "InvalidModel", "fix_shapes", "inputs_of", "made_up", "parse_shapes", "require_feedable"]

# How far random values go: floats in [0, 1), bytes over their non-negative range, wider integers 0 or 1, for they may be indices.
EXTENTS = {
    "float": ("float32", 0), "float16": ("float16", 0), "double": ("float64", 0), "bool": ("bool", 2), "int8": ("int8", 128),
    "uint8": ("uint8", 256), "int16": ("int16", 2), "int32": ("int32", 2), "int64": ("int64", 2),
}  # fmt: skip
EXAMPLE = 224, 128  # what a message proposes for an open dimension of an image, and of anything else


class InvalidModel(NasError, ValueError):
    """A file is no ONNX model that can be profiled, or does not take what was asked of it; the text names it and the way out."""


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that the model wants: ``dims`` as declared, a name or "?" where open; None where even the rank is."""

    name: str
    dtype: str
    dims: tuple[int | str, ...] | None

    @property
    def is_fixed(self) -> bool:
        """Whether nothing but the batch is open, which counts as 1."""
        return self.dims is not None and all(isinstance(d, int) for d in self.dims[1:])


def inputs_of(model: "ModelProto", label: str) -> tuple[Input, ...]:
    """What has to be fed, in the graph's order; weights that older files list as inputs are left out.

    Raises:
        InvalidModel: an input is no tensor.
    """
    return tuple(_input(value, label) for value in _fed(model.graph))


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Texts such as ``NAME=1,3,224,224`` as dimensions by name; the last = separates.

    >>> parse_shapes(["input:0=1,3,224,224"])
    {'input:0': (1, 3, 224, 224)}

    Raises:
        InvalidModel: anything else, or a name twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, dims = text.rpartition("=")
        parts = dims.split(",")
        if not name or not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
            raise InvalidModel(f"--shape must be NAME=D,D,… with positive whole numbers, such as input=1,3,224,224; got {text!r}")
        if name in shapes:
            raise InvalidModel(f"--shape gives input {name!r} twice")
        shapes[name] = tuple(map(int, parts))
    return shapes


def fix_shapes(model: "ModelProto", shapes: Mapping[str, Sequence[int]], label: str) -> bool:
    """Writes the shapes of those inputs that ``shapes`` names into the model; other uses of their dimensions' names follow.

    Gives whether that changed anything.

    Raises:
        InvalidModel: the model declares another rank, another number, or one name that would be two numbers.
    """
    fed = {value.name: value for value in _fed(model.graph)}
    before = [_dims(value) for value in fed.values()]
    named: dict[str, int] = {}
    for name in sorted(shapes.keys() & fed.keys()):
        _fix(fed[name], shapes[name], named, label)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
    return [_dims(value) for value in fed.values()] != before


def require_feedable(inputs: Iterable[Input], label: str) -> None:
    """Refuses what cannot be made up: open dimensions other than the batch, and types such as text.

    Raises:
        InvalidModel: with the --shape that would fix the dimensions.
    """
    for value in inputs:
        if value.dtype not in EXTENTS:
            raise InvalidModel(f"{label}: input {value.name!r} is of type {value.dtype}, and only {', '.join(EXTENTS)} can be made up")
        if not value.is_fixed:
            shown = "no shape" if value.dims is None else f"shape [{', '.join(map(str, value.dims))}]"
            raise InvalidModel(f"{label}: input {value.name!r} has {shown}; fix it with --shape {value.name}={_example(value)}")


def made_up(inputs: Iterable[Input]) -> dict[str, "np.ndarray[Any, np.dtype[Any]]"]:  # Any: of several types and ranks
    """Fixed random values for inputs that ``require_feedable`` lets pass; an open batch is 1."""
    rng = np.random.default_rng(0)
    return {value.name: _values(value, rng) for value in inputs}


def _fed(graph: "GraphProto") -> list["ValueInfoProto"]:
    weights = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in weights]


def _input(value: "ValueInfoProto", label: str) -> Input:
    from onnx import TensorProto

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        shown = (kind or "value of no type").removesuffix("_type").replace("_", " ")
        raise InvalidModel(f"{label}: input {value.name!r} is a {shown}, and only tensors can be made up")
    return Input(name=value.name, dtype=TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(), dims=_dims(value))


def _dims(value: "ValueInfoProto") -> tuple[int | str, ...] | None:
    tensor = value.type.tensor_type
    return tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None


def _dim(dim: "TensorShapeProto.Dimension") -> int | str:
    """A number where one is declared; PyTorch's old exporter wrote open dimensions as 0 or -1."""
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or "?"


def _fix(value: "ValueInfoProto", wanted: Sequence[int], named: dict[str, int], label: str) -> None:
    """Writes ``wanted`` into the input and notes in ``named`` what its dimensions' names now stand for."""
    shape, given = value.type.tensor_type.shape, ",".join(map(str, wanted))
    declared = _dims(value)
    if declared is None:
        for number in wanted:
            shape.dim.add().dim_value = number
        return
    shown = f"{label}: input {value.name!r} has shape [{', '.join(map(str, declared))}]"
    if len(wanted) != len(declared):
        raise InvalidModel(f"{shown}, and --shape gives {len(wanted)} dimensions: {given}")
    for dim, old, number in zip(shape.dim, declared, wanted, strict=True):
        if isinstance(old, int) and old != number:
            raise InvalidModel(f"{shown}, and --shape wants {given}: only open dimensions can be fixed")
        if dim.dim_param and named.setdefault(dim.dim_param, number) != number:
            raise InvalidModel(f"{shown}, and --shape makes {dim.dim_param} both {named[dim.dim_param]} and {number}")
        if not isinstance(old, int) and not dim.dim_param:
            dim.dim_value = number


def _values(value: Input, rng: np.random.Generator) -> "np.ndarray[Any, np.dtype[Any]]":  # Any: see made_up
    shape = [d if isinstance(d, int) else 1 for d in value.dims or ()]
    numpy_type, below = EXTENTS[value.dtype]
    return (rng.integers(0, below, shape) if below else rng.random(shape)).astype(numpy_type)


def _example(value: Input) -> str:
    """The declared shape with likely numbers where it is open."""
    dims = value.dims or ("N", "C", "H", "W")
    likely = EXAMPLE[0] if len(dims) == 4 else EXAMPLE[1]
    numbers = [d if isinstance(d, int) else 1 if i == 0 else 3 if i == 1 and len(dims) == 4 else likely for i, d in enumerate(dims)]
    return ",".join(map(str, numbers))
