"""The job a runner is given, and the result it leaves: bytes on both sides, checked by hash."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from latency.plan import TimingPlan

__all__ = ["InvalidResult", "JobModel", "ModelResult", "Output", "RunnerResult", "decode", "encode", "limit_s"]

OPT_LEVELS = {"disabled": 0, "basic": 1, "extended": 2, "all": 99}
DTYPES = {"float": "float32", "double": "float64"}  # by ONNX Runtime's names, where numpy calls them something else
PLAN_LINES = (
    "threads", "warmup_runs", "block_runs", "min_rounds", "min_samples", "max_samples", "warmup_ms", "block_ms", "min_ms", "max_ms",
    "half_width",
)  # fmt: skip
LOAD_S, SLACK = 60, 10  # of each model: time to load it, and how much longer than planned it may take


class InvalidResult(ValueError):
    """A result is incomplete or damaged: what a lost connection and a full disk leave."""


class JobModel(msgspec.Struct, frozen=True, kw_only=True):
    """A serialized model, and values for all of its inputs by name; without any, the runner makes them up."""

    data: bytes
    inputs: Mapping[str, np.ndarray] = {}


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """An output of a model; its values are the next ``bytes`` bytes behind the result's first line."""

    name: str
    type: str
    bytes: int
    shape: tuple[int, ...]


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one model; ``stage`` says in what it failed: load, input or run."""

    load_ns: int
    warmup_ns: int
    samples_ns: tuple[tuple[int, ...], ...]
    cpu_ns: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[Output, ...] = ()
    stage: Literal["", "load", "input", "run"] = ""
    problem: str = ""


class RunnerResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job; ``refused`` says what of it the device cannot follow, ``cpus`` are the cores that it allows."""

    cpus: tuple[int, ...]
    timer_ns: int
    hwcap: tuple[int, int]
    runtime: str
    refused: Literal["", "cpus", "library"]
    problem: str
    models: tuple[ModelResult, ...]


def encode(library: str, models: Sequence[JobModel], plan: TimingPlan, *, outputs: bool = False) -> bytes:
    """The job file: time these models, or with ``outputs`` run each once and keep what came out.

    Args:
        library: absolute path of ONNX Runtime's library on the device.
        models: at most 1024; all of them are in the device's memory at once.
        plan: how they are timed.
        outputs: keep the outputs, take no time.
    """
    lines = ["runner-job 1", f"library {library}", f"cpus {','.join(map(str, plan.cpus)) or '-'}", f"outputs {outputs:d}"]
    lines += [f"opt_level {OPT_LEVELS[plan.opt_level]}", *(f"{name} {getattr(plan, name)!r}" for name in PLAN_LINES)]
    blobs = []
    for model in models:
        lines.append(f"model {len(model.data)}")
        blobs.append(model.data)
        for name, value in model.inputs.items():
            values = np.ascontiguousarray(value).tobytes()
            lines.append(f"input {len(values)} {name}")
            blobs.append(values)
    return "\n".join([*lines, "data\n"]).encode() + b"".join(blobs)


def decode(data: bytes) -> tuple[RunnerResult, list[dict[str, np.ndarray]]]:
    """The result, and the outputs of each model by name.

    Raises:
        InvalidResult: it is not whole; the text says in what.
    """
    text, end, checksum = data.rpartition(b"\nend ")
    if not end or not checksum.endswith(b"\n"):
        raise InvalidResult(f"the result has no end after {len(data)} bytes")
    if hashlib.sha256(text).hexdigest() != checksum.strip().decode(errors="replace"):
        raise InvalidResult("the result's checksum is wrong")
    line, _, blob = text.partition(b"\n")
    try:
        result = msgspec.json.decode(line.decode(errors="replace"), type=RunnerResult)
    except msgspec.DecodeError as error:
        raise InvalidResult(f"the result has another form: {error}") from error
    outputs: list[dict[str, np.ndarray]] = []
    at = 0
    for model in result.models:
        outputs.append({})
        for output in model.outputs:
            outputs[-1][output.name] = _array(output, blob[at : at + output.bytes])
            at += output.bytes
    return result, outputs


def limit_s(plan: TimingPlan, models: int) -> float:
    """Seconds after which a job with so many models is given up: far more than any device needs."""
    return LOAD_S + models * (LOAD_S + SLACK * (5 * plan.warmup_ms + plan.max_ms) / 1000)


def _array(output: Output, blob: bytes) -> np.ndarray:
    if output.type == "bfloat16":  # numpy has none: its upper half is what a float32 begins with
        bits = np.frombuffer(blob, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(output.shape)
    return np.frombuffer(blob, DTYPES.get(output.type, output.type)).reshape(output.shape)
