import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.models import Network, build
from nas.recipe import Recipe
from nas.refinement.importance import channel_scores, l2_scores, scores_of, taylor_scores
from nas.refinement.part import Part, parted
from nas.tasks import Task, open_task
from search_spaces import Architecture, Block, Head
from tests.nas.models.networks import randomise
from tests.nas.tasks.samples import write_npz

ARCH = Architecture(
    input_chw=(3, 16, 16),
    blocks=(
        Block(op="conv", in_ch=3, out_ch=16, stride=2),
        Block(op="mbconv", in_ch=16, hidden_ch=24, out_ch=16, skip="identity", se_ch=8, act="hswish"),
    ),
    head=Head(outputs=3, width_ch=16),
)
BATCH = 8


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    file = write_npz(tmp_path_factory.mktemp("importance") / "small.npz", train=40)
    return open_task("classify", f"npz:{file}")


@pytest.fixture
def network() -> Network:
    made = build(ARCH, generator=torch.Generator().manual_seed(0))
    randomise(made, ARCH.input_chw)
    return made.eval()


def gated(network: Network, task: Task, names: list[str]) -> Tensor:
    """The mean square over batches of the loss's gradient by a gate of 1 on each channel behind all of these layers."""
    split, squares = task.load("train"), []
    order = torch.randperm(len(split.y), generator=torch.Generator().manual_seed(0))
    for x, y in zip(torch.split(split.x[order], BATCH), torch.split(split.y[order], BATCH), strict=True):
        gate: Tensor | None = None

        def multiply(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            nonlocal gate
            gate = torch.ones(output.shape[1], requires_grad=True) if gate is None else gate
            return output * (gate.view(1, -1, 1, 1) if output.ndim == 4 else gate)

        hooks = [network.get_submodule(name).register_forward_hook(multiply) for name in names]
        loss = task.loss(network(task.normaliser()(x)), y)
        assert gate is not None
        (slope,) = torch.autograd.grad(loss, gate)
        squares.append(slope.square())
        for hook in hooks:
            hook.remove()
    return torch.stack(squares).mean(0)


@pytest.mark.parametrize(
    ("axes", "gates"),
    [
        (
            {"blocks.1.expand.conv.weight": (0,), "blocks.1.expand.bn.weight": (0,), "blocks.1.depthwise.conv.weight": (0,),
             "blocks.1.se.expand.weight": (0,), "blocks.1.project.conv.weight": (1,)},
            ["blocks.1.expand.bn"],
        ),
        (
            {"blocks.0.conv.conv.weight": (0,), "blocks.1.expand.conv.weight": (1,), "blocks.1.project.conv.weight": (0,)},
            ["blocks.0.conv.bn", "blocks.1.project.bn"],
        ),
        ({"blocks.1.se.reduce.weight": (0,), "blocks.1.se.expand.weight": (1,)}, ["blocks.1.se.reduce"]),
        ({"head.hidden.weight": (0,), "head.out.weight": (1,)}, ["head.hidden"]),
    ],
    ids=["expansion", "bottleneck", "se", "head"],
)  # fmt: skip
def test_taylor_score_is_what_a_gate_on_the_channel_would_feel(
    network: Network, task: Task, axes: dict[str, tuple[int, ...]], gates: list[str]
) -> None:
    found = channel_scores(network, axes, taylor_scores(network, task, batch=BATCH))
    expected = gated(network, task, gates)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))


def test_taylor_scores_leave_weights_gradients_statistics_and_mode_alone(network: Network, task: Task) -> None:
    network.train()
    before = {key: t.clone() for key, t in network.state_dict().items()}
    taylor_scores(network, task, batch=BATCH)
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert network.training


def test_l2_scores_are_the_norms_of_the_filters(network: Network) -> None:
    found = l2_scores(network)["blocks.0.conv.conv.weight"]
    filters = network.state_dict()["blocks.0.conv.conv.weight"].tolist()
    assert found[0].tolist() == pytest.approx([sum(w * w for plane in f for row in plane for w in row) ** 0.5 for f in filters])


def test_taylor_scores_use_images_that_are_trained_on_and_not_those_scored_on(network: Network, task: Task) -> None:
    part, recipe = Part(held_out=6, steps=2, seed=0, draw=1), Recipe(batch=BATCH)
    found = scores_of("taylor", network, task, recipe, part)
    small, _ = parted(task, recipe, Part(held_out=6, steps=8, seed=0, draw=1))
    assert torch.equal(found["head.out.bias"], taylor_scores(network, small, batch=BATCH)["head.out.bias"])
    assert found["head.out.bias"].shape == (len(small.train) // BATCH, 3)


def test_l2_rule_needs_no_data(network: Network, task: Task, tmp_path: Path) -> None:
    found = scores_of("l2", network, task, Recipe(), Part(held_out=6, steps=2, seed=0))
    assert found.keys() == l2_scores(network).keys()


def test_taylor_batches_have_several_classes_where_the_data_lie_class_by_class(network: Network, task: Task) -> None:
    order = np.argsort(task.train.y, kind="stable")
    lying = dataclasses.replace(task, train=task.train.at(order))
    seen = list[set[int]]()

    def noting(logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        seen.append(set(y.tolist()))
        return task.loss(logits, y, label_smoothing=label_smoothing)

    taylor_scores(network, dataclasses.replace(lying, loss=noting), batch=BATCH)
    assert all(len(classes) > 1 for classes in seen[:-1])  # the last batch may be of few images
