"""How much each channel matters: the L2 norm of its filters, or what the loss would feel of its going (Taylor).

Sources: Yang et al., "NetAdapt", ECCV 2018 (L2 norm of filters); Molchanov et al., "Importance Estimation for Neural Network
Pruning", CVPR 2019, equation 8 (first-order Taylor) on BatchNorm's scale and shift as the channel's gate, section 3.2.
"""

from collections.abc import Mapping, Sequence

import msgspec
import torch
from torch import Tensor, nn

from nas.recipe import Recipe
from nas.refinement.part import Part, parted
from nas.refinement.settings import KeepRule
from nas.tasks.task import Task

__all__ = ["Scores", "channel_scores", "l2_scores", "scores_of", "taylor_scores"]

BATCHES = 8

Scores = Mapping[str, Tensor]
"""For each parameter (B, C): what each of its C rows adds to its channel's score, in each of B batches (of L2 norms: one).

A channel that several tensors make sums their rows; the score is the mean over batches of the square of that sum."""


def scores_of(rule: KeepRule, network: nn.Module, task: Task, recipe: Recipe, part: Part) -> Scores:
    """The scores that a rule gives; data, where it wants any, is of the images that the part trains on."""
    if rule == "l2":
        return l2_scores(network)
    short, _ = parted(task, recipe, msgspec.structs.replace(part, steps=BATCHES))
    return taylor_scores(network, short, batch=recipe.batch)


def l2_scores(network: nn.Module) -> Scores:
    """The L2 norm of each filter of every convolution and linear layer; of parameters with one dimension nothing."""
    with torch.no_grad():
        return {key: p.detach().flatten(1).norm(dim=1)[None].cpu() for key, p in network.named_parameters() if p.ndim > 1}


def taylor_scores(network: nn.Module, task: Task, *, batch: int) -> Scores:
    """Parameter times gradient of the mean loss, summed over each row, for every batch of the task's training images.

    Evaluation mode, fp32, images as they are: running statistics are used and stay as they were. Batches are drawn, the same ones
    every time: data may lie class by class.
    """
    split, normalise = task.load("train"), task.normaliser()
    order = torch.randperm(len(split.y), generator=torch.Generator().manual_seed(0))
    named = dict(network.named_parameters())
    found: dict[str, list[Tensor]] = {key: [] for key in named}
    was_training = network.training
    network.eval()
    for drawn in torch.split(order, batch):
        x, y = split.x[drawn], split.y[drawn]
        loss = task.loss(network(normalise(x).contiguous(memory_format=torch.channels_last)), y)
        gradients = torch.autograd.grad(loss, list(named.values()))
        for (key, p), g in zip(named.items(), gradients, strict=True):
            found[key].append((p.detach() * g).reshape(len(p), -1).sum(1))
    network.train(was_training)
    return {key: torch.stack(rows) for key, rows in found.items()}


def channel_scores(network: nn.Module, axes: Mapping[str, Sequence[int]], scores: Scores) -> Tensor:
    """The scores (C,) of the channels that the ``axes`` of these tensors share, from what their makers' rows have.

    The makers are the layers with these channels as outputs: convolutions that a norm follows where there are any (an SE's gates
    and a depthwise filter only pass channels on), else layers with a bias. With a norm its scale and shift speak for the channel
    where they have scores, for a filter behind which a norm stands feels no scale of its own.
    """
    rows = [scores[key] for maker in _makers(network, axes) for key in _speakers(network, maker, scores)]
    return torch.stack(rows).sum(0).square().mean(0)


def _makers(network: nn.Module, axes: Mapping[str, Sequence[int]]) -> list[str]:
    found = [key.removesuffix(".weight") for key, dims in axes.items() if 0 in dims and key.endswith(".weight")]
    layers = {name: network.get_submodule(name) for name in found}
    own = {n: m for n, m in layers.items() if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1)}
    return [n for n, m in own.items() if m.bias is None] or list(own)


def _speakers(network: nn.Module, maker: str, scores: Scores) -> list[str]:
    """The parameters whose rows stand for a maker's channels."""
    norm = f"{maker.removesuffix('conv')}bn"
    names = [f"{norm}.weight", f"{norm}.bias"] if maker.endswith("conv") else [f"{maker}.weight", f"{maker}.bias"]
    return [name for name in names if name in scores] or [f"{maker}.weight"]
