"""Training a bank: a hand-written loop, what must not move, and what a kill must not change."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.errors import Diverged, RunConflict
from nas.models import build
from nas.sharing.bank import inherit, new_bank, parameters
from nas.sharing.bank_file import load_bank
from nas.sharing.inherited import inherited_score
from nas.sharing.sandwich import Sandwich
from nas.supernet import BankTraining, train_bank
from nas.tasks import Task
from nas.tasks.dataset import Images
from nas.weights import InvalidWeights
from search_spaces import Head, SearchSpace
from tests.nas.banks import PLAN, inputs, plan, trained
from tests.nas.sharing.test_bank import named, within
from tests.nas.small import ROOT, kill_at

ONE_NETWORK = """
[stem]
out_ch = 8
kernel = 3

[[stages]]
name = "a"
out_ch = 8
stride = 2
op = "mbconv3"
se = 0.5
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchSpace, Task]:
    return inputs(tmp_path_factory.mktemp("inputs"))


def contents(path: Path) -> dict[str, Tensor]:
    _, _, groups = load_bank(path)
    return {f"{group}/{name}": t for group, bank in groups.items() for name, t in bank.items()}


def assert_same_bank(one: Path, two: Path) -> None:
    ours, theirs = contents(one), contents(two)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert load_bank(one)[:2] == load_bank(two)[:2]


def drawn_from(*numbers: int) -> int:
    """The seed that stands for a seed, a stream and a step."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_bank_of_a_single_network_trains_as_a_hand_written_loop_does(tmp_path: Path, optimizer: str) -> None:
    """One batch an epoch, nothing random: torch's own optimizer, scheduler and loss."""
    space, task = inputs(tmp_path, ONE_NETWORK)
    images = len(task.train)
    still = plan(
        epochs=4, batch=images, optimizer=optimizer, lr=0.01, weight_decay=0.01, warmup_epochs=0.0, flip=False, crop_pixels=0,
        ema_decay=0.0, clip_norm=0.0, amp="off",
    )  # fmt: skip
    first = new_bank(space, task.head, generator=torch.Generator().manual_seed(drawn_from(7, 0, 0)))
    trained(space, task, tmp_path / "bank", still, seed=7)

    arch = space.decode({}, task.head)
    theirs = inherit(first, arch).train()
    split = task.load("train")
    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0}]
    built: dict[str, torch.optim.Optimizer] = {
        "sgd": torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True),
        "adamw": torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999)),
    }
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(built[optimizer], T_max=4)
    x = (split.x / 255 - torch.tensor(task.mean).view(3, 1, 1)) / torch.tensor(task.std).view(3, 1, 1)
    losses = []
    for epoch in range(4):
        order = torch.randperm(images, generator=torch.Generator().manual_seed(drawn_from(7, 1, epoch)))
        loss = nn.functional.cross_entropy(theirs(x[order]), split.y[order], label_smoothing=0.1)
        built[optimizer].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        built[optimizer].step()
        schedule.step()
        losses.append(float(loss.detach()))

    _, notes, groups_there = load_bank(tmp_path / "bank")
    assert notes.losses == pytest.approx(losses, rel=1e-3)
    state, names = theirs.state_dict(), {key: name for key, name in named(arch).items() if name in parameters(first)}
    ours = torch.cat([groups_there["live"][name].flatten() for name in names.values()])
    hand = torch.cat([state[key].flatten() for key in names])
    # Adam divides by a small root: where a gradient is all but 0, rounding decides the direction of a step
    off = ((ours - hand).abs() > 1e-4).float().mean()
    assert off <= (0.02 if optimizer == "adamw" else 0.0)
    assert all(torch.equal(groups_there["average"][name], groups_there["live"][name]) for name in names.values())


@pytest.mark.parametrize(
    ("teacher", "sampling"),
    [("labels", "widening"), ("largest", "widening"), ("labels", "sandwich"), ("largest", "sandwich"), ("average", "sandwich")],
)
def test_networks_of_a_step_at_once_give_the_same_bank(
    given: tuple[SearchSpace, Task], tmp_path: Path, teacher: str, sampling: str
) -> None:
    wanted = plan(randoms=3, teacher=teacher, sampling=sampling)
    for workers in (1, 3):
        train_bank(*given, wanted, seed=0, path=tmp_path / f"{workers}", device="cpu", workers=workers)
    assert_same_bank(tmp_path / "1", tmp_path / "3")


def test_networks_that_none_can_teach_learn_from_labels(given: tuple[SearchSpace, Task]) -> None:
    def stepped(teacher: str, *, teaches: bool) -> dict[str, Tensor]:
        training = BankTraining(*given, plan(teacher=teacher), 0, torch.device("cpu"))
        archs = [given[0].decode(picks, given[1].head) for picks in reversed(given[0].corners())]
        training.train(torch.arange(16), archs, teaches=teaches)
        return training.live

    labels = stepped("labels", teaches=True)
    assert all(torch.equal(t, labels[name]) for name, t in stepped("largest", teaches=False).items())
    assert not all(torch.equal(t, labels[name]) for name, t in stepped("largest", teaches=True).items())


