import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas.errors import Diverged
from nas.evaluate import evaluate, judge
from nas.recipe import Recipe
from nas.tasks import Task, open_task
from nas.tasks.dataset import Images
from nas.train import Epoch, fit, learning_rate, parameter_groups, precision
from tests.nas.tasks.samples import write_npz

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = Recipe(epochs=2, batch=16, crop_pixels=1)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path_factory.mktemp('data') / 'a.npz', train=160)}")


def net(seed: int = 0, *, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(8, 3))


def weights(module: nn.Module) -> Tensor:
    return torch.cat([t.flatten().double() for t in module.state_dict().values()])


def test_same_seed_gives_identical_weights(task: Task) -> None:
    one, two = net(dropout=0.3), net(dropout=0.3)
    fits = [fit(module, task, SHORT, seed=7, device="cpu") for module in (one, two)]
    assert torch.equal(weights(one), weights(two))
    assert fits[0].losses == fits[1].losses


def test_another_seed_gives_other_weights(task: Task) -> None:
    one, two = net(), net()
    fit(one, task, SHORT, seed=7, device="cpu")
    fit(two, task, SHORT, seed=8, device="cpu")
    assert not torch.equal(weights(one), weights(two))


def test_callers_random_state_is_left_as_it_was(task: Task) -> None:
    module = net()
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    fit(module, task, SHORT, seed=7, device="cpu")
    assert torch.equal(torch.rand(4), want)


def test_score_is_that_of_the_weights_left_in_the_module(task: Task) -> None:
    module = net()
    assert fit(module, task, SHORT, seed=0, device="cpu").score == evaluate(module, task, "valid")


def test_test_split_is_never_opened(task: Task) -> None:
    def forbidden() -> Images:
        raise AssertionError("test was opened")

    fit(net(), replace(task, test=forbidden), SHORT, seed=0, device="cpu", on_epoch=lambda _: None)


def test_every_epoch_is_reported_with_its_validation_score(task: Task) -> None:
    seen: list[Epoch] = []
    done = fit(net(), task, SHORT, seed=0, device="cpu", on_epoch=seen.append)
    assert [e.number for e in seen] == [1, 2]
    assert tuple(e.loss for e in seen) == done.losses
    assert tuple(e.score for e in seen) == done.scores
    assert done.score == done.scores[-1]


def test_reporting_does_not_change_the_result(task: Task) -> None:
    quiet, watched = net(dropout=0.3), net(dropout=0.3)
    fit(quiet, task, SHORT, seed=0, device="cpu")
    fit(watched, task, SHORT, seed=0, device="cpu", on_epoch=lambda _: None)
    assert torch.equal(weights(quiet), weights(watched))


def test_training_stops_where_the_report_says_so(task: Task) -> None:
    assert fit(net(), task, SHORT, seed=0, device="cpu", on_epoch=lambda e: e.number == 1).epochs == 1


def test_own_loss_replaces_the_tasks(task: Task) -> None:
    fitted = fit(net(), task, SHORT, seed=0, device="cpu", loss=lambda logits, _: (logits - 3).square().mean())
    assert fitted.losses[-1] < 9


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_plain_recipe_equals_a_hand_written_loop(task: Task, optimizer: str) -> None:
    """No augmentation, averaging or clipping: torch's own optimizer, scheduler and loss, step by step."""
    recipe = Recipe(
        epochs=2, batch=48, optimizer="sgd" if optimizer == "sgd" else "adamw", lr=0.05, weight_decay=0.01, warmup_epochs=0, flip=False,
        crop_pixels=0, ema_decay=0.0, clip_norm=0.0, amp="off",
    )  # fmt: skip
    ours, theirs = net(), net()
    fit(ours, task, recipe, seed=5, device="cpu")

    decayed, free = (group["params"] for group in parameter_groups(theirs, 0.01))
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}]
    built: dict[str, torch.optim.Optimizer] = {
        "sgd": torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
        "adamw": torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.999)),
    }
    split = task.load("train")
    x = (split.x / 255 - torch.tensor(task.mean).view(3, 1, 1)) / torch.tensor(task.std).view(3, 1, 1)
    steps = len(x) // 48
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(built[optimizer], T_max=2 * steps)
    generator = torch.Generator().manual_seed(5)
    theirs.train()
    for _ in range(2):
        order = torch.randperm(len(x), generator=generator)
        for i in range(steps):
            index = order[i * 48 : (i + 1) * 48]
            loss = nn.functional.cross_entropy(theirs(x[index]), split.y[index], label_smoothing=0.1)
            built[optimizer].zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            built[optimizer].step()
            schedule.step()
    # six steps of float32 in another memory layout; Adam's division by a small root enlarges rounding
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-3 if optimizer == "adamw" else 1e-5)


