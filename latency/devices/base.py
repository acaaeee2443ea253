"""What every device can do, and what all of them need to read a model."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from latency.errors import Failed
from latency.measurement import DeviceInfo, Measurement
from latency.plan import TimingPlan

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Device", "Model", "model_bytes", "sha256", "time_each"]

Model: TypeAlias = "bytes | Path | ModelProto"


class Device(Protocol):
    """Something that runs ONNX models and says how long they took; it never retries silently."""

    def info(self) -> DeviceInfo:
        """What the device is; equal at every call."""
        ...

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        """One measurement for each model, in their order; the models take turns in rounds, so that slow changes hit all of them.

        Round i of one model ran beside round i of every other that was not done by then.

        Raises:
            Failed: a model cannot be loaded or run; ``model_index`` says which.
            Unreachable: the device is gone.
            DeviceError: the device was closed, or cannot follow the plan.
        """
        ...

    def close(self) -> None:
        """Let go of the device; closing twice is no error."""
        ...


def model_bytes(models: Sequence[Model]) -> tuple[bytes, ...]:
    """The serialized models, files read.

    Raises:
        Failed: a file cannot be read.
    """
    return tuple(_bytes(model, i) for i, model in enumerate(models))


def time_each(device: Device, models: Sequence[Model], plan: TimingPlan) -> list[Measurement | Failed]:
    """Each model's measurement, all in turns; one that the device cannot run is left out and the others begin again.

    Raises:
        DeviceError: the device itself fails, or is gone.
    """
    found: dict[int, Measurement | Failed] = {}
    while left := [i for i in range(len(models)) if i not in found]:
        try:
            found |= dict(zip(left, device.time([models[i] for i in left], plan), strict=True))
        except Failed as error:
            if error.model_index is None:
                raise
            found[left[error.model_index]] = error
    return [found[i] for i in range(len(models))]


def sha256(data: bytes) -> str:
    """SHA-256 of a serialized model in hex: what a measurement calls the model."""
    return hashlib.sha256(data).hexdigest()


def _bytes(model: Model, index: int) -> bytes:
    if isinstance(model, bytes):
        return model
    if isinstance(model, Path):
        try:
            return model.read_bytes()
        except OSError as error:
            raise Failed(f"cannot read the model {model}: {error.strerror}", model_index=index) from error
    return bytes(model.SerializeToString(deterministic=True))
