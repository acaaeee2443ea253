"""Image classification: cross entropy with label smoothing, scored by top-1 accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.tasks.dataset import Dataset, channel_stats, digest
from nas.tasks.task import Task
from search_spaces.architecture import Head

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["accuracy", "cross_entropy", "task"]


def task(data: Dataset, *, spec: str) -> Task:
    """The task of naming an image's class among ``data.classes``."""
    height, width, channels = data.train.x.shape[1:]
    mean, std = ((0.0,) * channels, (1.0,) * channels) if data.normalised else channel_stats(data.train)
    return Task(
        name="classify", data=spec, classes=data.classes, input_chw=(channels, height, width), head=Head(outputs=len(data.classes)),
        mean=mean, std=std, preprocess=data.preprocess, flip=data.flip, notes=data.notes, data_sha256=digest(data),
        train=data.train, valid=data.valid, test=data.test, loss=cross_entropy, score=accuracy,
    )  # fmt: skip


def cross_entropy(logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy in nats of logits (N, K) against labels (N,)."""
    from torch.nn import functional as F

    return F.cross_entropy(logits, y, label_smoothing=label_smoothing)


def accuracy(logits: Tensor, y: Tensor) -> float:
    """The fraction (0..1) of images whose largest logit is their label's."""
    return float((logits.argmax(1) == y).double().mean())
