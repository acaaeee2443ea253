"""Short trainings on part of the training images, judged on another part of them: validation and test stay closed."""

from dataclasses import replace

import msgspec
import numpy as np

from nas.recipe import Recipe
from nas.tasks.dataset import Index, pick
from nas.tasks.task import Task

__all__ = ["Part", "parted"]

STREAM = 4  # of randomness, beside those of nas.tasks.dataset.Seeds
WARMUP_SHARE = 0.1


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of the training images is used: ``held_out`` of them, the same for one ``seed``, to score on; of the others as many as
    ``steps`` batches take, drawn by ``draw``, to train on: trainings with equal draws see the same images."""

    held_out: int
    steps: int
    seed: int
    draw: int = 0


def parted(task: Task, recipe: Recipe, part: Part) -> tuple[Task, Recipe]:
    """A task with the part's images for training and validation, and the recipe that trains on them for the part's steps.

    Where the steps go more than once over all the images that are not held out, their number is rounded down to whole, equal
    epochs. Mean and deviation stay those of all training images.
    """
    kept, held = _split(task, part)
    batch = min(recipe.batch, len(kept))
    epochs = -(-part.steps * batch // len(kept))
    count = max(part.steps // epochs, 1) * batch
    seen = np.random.default_rng((part.seed, STREAM, part.draw)).permutation(len(kept))[:count]
    short = msgspec.structs.replace(recipe, epochs=epochs, warmup_epochs=min(recipe.warmup_epochs, WARMUP_SHARE * epochs))
    return replace(task, train=task.train.at(kept[np.sort(seen)]), valid=task.train.at(held)), short


def _split(task: Task, part: Part) -> tuple[Index, Index]:
    held = pick(task.train.y, part.held_out, np.random.default_rng((part.seed, STREAM)))
    return np.setdiff1d(np.arange(len(task.train)), held), held
