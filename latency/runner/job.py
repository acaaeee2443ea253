"""The job a runner is given, and the result it leaves: bytes on both sides, checked by hash."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from latency.plan import TimingPlan

__all__ = ["Guard", "InvalidResult", "JobModel", "ModelResult", "Output", "RunnerResult", "decode", "encode", "limit_s"]

OPT_LEVELS = {"disabled": 0, "basic": 1, "extended": 2, "all": 99}
DTYPES = {"float": "float32", "double": "float64"}  # by ONNX Runtime's names, where numpy calls them something else
PLAN_LINES = (
    "provider", "threads", "warmup_runs", "block_runs", "min_rounds", "min_samples", "max_samples", "warmup_ms", "block_ms", "min_ms",
    "max_ms", "half_width",
)  # fmt: skip
LOAD_S, SLACK = 60, 10  # of each model: time to load it, and how much longer than planned it may take


class InvalidResult(ValueError):
    """A result is incomplete or damaged: what a lost connection and a full disk leave."""


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """What an anchor's time over its reference, three rounds in a row, leads to; those rounds do not count.

    Above ``slow`` the device is left to cool: for ``pause_ms`` at first, twice as long each time after, up to ``longest_pause_ms``.
    Above ``throttled``, or after so many ``pauses``, the job ends. Where the device shows temperatures, all this wants a sign of heat:
    ``hot_milli_c`` reached, a rise by ``rise_milli_c`` since the process began, or a lower frequency than before.
    """

    slow: float = 1.05
    throttled: float = 1.15
    pauses: int = 5
    pause_ms: float = 10_000.0
    longest_pause_ms: float = 120_000.0
    hot_milli_c: int = 45_000
    rise_milli_c: int = 5_000

    @property
    def longest_s(self) -> float:
        """Seconds that all pauses take together."""
        return sum(min(self.pause_ms * float(2**i), self.longest_pause_ms) for i in range(self.pauses)) / 1000


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
    """What came of one model; ``stage`` says in what it failed: load, input or run.

    ``round_medians_ns`` is all that is told of an anchor; ``anchor`` is the place of the one that is nearest in latency, -1: none.
    """

    load_ns: int
    warmup_ns: int
    first_run_ns: int = 0
    samples_ns: tuple[tuple[int, ...], ...] = ()
    cpu_ns: tuple[tuple[int, ...], ...] = ()
    round_medians_ns: tuple[int, ...] = ()
    stopped: Literal["", "converged", "max_ms", "max_samples", "throttled", "unused"] = ""
    anchor: int = -1
    outputs: tuple[Output, ...] = ()
    stage: Literal["", "load", "input", "run"] = ""
    problem: str = ""


class RunnerResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job; ``refused`` says what of it the device cannot follow, ``cpus`` are the cores that it allows.

    ``mhz`` is the frequency of the core in use and ``milli_c`` the hottest zone in 1/1000 °C, by round; 0 where they are not told.
    ``zones`` is the number of thermal zones that can be read, ``pauses`` and ``paused_ms`` what was spent on cooling.
    ``idle_kib`` is the process's resident memory before the first model was loaded, ``peak_kib`` the most that it had; 0: not told.
    """

    cpus: tuple[int, ...]
    timer_ns: int
    hwcap: tuple[int, int]
    runtime: str
    refused: Literal["", "cpus", "library", "provider"]
    problem: str
    mhz: tuple[int, ...] = ()
    milli_c: tuple[int, ...] = ()
    pauses: int = 0
    paused_ms: int = 0
    zones: int = 0
    idle_kib: int = 0
    peak_kib: int = 0
    models: tuple[ModelResult, ...]

    @property
    def models_bytes(self) -> int:
        """Memory that loading and running the models took at most, with what the runtime brings in to run any; 0: not told."""
        return max(0, self.peak_kib - self.idle_kib) * 1024 if self.idle_kib else 0


def encode(
    library: str,
    models: Sequence[JobModel],
    plan: TimingPlan,
    *,
    outputs: bool = False,
    references_ns: Sequence[int] = (),
    guard: Guard | None = None,
) -> bytes:
    """The job file: time these models in one process, or with ``outputs`` run each once and keep what came out.

    Args:
        library: absolute path of ONNX Runtime's library on the device.
        models: at most 1024; all of them are in the device's memory at once.
        plan: how they are timed.
        outputs: keep the outputs, take no time.
        references_ns: for each anchor, which the first models are, its median when the device was cool; 0: not known.
        guard: what to do where an anchor becomes slower than that; None: nothing.
    """
    lines = ["runner-job 1", f"library {library}", f"cpus {','.join(map(str, plan.cpus)) or '-'}", f"outputs {outputs:d}"]
    lines += [f"opt_level {OPT_LEVELS[plan.opt_level]}", *(f"{name} {getattr(plan, name)}" for name in PLAN_LINES)]
    lines += [f"anchors {len(references_ns)}", *(f"reference_{i}_ns {ns}" for i, ns in enumerate(references_ns))]
    if guard:
        lines += [f"{name} {getattr(guard, name)!r}" for name in guard.__struct_fields__]
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


def limit_s(plan: TimingPlan, models: int, guard: Guard | None = None) -> float:
    """Seconds after which a job with so many models is given up: far more than any device needs."""
    return LOAD_S + models * (LOAD_S + SLACK * (5 * plan.warmup_ms + plan.max_ms) / 1000) + (guard.longest_s if guard else 0)


def _array(output: Output, blob: bytes) -> np.ndarray:
    if output.type == "bfloat16":  # numpy has none: its upper half is what a float32 begins with
        bits = np.frombuffer(blob, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(output.shape)
    return np.frombuffer(blob, DTYPES.get(output.type, output.type)).reshape(output.shape)
