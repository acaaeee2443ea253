"""A bank within a time: begun with more epochs than fit, shortened at a saved step, taken up after a kill."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import msgspec
import pytest
import torch

from latency.console import open_console
from nas.budget.bank import shorten, train_bank_until
from nas.config import RunConfig
from nas.errors import RunConflict
from nas.jobs import plan_for
from nas.sharing.bank_file import load_bank
from nas.sharing.run_bank import train_run_bank
from nas.store import BANK_FILE
from tests.nas.small import inheriting, opened

STEPS = 5  # an epoch: 90 images in batches of 16


@dataclass
class Halted(Exception):
    """What a test raises to stop a training."""


def ticking(step_s: float) -> Callable[[], float]:
    """A clock that moves on by so much at every look."""
    ticks = itertools.count()
    return lambda: next(ticks) * step_s


def trained(
    folder: Path, *, epochs: int, until: float, monkeypatch: pytest.MonkeyPatch, keep: Callable[[RunConfig], None] = lambda config: None
) -> RunConfig:
    """Trains a bank whose every step takes a second, saving it at each."""
    monkeypatch.setattr("nas.budget.bank.SAVE_S", (0.0, 0.0))
    given = inheriting(folder, bank_epochs=epochs)
    task, space = opened(given)
    return train_bank_until(
        given, folder, space, task, open_console(err=StringIO()), until=until, on_shorter=keep, clock=ticking(1.0)
    )


def test_bank_that_fits_is_trained_for_all_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = trained(tmp_path, epochs=3, until=1000.0, monkeypatch=monkeypatch)
    assert done.bank_epochs == 3
    assert load_bank(tmp_path / BANK_FILE)[1].step == 3 * STEPS


def test_bank_that_does_not_fit_ends_with_the_epochs_that_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 60 steps of a second in 31 seconds: 6 epochs
    kept: list[int] = []
    done = trained(tmp_path, epochs=12, until=31.0, monkeypatch=monkeypatch, keep=lambda config: kept.append(config.bank_epochs))
    stamp, notes, _ = load_bank(tmp_path / BANK_FILE)
    assert done.bank_epochs == stamp.plan.recipe.epochs == kept[-1]
    assert done.bank_epochs in (5, 6)
    assert notes.step == notes.steps == done.bank_epochs * STEPS
    assert stamp.plan == plan_for(done)
    assert len(notes.losses) == done.bank_epochs


def test_bank_that_is_late_from_the_start_has_one_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained(tmp_path, epochs=9, until=0.0, monkeypatch=monkeypatch).bank_epochs == 1


def test_steps_before_a_bank_is_shortened_are_those_of_any_number_of_epochs(tmp_path: Path) -> None:
    given = inheriting(tmp_path, bank_epochs=8)
    task, space = opened(given)
    weights = []
    for epochs in (8, 4):
        out = tmp_path / str(epochs)
        out.mkdir()

        def halt(step: int, steps: int) -> None:
            if step == 2:  # within the warm-up
                raise Halted

        with pytest.raises(Halted):
            train_run_bank(
                msgspec.structs.replace(given, bank_epochs=epochs), out, space, task, open_console(err=StringIO()), save_s=0.0, watch=halt
            )
        weights.append(load_bank(out / BANK_FILE)[2]["live"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_kill_between_the_configuration_and_the_file_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(config: RunConfig) -> None:
        raise Halted

    with pytest.raises(Halted):
        trained(tmp_path, epochs=12, until=31.0, monkeypatch=monkeypatch, keep=killed)
    assert load_bank(tmp_path / BANK_FILE)[0].plan.recipe.epochs == 12
    done = trained(tmp_path, epochs=6, until=1000.0, monkeypatch=monkeypatch)
    stamp, notes, _ = load_bank(tmp_path / BANK_FILE)
    assert done.bank_epochs == stamp.plan.recipe.epochs == 6
    assert notes.step == 6 * STEPS


def test_bank_of_no_more_epochs_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = trained(tmp_path, epochs=2, until=1000.0, monkeypatch=monkeypatch)
    before = (tmp_path / BANK_FILE).read_bytes()
    stamp, _, _ = load_bank(tmp_path / BANK_FILE)
    longer = plan_for(msgspec.structs.replace(done, bank_epochs=5))
    shorten(tmp_path / BANK_FILE, msgspec.structs.replace(stamp, plan=longer))
    assert (tmp_path / BANK_FILE).read_bytes() == before


@pytest.mark.parametrize("what", ["teacher", "lr", "data"])
def test_bank_made_for_something_else_is_not_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    trained(tmp_path, epochs=4, until=1000.0, monkeypatch=monkeypatch)
    before = (tmp_path / BANK_FILE).read_bytes()
    stamp, _, _ = load_bank(tmp_path / BANK_FILE)
    recipe = msgspec.structs.replace(stamp.plan.recipe, epochs=2, **({"lr": 0.7} if what == "lr" else {}))
    plan = msgspec.structs.replace(stamp.plan, recipe=recipe, **({"teacher": "average"} if what == "teacher" else {}))
    other = msgspec.structs.replace(stamp, plan=plan, **({"data_sha256": "0" * 64} if what == "data" else {}))
    with pytest.raises(RunConflict, match="is a bank"):
        shorten(tmp_path / BANK_FILE, other)
    assert (tmp_path / BANK_FILE).read_bytes() == before
