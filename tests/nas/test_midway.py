"""Trainings that are broken off between two epochs and go on."""

from pathlib import Path

import msgspec
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from nas.midway import Keeper, Midway, Progress, Training, epochs_kept
from nas.recipe import Recipe
from nas.tasks import Task, open_task
from nas.train import Epoch, Fit, fit
from nas.weights import InvalidWeights, load, save
from tests.nas.tasks.samples import write_npz

pytestmark = pytest.mark.usefixtures("one_thread")
LONG = Recipe(epochs=5, batch=16, crop_pixels=1, dropout=0.3)
SEED = 7


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path_factory.mktemp('data') / 'a.npz', train=160)}")


def net(hidden_ch: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, hidden_ch, 3, 2, 1, bias=False), nn.BatchNorm2d(hidden_ch), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(hidden_ch, 3))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().cpu().clone() for name, t in module.state_dict().items()}


class BrokenOff(Exception):
    """What ends a training early."""


def fails(error: OSError) -> None:
    raise error


def always(path: Path) -> Keeper:
    """Keeps every epoch: its clock stands still."""
    return Keeper(path, on_unkept=fails, clock=lambda: 0.0)


def broken_off(module: nn.Module, task: Task, recipe: Recipe, keep: Path, *, at: int, device: str = "cpu") -> None:
    """Trains until epoch ``at`` is over but not kept yet."""

    def told(epoch: Epoch) -> None:
        if epoch.number == at:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        fit(module, task, recipe, seed=SEED, device=device, on_epoch=told, keeper=always(keep))


def gone_on(module: nn.Module, task: Task, recipe: Recipe, keep: Path, *, device: str = "cpu") -> tuple[Fit, list[int]]:
    """The training's end, and the epochs that it still had to do."""
    numbers: list[int] = []
    done = fit(module, task, recipe, seed=SEED, device=device, on_epoch=lambda epoch: numbers.append(epoch.number), keeper=always(keep))
    return done, numbers


def training(task: Task, recipe: Recipe = LONG, *, seed: int = SEED) -> Training:
    return Training.of(task, recipe, seed, torch.device("cpu"))


@pytest.mark.parametrize(
    "recipe",
    [
        LONG,
        msgspec.structs.replace(LONG, optimizer="adamw", lr=0.01, cutout_pixels=4),
        msgspec.structs.replace(LONG, momentum=0.0),
        msgspec.structs.replace(LONG, amp="bf16"),
    ],
)
def test_broken_off_training_ends_as_an_unbroken_one(task: Task, tmp_path: Path, recipe: Recipe) -> None:
    whole, last = net(), net()
    unbroken = fit(whole, task, recipe, seed=SEED, device="cpu", on_epoch=lambda epoch: None)
    broken_off(net(), task, recipe, tmp_path / "kept", at=3)
    done, numbers = gone_on(last, task, recipe, tmp_path / "kept")
    assert numbers == [3, 4, 5]
    assert (done.losses, done.scores, done.score, done.steps) == (unbroken.losses, unbroken.scores, unbroken.score, unbroken.steps)
    assert done.calibration == unbroken.calibration
    assert all(torch.equal(t, state(whole)[name]) for name, t in state(last).items())


def test_weights_after_several_breaks_are_those_of_an_unbroken_training(task: Task, tmp_path: Path) -> None:
    whole, last = net(), net()
    fit(whole, task, LONG, seed=SEED, device="cpu")
    broken_off(net(), task, LONG, tmp_path / "kept", at=2)
    broken_off(net(), task, LONG, tmp_path / "kept", at=3)
    gone_on(last, task, LONG, tmp_path / "kept")
    expected = state(whole)
    assert {name: torch.equal(t, expected[name]) for name, t in state(last).items()} == dict.fromkeys(expected, True)


def test_keeping_does_not_change_the_result(task: Task, tmp_path: Path) -> None:
    kept, plain = net(), net()
    fit(kept, task, LONG, seed=SEED, device="cpu", keeper=always(tmp_path / "kept"))
    fit(plain, task, LONG, seed=SEED, device="cpu")
    assert all(torch.equal(t, state(plain)[name]) for name, t in state(kept).items())


def test_finished_training_is_not_run_again(task: Task, tmp_path: Path) -> None:
    one = msgspec.structs.replace(LONG, epochs=1, warmup_epochs=0.5)
    first, again = net(), net()
    fit(first, task, one, seed=SEED, device="cpu", keeper=always(tmp_path / "kept"))
    done, numbers = gone_on(again, task, one, tmp_path / "kept")
    assert (numbers, done.epochs) == ([], 1)
    assert all(torch.equal(t, state(first)[name]) for name, t in state(again).items())


def test_file_tells_how_many_epochs_it_holds(task: Task, tmp_path: Path) -> None:
    assert epochs_kept(tmp_path / "kept", training(task)) == 0
    broken_off(net(), task, LONG, tmp_path / "kept", at=2)
    assert epochs_kept(tmp_path / "kept", training(task)) == 1


