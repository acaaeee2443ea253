"""Scores and logits of a module, and logits of an ONNX graph to hold against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latency.ort import onnxruntime_module
from nas.calibration import Calibration, calibrate, fitted_temperature
from nas.errors import InvalidArchitecture
from nas.tasks.task import Split, SplitName, Task

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto

__all__ = ["Judged", "evaluate", "judge", "logits_of_onnx", "predict"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A network's score on a split, and its calibration there."""

    score: float
    calibration: Calibration


def judge(
    module: nn.Module, task: Task, split: SplitName, *, device: torch.device | str | None = None, temperature: float | None = None,
) -> Judged:  # fmt: skip
    """Score and calibration of ``module`` (in eval mode, fp32) from one pass over a split.

    ``temperature`` is one fitted on validation, to scale by; None fits it here, and scales by none.
    """
    part = task.load(split)
    logits = predict(module, part.x, task, device=device)
    found = calibrate(logits, part.y, temperature=temperature)
    if temperature is None:
        found = msgspec.structs.replace(found, temperature=fitted_temperature(logits, part.y))
    return Judged(score=task.score(logits, part.y), calibration=found)


def evaluate(
    module: nn.Module, task: Task, split: SplitName | Split, *, device: torch.device | str | None = None, batch: int = 256
) -> float:
    """The task's score of ``module`` (in eval mode, fp32) on a split; accuracy is a fraction of 0..1.

    ``device`` defaults to where the module is. Only ``split="test"`` reads test pixels.
    """
    part = task.load(split) if isinstance(split, str) else split
    return task.score(predict(module, part.x, task, device=device, batch=batch), part.y)


def predict(module: nn.Module, x: Tensor, task: Task, *, device: torch.device | str | None = None, batch: int = 256) -> Tensor:
    """Logits (N, K), float32 on the CPU, of raw images (N, C, H, W); the module's mode is put back afterwards."""
    target = torch.device(device) if device is not None else _device(module)
    normalise = task.normaliser(target)
    module.to(target)
    return _batched(module, x, normalise, target, batch)


@torch.no_grad()
def _batched(module: nn.Module, x: Tensor, normalise: Callable[[Tensor], Tensor], device: torch.device, batch: int) -> Tensor:
    was_training = module.training
    module.eval()
    try:
        parts = [module(normalise(part.to(device)).contiguous(memory_format=torch.channels_last)) for part in torch.split(x, batch)]
    finally:
        module.train(was_training)
    return torch.cat(parts).float().cpu()


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def logits_of_onnx(model: bytes | str | Path | ModelProto, x: NDArray[Any], *, threads: int = 1) -> NDArray[Any]:
    """Logits (N, K) of an ONNX graph run by ONNX Runtime on the CPU, for normalised inputs ``x`` (N, C, H, W) float32.

    A graph of fixed batch size is fed that many images at a time; N must then be a multiple of it.

    Raises:
        InvalidArchitecture: N is no multiple of the graph's batch.
    """
    ort = onnxruntime_module()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    source = model if isinstance(model, bytes) else str(model) if not hasattr(model, "SerializeToString") else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    size = entry.shape[0] if isinstance(entry.shape[0], int) else len(x)
    if len(x) % size:
        raise InvalidArchitecture(f"the graph takes {size} images at a time, and {len(x)} is no multiple of that")
    parts = [session.run(None, {entry.name: x[i : i + size].astype(np.float32, copy=False)})[0] for i in range(0, len(x), size)]
    return np.concatenate(parts)