def used_by(space: SearchSpace, head: Head, picked: list[Mapping[str, str | int | float]], live: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name in the bank → mask of what networks with these picks use."""
    masks = {name: torch.zeros_like(t, dtype=torch.bool) for name, t in live.items()}
    for picks in picked:
        arch = space.decode(picks, head)
        state = build(arch, device="meta").state_dict()
        for key, name in named(arch).items():
            within(masks[name], state[key]).fill_(True)
    return masks


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_step_moves_nothing_that_its_networks_do_not_use(tmp_path: Path, optimizer: str) -> None:
    space, task = inputs(tmp_path)
    moving = plan(optimizer=optimizer, randoms=0, weight_decay=0.1, warmup_epochs=0.0)
    trained(space, task, tmp_path / "five", moving, until=5)
    trained(space, task, tmp_path / "six", moving, until=6)
    _, notes, before = load_bank(tmp_path / "five")
    _, _, after = load_bank(tmp_path / "six")
    picked = Sandwich.of(space, 0).picks(notes.usage, np.random.default_rng((0, 3, 5)))
    used = used_by(space, task.head, picked, before["live"])
    names = [name for name in parameters(before["live"]) if not used[name].all()]
    assert names
    for group in before.keys() - {"average"}:
        for name in names:
            assert torch.equal(after[group][name][~used[name]], before[group][name][~used[name]])
    moved = {name for name in parameters(before["live"]) if not torch.equal(after["live"][name], before["live"][name])}
    assert {"stem.conv.conv.conv.weight", "head.out.weight", "last.conv.conv.conv.weight"} <= moved


def test_every_size_of_network_learns(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    space, task = given
    fit = trained(space, task, tmp_path / "bank", plan(epochs=10, randoms=2, lr=0.2))
    assert fit is not None
    assert fit.losses[-1] < 0.7 * fit.losses[0]
    average = load_bank(tmp_path / "bank")[2]["average"]
    rng = np.random.default_rng(0)
    ends, others = space.corners(), [space.sample(rng) for _ in range(6)]
    scores = [inherited_score(average, space.decode(picks, task.head), task) for picks in (*ends, *others)]
    # three colours in equal parts: guessing gives a third
    assert min(scores[:2]) > 0.6
    assert np.median(scores[2:]) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["average", "labels"])
def test_other_teachers_teach_too(given: tuple[SearchSpace, Task], tmp_path: Path, teacher: str) -> None:
    space, task = given
    fit = trained(space, task, tmp_path / "bank", plan(epochs=10, teacher=teacher, lr=0.2))
    assert fit is not None
    smallest = space.decode(space.corners()[0], task.head)
    assert inherited_score(load_bank(tmp_path / "bank")[2]["average"], smallest, task) > 0.6


def test_teachers_differ_in_what_the_smaller_networks_learn(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    space, task = given
    for teacher in ("largest", "average", "labels"):
        trained(space, task, tmp_path / teacher, plan(teacher=teacher), until=3)
    weights = [contents(tmp_path / teacher)["live/head.out.weight"] for teacher in ("largest", "average", "labels")]
    assert not any(torch.equal(one, two) for one, two in ((weights[0], weights[1]), (weights[0], weights[2]), (weights[1], weights[2])))


@pytest.mark.parametrize(
    ("until", "changed"),
    [
        (1, {}), (4, {}), (5, {}), (9, {}), (4, {"optimizer": "adamw", "lr": 0.01}),
        *((n, {"sampling": "widening", "teacher": "labels"}) for n in (2, 6)),
    ],
)  # fmt: skip
def test_training_in_parts_equals_training_in_one_go(
    given: tuple[SearchSpace, Task], tmp_path: Path, until: int, changed: dict[str, Any]
) -> None:
    """Of ten steps, five an epoch: halted inside an epoch, at its end, and before the last step."""
    space, task = given
    wanted = plan(dropout=0.2, **changed)
    whole = trained(space, task, tmp_path / "whole", wanted)
    assert trained(space, task, tmp_path / "parts", wanted, until=until) is None
    rest = trained(space, task, tmp_path / "parts", wanted)
    assert whole is not None
    assert rest is not None
    assert (rest.began_at, rest.steps, rest.losses) == (until, 10, whole.losses)
    assert_same_bank(tmp_path / "whole", tmp_path / "parts")


def test_finished_bank_is_left_as_it_is(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    trained(*given, tmp_path / "bank")
    before = (tmp_path / "bank").read_bytes()
    again = trained(*given, tmp_path / "bank")
    assert again is not None
    assert again.began_at == again.steps
    assert (tmp_path / "bank").read_bytes() == before


SCRIPT = """
import sys
from pathlib import Path
from tests.nas.banks import inputs, plan, trained
trained(*inputs(Path(sys.argv[1])), Path(sys.argv[2]), plan(epochs=12))
"""


@pytest.mark.slow
def test_killed_training_goes_on_at_the_step_it_reached_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    space, task = inputs(tmp_path)
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path), str(tmp_path / "parts")]
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    kill_at(process, (tmp_path / "parts").exists)
    reached = load_bank(tmp_path / "parts")[1].step
    rest = trained(space, task, tmp_path / "parts", plan(epochs=12))
    trained(space, task, tmp_path / "whole", plan(epochs=12))
    assert rest is not None
    assert 0 < reached == rest.began_at < rest.steps == 60
    assert_same_bank(tmp_path / "whole", tmp_path / "parts")
    assert not list(tmp_path.glob(".parts.*"))


def test_equal_seeds_give_equal_banks_and_others_do_not(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trained(*given, tmp_path / name, seed=seed)
    assert_same_bank(tmp_path / "a", tmp_path / "b")
    assert not torch.equal(contents(tmp_path / "a")["live/head.out.weight"], contents(tmp_path / "c")["live/head.out.weight"])


def test_callers_random_state_is_left_as_it_was(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    trained(*given, tmp_path / "bank", until=2)
    assert torch.equal(torch.rand(4), want)


def test_statistics_of_batches_are_not_kept(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    trained(*given, tmp_path / "bank")
    live = load_bank(tmp_path / "bank")[2]["live"]
    assert not any(t.any() for name, t in live.items() if name.endswith("running_mean"))


def test_only_the_training_split_is_opened(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    def forbidden() -> Images:
        raise AssertionError("test was opened")

    space, task = given
    broken = Images(x=task.valid.x[:0], y=task.valid.y[:0])
    trained(space, replace(task, test=forbidden, valid=broken), tmp_path / "bank")


@pytest.mark.parametrize("what", ["space", "width", "data", "head", "recipe", "plan", "seed"])
def test_bank_made_for_something_else_is_refused_by_name(given: tuple[SearchSpace, Task], tmp_path: Path, what: str) -> None:
    space, task = given
    trained(space, task, tmp_path / "bank", until=1)
    before = (tmp_path / "bank").read_bytes()
    others: dict[str, tuple[SearchSpace, Task, object, int, str]] = {
        "space": (msgspec.structs.replace(space, name="other"), task, PLAN, 0, r"of the space small x1 at 3x16x16, not other x1"),
        "width": (space.at(width=2.0), task, PLAN, 0, r"of the space small x1 at 3x16x16, not small x2 at"),
        "data": (space, replace(task, data_sha256="0"), PLAN, 0, r"of another content of the data set npz:.*, changed since"),
        "head": (space, replace(task, head=Head(outputs=9)), PLAN, 0, r"for another head \(outputs 3 there, 9 here\)"),
        "recipe": (space, task, plan(lr=0.01), 0, r"for another recipe \(lr 0.05 there, 0.01 here\)"),
        "plan": (space, task, plan(randoms=2), 0, r"for another plan \(randoms 1 there, 2 here\)"),
        "seed": (space, task, PLAN, 5, "of seed 0, not 5"),
    }
    other_space, other_task, other_plan, seed, said = others[what]
    assert isinstance(other_plan, type(PLAN))
    with pytest.raises(RunConflict, match=said):
        trained(other_space, other_task, tmp_path / "bank", other_plan, seed=seed)
    assert (tmp_path / "bank").read_bytes() == before


def test_file_that_is_no_bank_is_refused(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    (tmp_path / "bank").write_bytes(b"something else")
    with pytest.raises(InvalidWeights, match=r"bank: not a readable bank .*remove it to train a new one"):
        trained(*given, tmp_path / "bank")


def test_bank_that_diverges_stops_with_advice_and_is_not_saved_broken(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    hot = plan(lr=1e30, clip_norm=0.0, warmup_epochs=0.0)
    with pytest.raises(Diverged, match=r"the bank diverged at step \d+ of 10 .*in another folder with a lower lr of its recipe \(1e\+30\)"):
        trained(*given, tmp_path / "bank", hot)
    if (tmp_path / "bank").exists():
        assert all(t.isfinite().all() for t in contents(tmp_path / "bank").values())


def test_loss_far_worse_than_guessing_is_divergence(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    space, task = given

    def growing(logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        return 1.0 + 1e3 * (logits - logits.detach() + logits.detach().abs().sum().sign()).mean()

    with pytest.raises(Diverged, match="far worse than guessing"):
        trained(space, replace(task, loss=growing), tmp_path / "bank")


def test_bf16_trains_when_asked_for(given: tuple[SearchSpace, Task], tmp_path: Path) -> None:
    fit = trained(*given, tmp_path / "bank", plan(epochs=1, warmup_epochs=0.0, amp="bf16"))
    assert fit is not None
    assert fit.precision == "bf16"
    assert all(t.dtype == torch.float32 for t in contents(tmp_path / "bank").values())