def test_training_with_another_seed_is_refused(task: Task, tmp_path: Path) -> None:
    broken_off(net(), task, LONG, tmp_path / "kept", at=2)
    with pytest.raises(InvalidWeights, match="with another seed"):
        epochs_kept(tmp_path / "kept", training(task, seed=8))


def test_training_with_another_recipe_is_refused_and_changes_nothing(task: Task, tmp_path: Path) -> None:
    broken_off(net(), task, LONG, tmp_path / "kept", at=2)
    module = net()
    before = state(module)
    with pytest.raises(InvalidWeights, match="with another recipe"):
        gone_on(module, task, msgspec.structs.replace(LONG, lr=0.05), tmp_path / "kept")
    assert all(torch.equal(t, before[name]) for name, t in state(module).items())


def test_training_of_another_network_is_refused_and_changes_nothing(task: Task, tmp_path: Path) -> None:
    broken_off(net(), task, LONG, tmp_path / "kept", at=2)
    module = net(16)
    before = state(module)
    with pytest.raises(InvalidWeights, match="of another network"):
        gone_on(module, task, LONG, tmp_path / "kept")
    assert all(torch.equal(t, before[name]) for name, t in state(module).items())


@pytest.mark.parametrize("content", [b"", b"nothing of this kind", bytes(1000)])
def test_damaged_file_is_refused(task: Task, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kept").write_bytes(content)
    with pytest.raises(InvalidWeights, match="no training to go on with"):
        gone_on(net(), task, LONG, tmp_path / "kept")


def test_file_that_was_cut_off_is_refused(task: Task, tmp_path: Path) -> None:
    broken_off(net(), task, LONG, tmp_path / "kept", at=2)
    whole = (tmp_path / "kept").read_bytes()
    (tmp_path / "kept").write_bytes(whole[:-10])
    with pytest.raises(InvalidWeights, match="no training to go on with"):
        epochs_kept(tmp_path / "kept", training(task))


def test_file_without_a_state_of_randomness_is_refused_and_changes_nothing(task: Task, tmp_path: Path) -> None:
    broken_off(net(), task, LONG, tmp_path / "kept", at=2)
    with safe_open(tmp_path / "kept", "pt") as file:
        notes = file.metadata()
    found = load(tmp_path / "kept")
    save({name: t for name, t in found.items() if name != "random/cpu"}, tmp_path / "kept", metadata=notes)
    module = net()
    before = state(module)
    with pytest.raises(InvalidWeights, match="of another network"):
        gone_on(module, task, LONG, tmp_path / "kept")
    assert all(torch.equal(t, before[name]) for name, t in state(module).items())


def midway_of(module: nn.Module, average: nn.Module) -> Midway:
    return Midway(module, average, torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9), torch.Generator())


def test_seconds_count_those_before_the_break(task: Task, tmp_path: Path) -> None:
    broken_off(net(), task, LONG, tmp_path / "kept", at=4)
    midway = midway_of(net(), net())
    progress = always(tmp_path / "kept").take_up(midway, training(task))
    midway.keep(tmp_path / "kept", training(task), msgspec.structs.replace(progress, seconds=1000.0, trained_seconds=500.0))
    done, _ = gone_on(net(), task, LONG, tmp_path / "kept")
    assert 1000.0 < done.seconds < 1100.0
    assert 5 * 160 / 600 < done.images_per_second < 5 * 160 / 500


def test_keeping_takes_two_percent_of_the_time(task: Task, tmp_path: Path) -> None:
    """The first writing takes 1 s of a clock that is read before and after, so it rests for 50 s."""
    now = iter([0.0, 1.0, 50.9, 51.0, 52.0])
    keeper, kept = Keeper(tmp_path / "kept", on_unkept=fails, clock=lambda: next(now)), []
    for epochs in (1, 2, 3):
        keeper.keep(midway_of(net(), net()), training(task), Progress(losses=(1.0,) * epochs))
        kept.append(epochs_kept(tmp_path / "kept", training(task)))
    assert kept == [1, 1, 3]


def test_file_that_cannot_be_written_is_told_of_once_and_the_training_comes_to_its_end(task: Task, tmp_path: Path) -> None:
    told: list[OSError] = []
    keeper = Keeper(tmp_path / "missing" / "kept", on_unkept=told.append)
    kept, plain = net(), net()
    fit(kept, task, LONG, seed=SEED, device="cpu", keeper=keeper)
    fit(plain, task, LONG, seed=SEED, device="cpu")
    assert [type(error) for error in told] == [FileNotFoundError]
    assert all(torch.equal(t, state(plain)[name]) for name, t in state(kept).items())


@pytest.mark.gpu
def test_broken_off_training_ends_as_an_unbroken_one_on_a_gpu(task: Task, tmp_path: Path) -> None:
    whole, last = net(), net()
    fit(whole, task, LONG, seed=SEED, device="cuda")
    broken_off(net(), task, LONG, tmp_path / "kept", at=2, device="cuda")
    gone_on(last, task, LONG, tmp_path / "kept", device="cuda")
    assert all(torch.equal(t, state(whole)[name]) for name, t in state(last).items())
