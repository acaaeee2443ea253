"""Models of 8-bit integers, made by ONNX Runtime's own tools: QDQ nodes, static ranges from samples of the inputs."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from latency.devices.base import sha256
from latency.model_files import NamedModel
from latency.model_inputs import InvalidModel, made_up
from latency.ort import onnxruntime_module
from latency.scratch import Scratch

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["as_int8", "quantize_int8"]

OLDEST_OPSET = 13  # the first whose QuantizeLinear has a scale for each channel
QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}

Sample = Mapping[str, np.ndarray[Any, np.dtype[Any]]]  # Any: of the inputs' types and ranks


def quantize_int8(model: bytes, samples: Sequence[Sample], *, label: str = "the model") -> bytes:
    """The model with weights of int8, a scale for each channel, and activations of uint8, in QDQ form; the same inputs and outputs.

    Operators that ONNX Runtime has no integer kernels for, such as HardSwish, stay in floating point.

    Args:
        model: a serialized float model of opset 13 or newer, with its weights inside.
        samples: at least one dict with a value for each input; activations get the ranges that they have on these, so that for
            anything but a latency they must be typical inputs, some hundred of them.
        label: how messages call the model.

    Raises:
        InvalidModel: it has integers already, is of an older opset, or ONNX Runtime cannot quantize it.
    """
    import onnx

    if not samples:
        raise InvalidModel(f"{label}: to find the ranges of its activations at least one sample of its inputs is needed")
    found = onnx.load_model_from_string(model)
    _require_float(found, label)
    with Scratch() as folder, _silent():
        prepared, made = folder / "prepared.onnx", folder / "int8.onnx"
        try:
            _quantize(found, prepared, made, samples)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            reason = " ".join(str(error).split()).split(" : ", 3)[-1].rstrip(".") or type(error).__name__
            raise InvalidModel(f"{label}: ONNX Runtime cannot make int8 of it: {reason}") from error
        return made.read_bytes()


def as_int8(model: NamedModel) -> NamedModel:
    """The model quantized for a latency: the ranges of its activations are those on made-up inputs, and its outputs worth nothing.

    Raises:
        InvalidModel: see ``quantize_int8``.
    """
    data = quantize_int8(model.read(), [made_up(model.inputs)], label=model.name)
    return msgspec.structs.replace(
        model, name=f"{model.name} int8", source=f"{model.source}, made int8", model=data, sha256=sha256(data), size_bytes=len(data)
    )


def _require_float(model: "ModelProto", label: str) -> None:
    integers = sorted({node.op_type for node in model.graph.node} & QUANTIZED)
    if integers:
        raise InvalidModel(f"{label} is quantized already (it has {integers[0]}): leave --precision out")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        raise InvalidModel(f"{label} is of opset {opset}, and int8 needs {OLDEST_OPSET} or newer: export it again with a newer one")


def _quantize(model: "ModelProto", prepared: Path, made: Path, samples: Sequence[Sample]) -> None:
    onnxruntime_module()  # before its parts: without telemetry
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._rest = iter(samples)

        def get_next(self) -> dict[str, Any] | None:  # Any: see Sample
            sample = next(self._rest, None)
            return None if sample is None else dict(sample)

    # Folds BatchNorm, which would stay in floating point.
    quant_pre_process(model, str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared), str(made), Reader(), per_channel=True, activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the tools' advice, which goes to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
