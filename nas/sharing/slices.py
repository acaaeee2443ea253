"""Gradients and optimizer steps for parts of tensors: what no sub-network used stays as it is, momentum and decay included."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.recipe import Recipe
from nas.sharing.bank import part

__all__ = ["Gradient", "SliceOptimizer", "clip", "merged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradient:
    """A gradient for the part of a tensor that has ``value``'s shape; ``mask`` (bool) leaves out what nobody used, None: nothing."""

    value: Tensor
    mask: Tensor | None = None


@torch.no_grad()
def merged(found: Sequence[Tensor]) -> Gradient:
    """The sum of gradients for parts (of one tensor) divided by their number, over the smallest part that holds them all.

    The mean, not the sum, so that a rate means what it means for a network trained alone, however many networks share a tensor.
    """
    if len(found) == 1:
        return Gradient(value=found[0])
    shape = [max(sizes) for sizes in zip(*(g.shape for g in found), strict=True)]
    value = found[0].new_zeros(shape)
    for g in found:
        part(value, g.shape).add_(g, alpha=1 / len(found))
    if any(list(g.shape) == shape for g in found):
        return Gradient(value=value)
    mask = torch.zeros(shape, dtype=torch.bool, device=value.device)
    for g in found:
        part(mask, g.shape).fill_(True)
    return Gradient(value=value, mask=mask)


@torch.no_grad()
def clip(gradients: Iterable[Gradient], norm: float) -> None:
    """Scales gradients in place where the norm of all of them together is above ``norm``."""
    values = [gradient.value for gradient in gradients]
    total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(values)))
    torch._foreach_mul_(values, (norm / (total + 1e-6)).clamp(max=1.0))


Step = Callable[[Sequence[Tensor], Tensor, Recipe, float, float], tuple[Tensor, ...]]


def _sgd(parts: Sequence[Tensor], g: Tensor, recipe: Recipe, lr: float, decay: float) -> tuple[Tensor, ...]:
    """Nesterov's, as ``torch.optim.SGD`` does it."""
    p, momentum = parts
    d = g.add(p, alpha=decay) if decay else g
    momentum = momentum.mul(recipe.momentum).add_(d)
    return p.sub(d.add(momentum, alpha=recipe.momentum), alpha=lr), momentum


def _adamw(parts: Sequence[Tensor], g: Tensor, recipe: Recipe, lr: float, decay: float) -> tuple[Tensor, ...]:
    """As ``torch.optim.AdamW``, each element's bias corrected by the number of its own steps."""
    p, mean, square, steps = parts
    steps = steps + 1
    mean = mean.lerp(g, 1 - recipe.momentum)
    square = square.mul(BETA2).addcmul_(g, g, value=1 - BETA2)
    scale = square.div(_gone(BETA2, steps)).sqrt_().add_(1e-8)
    return p.mul(1 - lr * decay).sub_(mean.div(_gone(recipe.momentum, steps)).div_(scale), alpha=lr), mean, square, steps


def _gone(beta: float, steps: Tensor) -> Tensor:
    """1 - beta^steps, exact to float32 near 0 too."""
    return torch.expm1(steps * math.log(beta)).neg_() if beta else torch.ones_like(steps)


BETA2 = 0.999
STEPS: Mapping[str, tuple[Step, tuple[str, ...]]] = {"sgd": (_sgd, ("momentum",)), "adamw": (_adamw, ("mean", "square", "steps"))}


class SliceOptimizer:
    """SGD or AdamW, as a recipe says, over a bank; its ``moments`` are as large as the bank and move only where a gradient says so."""

    def __init__(self, bank: Mapping[str, Tensor], recipe: Recipe) -> None:
        self.recipe = recipe
        self._rule, kinds = STEPS[recipe.optimizer]
        self.moments = {kind: {name: torch.zeros_like(t) for name, t in bank.items()} for kind in kinds}

    @torch.no_grad()
    def step(self, bank: Mapping[str, Tensor], gradients: Mapping[str, Gradient], lr: float) -> None:
        """Moves the bank's tensors in place; those of fewer than two dimensions without weight decay."""
        for name, gradient in gradients.items():
            whole = (bank[name], *(moment[name] for moment in self.moments.values()))
            parts = [part(tensor, gradient.value.shape) for tensor in whole]
            decay = self.recipe.weight_decay if bank[name].ndim > 1 else 0.0
            for old, new in zip(parts, self._rule(parts, gradient.value, self.recipe, lr, decay), strict=True):
                old.copy_(new if gradient.mask is None else torch.where(gradient.mask, new, old))
