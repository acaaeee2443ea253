"""What a training loop is fed: whole batches in random order, augmented and normalised."""

import torch
from torch import Tensor

from nas.augment import cutout, gather
from nas.recipe import Recipe
from nas.tasks.task import Split, Task

__all__ = ["Feed"]


class Feed:
    """A task's training split on ``device``, served by a recipe: ``batch`` images at a time, ``epoch_steps`` times an epoch.

    A training set smaller than the recipe's batch is one batch; images beyond the last whole batch sit an epoch out.
    """

    def __init__(self, task: Task, recipe: Recipe, device: torch.device) -> None:
        split = task.load("train")
        self.recipe, self.data = recipe, Split(x=split.x.to(device), y=split.y.to(device))
        self.normalise = task.normaliser(device)
        self.flip = task.flip if recipe.flip == "auto" else recipe.flip
        self.batch = min(recipe.batch, len(split))
        self.epoch_steps = len(split) // self.batch

    def order(self, generator: torch.Generator) -> Tensor:
        """All positions (N,) in random order, for one epoch."""
        return torch.randperm(len(self.data), device=self.data.x.device, generator=generator)

    def images(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """The images (B, C, H, W) at positions ``index`` (B,), augmented and normalised."""
        recipe = self.recipe
        x = self.normalise(gather(self.data.x, index, crop_pixels=recipe.crop_pixels, flip=self.flip, generator=generator))
        return cutout(x, recipe.cutout_pixels, generator) if recipe.cutout_pixels else x