def test_average_follows_the_weights_by_its_ramp(task: Task) -> None:
    """One parameter under a constant gradient: its path and the average of the path are known by hand."""

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.value.expand(len(x), 3)

    recipe = Recipe(epochs=2, batch=16, lr=1.0, momentum=0.0, warmup_epochs=0, ema_decay=0.5, clip_norm=0.0, amp="off")
    module = Constant()
    done = fit(module, task, recipe, seed=0, device="cpu", loss=lambda logits, _: logits.mean())
    value = average = 0.0
    for step in range(done.steps):
        value -= 0.5 * (1 + math.cos(math.pi * step / done.steps))
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    assert float(module.value.detach()) == pytest.approx(average, rel=1e-5)


def test_rate_rises_linearly_then_falls_to_zero() -> None:
    rates = [learning_rate(Recipe(epochs=4, warmup_epochs=1, lr=0.4), step, 400) for step in range(401)]
    assert rates[:100] == pytest.approx([0.4 * (i + 1) / 100 for i in range(100)])
    assert rates[100] == 0.4
    assert rates[250] == pytest.approx(0.2)
    assert rates[400] == pytest.approx(0)


def test_weight_decay_spares_norms_and_biases() -> None:
    decayed, free = (group["params"] for group in parameter_groups(net(), 0.1))
    assert isinstance(decayed, list)
    assert isinstance(free, list)
    assert [tuple(p.shape) for p in decayed] == [(8, 3, 3, 3), (3, 8)]
    assert [tuple(p.shape) for p in free] == [(8,), (8,), (3,)]


def test_parameters_that_ask_for_no_gradient_stay_put(task: Task) -> None:
    module = net()
    frozen = module[0].requires_grad_(False).get_parameter("weight")
    before = frozen.detach().clone()
    fit(module, task, SHORT, seed=0, device="cpu")
    assert torch.equal(frozen, before)


def test_loss_that_is_not_a_number_stops_training_with_advice(task: Task) -> None:
    def broken(logits: Tensor, y: Tensor) -> Tensor:
        return logits.sum() * math.nan

    with pytest.raises(Diverged, match=r"step 1 of 18 .*loss is not finite; lower lr"):
        fit(net(), task, SHORT, seed=0, device="cpu", loss=broken)


def test_gradient_that_is_not_finite_is_found_by_the_weights_it_ruins(task: Task) -> None:
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.mean()

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            return torch.full((16, 3), math.nan)

    with pytest.raises(Diverged, match=r"not finite"):
        fit(net(), task, SHORT, seed=0, device="cpu", loss=lambda logits, _: Root.apply(logits))


def test_rate_far_too_high_is_reported_as_divergence(task: Task) -> None:
    recipe = Recipe(epochs=3, batch=16, lr=1e6, clip_norm=0.0, warmup_epochs=0)
    with pytest.raises(Diverged, match=r"diverged at step .*lr"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), task, recipe, seed=0, device="cpu")


def test_training_set_smaller_than_a_batch_is_one_batch(task: Task, tmp_path: Path) -> None:
    small = open_task("classify", f"npz:{write_npz(tmp_path / 'a.npz', train=30)}")
    assert fit(net(), small, Recipe(epochs=3, batch=64), seed=0, device="cpu").steps == 3


def test_bf16_is_used_when_asked_for(task: Task) -> None:
    seen: list[torch.dtype] = []
    module = net()
    module[0].register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    fit(module, task, Recipe(epochs=1, batch=16, amp="bf16", warmup_epochs=0), seed=0, device="cpu")
    # training steps in bf16, the scoring pass in fp32
    assert set(seen[:-1]) == {torch.bfloat16}
    assert seen[-1] == torch.float32


def test_bf16_is_off_when_told_so() -> None:
    assert precision(Recipe(amp="off"), torch.device("cpu")) == "fp32"


def test_every_cpu_trains_in_fp32_unless_told_otherwise() -> None:
    assert precision(Recipe(), torch.device("cpu")) == "fp32"


@pytest.mark.gpu
def test_same_seed_gives_identical_weights_on_a_gpu(task: Task) -> None:
    one, two = net(dropout=0.3), net(dropout=0.3)
    for module in (one, two):
        fit(module, task, SHORT, seed=7, device="cuda")
    assert torch.equal(weights(one).cpu(), weights(two).cpu())


@pytest.mark.parametrize("is_watched", [False, True])
def test_calibration_is_that_of_the_weights_left_in_the_module(task: Task, is_watched: bool) -> None:
    module = net()
    done = fit(module, task, SHORT, seed=0, device="cpu", on_epoch=(lambda _: None) if is_watched else None)
    assert done.calibration == judge(module, task, "valid").calibration
    assert done.terms == {}
