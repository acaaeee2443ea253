"""Whether a device computes what this computer's ONNX Runtime computes: a fast wrong answer is no latency."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np

from latency.devices.base import Device, Model
from latency.devices.runner_device import RunnerDevice
from latency.errors import DeviceError, Failed
from latency.model_files import NamedModel
from latency.model_inputs import made_up
from latency.plan import TimingPlan

__all__ = ["Computes", "Parity", "check_outputs", "outputs_agree"]

# Of the largest value of an output. Other kernels of the same network stay under 2e-6; of int8, those that round otherwise are a
# step or two of 1/255 away.
TOLERANCES = {"fp32": 1e-4, "int8": 2e-2}

Array = np.ndarray[Any, np.dtype[Any]]  # Any: outputs are of several types and ranks


@runtime_checkable
class Computes(Protocol):
    """A device that also gives outputs."""

    def outputs(self, model: Model, inputs: Mapping[str, Array], plan: TimingPlan) -> Mapping[str, Array]:
        """What one run gives for these inputs, by name, with the plan's threads and optimisation level.

        Raises:
            DeviceError: the model cannot be run, or the device is gone.
        """
        ...


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """``unchecked``: there is nothing to compare; ``failed``: there is, and it could not be run. ``worst`` is the largest deviation
    over the largest value of its output; of whole numbers, the share that differs. ``peak_bytes`` is the memory that loading and
    running the model once took at most on the device; 0: not told.
    """

    status: Literal["equal", "different", "unchecked", "failed"]
    text: str
    worst: float | None = None
    peak_bytes: int = 0


def check_outputs(device: Device, model: NamedModel, plan: TimingPlan) -> Parity:
    """The model's outputs on the device beside those of this computer, on the same made-up inputs; it never raises."""
    if not isinstance(device, Computes):
        kind = device.info().kind
        return Parity(status="unchecked", text="local is this computer" if kind == "local" else f"{kind} gives none")
    feed, peak_bytes = made_up(model.inputs), 0
    try:
        if isinstance(device, RunnerDevice):
            ran = device.once(model.model, feed, plan)
            found, peak_bytes = ran.outputs, ran.peak_bytes
        else:
            found = dict(device.outputs(model.model, feed, plan))
        agreed = outputs_agree(found, _reference(model, feed, plan), tolerance=TOLERANCES[plan.precision])
    except DeviceError as error:
        agreed = Parity(status="failed", text=str(error))
    return msgspec.structs.replace(agreed, peak_bytes=peak_bytes)


def outputs_agree(
    found: Mapping[str, Array], expected: Mapping[str, Array], *, tolerance: float = TOLERANCES["fp32"]
) -> Parity:
    """How far the outputs lie from the expected ones, which decide on names, shapes and types."""
    worst, where = 0.0, ""
    for name, right in expected.items():
        if name not in found or found[name].shape != right.shape:
            shape = found[name].shape if name in found else "missing"
            return Parity(status="different", text=f"output {name!r} is {shape} and not {right.shape}")
        deviation = _deviation(found[name], right)
        if deviation >= worst:
            worst, where = deviation, name
    if worst <= tolerance:
        return Parity(status="equal", text=f"equal within {worst:.0e}" if worst else "identical", worst=worst)
    return Parity(status="different", text=f"output {where!r} is off by {worst:.1%}", worst=worst)


def _deviation(found: Array, expected: Array) -> float:
    if not expected.size:
        return 0.0
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(found != expected))
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return 1.0
    largest = float(np.abs(b[finite]).max(initial=0.0))
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0)) / (largest or 1.0)


def _reference(model: NamedModel, feed: Mapping[str, Array], plan: TimingPlan) -> dict[str, Array]:
    from latency.reference import open_session, reason

    session = open_session(model.model, msgspec.structs.replace(plan, provider="cpu"), name=model.name)
    try:
        values = session.run(None, dict(feed))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise Failed(f"ONNX Runtime on this computer cannot run {model.name}: {reason(error)}") from error
    return dict(zip((o.name for o in session.get_outputs()), map(np.asarray, values), strict=True))
