"""What several tests of teaching share: a recipe without anything, a student of one layer, the batches that ``fit`` takes."""

import msgspec
import torch
from torch import Tensor, nn

from nas.distillation.lesson import LessonConfig
from nas.recipe import Recipe
from nas.tasks import Task

PLAIN = Recipe(
    epochs=2, batch=48, lr=0.05, weight_decay=0.01, warmup_epochs=0, flip=False, crop_pixels=0, ema_decay=0.0, clip_norm=0.0, amp="off",
    label_smoothing=0.0, momentum=0.0,
)  # fmt: skip


def student(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 3))


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def batches(task: Task, seed: int) -> list[tuple[Tensor, Tensor]]:
    """The normalised batches that ``fit`` takes without augmentation, written out."""
    split, generator, found = task.load("train"), torch.Generator().manual_seed(seed), []
    x = task.normaliser()(split.x)
    for _ in range(PLAIN.epochs):
        order = torch.randperm(len(x), generator=generator)
        found += [(x[i], split.y[i]) for i in torch.split(order, PLAIN.batch) if len(i) == PLAIN.batch]
    return found


def config(loss: str, **changed: object) -> LessonConfig:
    options: dict[str, dict[str, object]] = {"kd": {"temperature": 4.0}, "bdkd": {"nu": 2.0}, "uskd": {"mu": 0.01}}
    return msgspec.structs.replace(LessonConfig(loss=loss, options=options.get(loss, {})), **changed)  # type: ignore[arg-type]  # numbers
