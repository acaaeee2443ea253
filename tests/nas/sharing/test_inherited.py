"""Scores by inheritance: recalibration against statistics taken layer by layer, and what must stay fixed."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas.evaluate import evaluate
from nas.recipe import Recipe
from nas.sharing.bank import inherit, new_bank
from nas.sharing.inherited import VALID_IMAGES, calibrate, calibration_images, inherited_score, kept_bank
from nas.supernet import train_bank
from nas.tasks import Task, open_task
from nas.tasks.dataset import Images
from nas.weights import InvalidWeights
from search_spaces import SearchSpace, open_space
from tests.nas.banks import inputs, plan, trained
from tests.nas.models.networks import images, menu, network
from tests.nas.tasks.samples import pixels, write_npz


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Flatten())


@torch.no_grad()
def test_each_norm_gets_the_statistics_of_what_reaches_it() -> None:
    module, x = two_layers(), images((3, 9, 9), count=32)
    calibrate(module, x, batch=32)
    first, second = module[1], module[4]
    assert isinstance(first, nn.BatchNorm2d)
    assert isinstance(second, nn.BatchNorm2d)
    a = module[0](x)
    torch.testing.assert_close(first.running_mean, a.mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, a.var((0, 2, 3)))
    normal = (a - a.mean((0, 2, 3), keepdim=True)) / (a.var((0, 2, 3), keepdim=True, correction=0) + first.eps).sqrt()
    b = module[3](normal.relu())
    torch.testing.assert_close(second.running_mean, b.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second.running_var, b.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_statistics_of_equal_batches_are_averaged() -> None:
    module, x = two_layers(), images((3, 9, 9), count=30)
    calibrate(module, x, batch=16)
    norm, halves = module[1], [module[0](half) for half in x.chunk(2)]
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, sum(h.mean((0, 2, 3)) for h in halves) / 2)
    torch.testing.assert_close(norm.running_var, sum(h.var((0, 2, 3)) for h in halves) / 2)


def test_calibrating_forgets_what_was_there_and_changes_no_weight() -> None:
    one, two = two_layers(), two_layers()
    calibrate(one, images((3, 9, 9), count=8, seed=5))
    weights = [p.detach().clone() for p in one.parameters()]
    for module in (one, two):
        calibrate(module, images((3, 9, 9), count=8, seed=6))
    assert all(torch.equal(one.state_dict()[key], two.state_dict()[key]) for key in one.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights, one.parameters(), strict=True))
    assert not any(m.training for m in one.modules())
    assert one[1].momentum == 0.1


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchSpace, Task, Path]:
    folder = tmp_path_factory.mktemp("bank")
    space, task = inputs(folder)
    trained(space, task, folder / "bank", plan(epochs=6))
    return space, task, folder / "bank"


def test_score_is_that_of_an_inherited_calibrated_network_on_valid(given: tuple[SearchSpace, Task, Path]) -> None:
    """Fewer validation images than the cap: all of them count."""
    space, task, path = given
    bank, arch = kept_bank(str(path), "cpu"), space.decode(space.corners()[1], task.head)
    network = inherit(bank, arch)
    calibrate(network, task.normaliser()(task.load("train").x))
    # scored by ONNX Runtime on one side, by torch on the other
    assert inherited_score(bank, arch, task) == evaluate(network, task, "valid")


def test_score_is_the_same_at_every_call(given: tuple[SearchSpace, Task, Path]) -> None:
    space, task, path = given
    arch = space.decode(space.sample(np.random.default_rng(1)), task.head)
    assert inherited_score(kept_bank(str(path), "cpu"), arch, task) == inherited_score(kept_bank(str(path), "cpu"), arch, task)


def test_test_split_is_not_opened(given: tuple[SearchSpace, Task, Path]) -> None:
    def forbidden() -> Images:
        raise AssertionError("test was opened")

    space, task, path = given
    inherited_score(kept_bank(str(path), "cpu"), space.decode(space.corners()[0], task.head), replace(task, test=forbidden))


def test_at_most_a_thousand_validation_images_are_scored(tmp_path: Path) -> None:
    x, y = pixels(1200)
    task = replace(open_task("classify", f"npz:{write_npz(tmp_path / 'a.npz')}"), valid=Images(x=x, y=y))
    space, seen = open_space("tiny", input_chw=task.input_chw), list[int]()
    bank = new_bank(space, task.head, generator=torch.Generator().manual_seed(0))

    def counted(logits: torch.Tensor, y: torch.Tensor) -> float:
        seen.append(len(y))
        return 0.5

    assert inherited_score(bank, space.decode(space.corners()[0], task.head), replace(task, score=counted)) == 0.5
    assert seen == [VALID_IMAGES]


def test_calibration_images_are_normalised_and_of_every_class(given: tuple[SearchSpace, Task, Path]) -> None:
    _, task, _ = given
    x = calibration_images(task, 30)
    assert x.shape == (30, 3, 16, 16)
    assert torch.equal(x, calibration_images(task, 30))
    every = task.normaliser()(task.load("train").x)
    found = {int(task.train.y[i]) for image in x for i in range(len(every)) if torch.equal(every[i], image)}
    assert found == {0, 1, 2}


def test_half_trained_bank_scores_nothing(given: tuple[SearchSpace, Task, Path], tmp_path: Path) -> None:
    space, task, _ = given
    trained(space, task, tmp_path / "bank", until=3)
    with pytest.raises(InvalidWeights, match="trained for 3 of 10 steps"):
        kept_bank(str(tmp_path / "bank"), "cpu")


@pytest.mark.parametrize("name", ["mbconv-se-hsigmoid-hswish", "conv-pool-9-s2"])
def test_any_network_can_be_calibrated(name: str) -> None:
    module, x = network(menu()[name]), images(menu()[name].input_chw, count=16)
    calibrate(module, x)
    with torch.no_grad():
        assert math.isfinite(float(module(x).sum()))


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_score_on_a_gpu_is_that_of_the_cpu_but_for_rounding(tmp_path: Path, amp: str) -> None:
    space, task = inputs(tmp_path)
    bank = new_bank(space, task.head, generator=torch.Generator().manual_seed(0))
    arch = space.decode(space.corners()[1], task.head)
    recipe = Recipe(amp=amp)  # type: ignore[arg-type]  # the test's own literals
    on_gpu = inherited_score({name: t.cuda() for name, t in bank.items()}, arch, task, recipe)
    images = min(VALID_IMAGES, len(task.valid))
    assert abs(on_gpu - inherited_score(bank, arch, task)) <= (2 if amp == "off" else 0.1 * images) / images


@pytest.mark.gpu
def test_bank_trains_in_bf16_on_a_gpu_and_its_scores_share_it(tmp_path: Path) -> None:
    space, task = inputs(tmp_path)
    fit = train_bank(space, task, plan(amp="bf16", epochs=4), seed=0, path=tmp_path / "bank", device="cuda")
    assert (fit.device, fit.precision) == ("cuda", "bf16")
    assert math.isfinite(fit.losses[-1])
    bank = kept_bank(str(tmp_path / "bank"), "cuda")
    archs = [space.decode(picks, task.head) for picks in space.corners()]
    with ThreadPoolExecutor(2) as pool:  # several evaluators at once
        found = list(pool.map(lambda arch: inherited_score(bank, arch, task, Recipe(amp="bf16")), archs))
    assert found == [inherited_score(bank, arch, task, Recipe(amp="bf16")) for arch in archs]
