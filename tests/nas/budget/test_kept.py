"""What a run with a budget goes on with."""

import os
import time
from pathlib import Path

import msgspec
import pytest

from nas.budget.kept import Kept, closed, keep, kept_budget, take_up
from nas.budget.split import BUDGETED, Costs, FinalCost, Plan, split
from nas.config import RunConfig
from nas.errors import NasError
from nas.store import check_out, write_config

COSTS = Costs(
    start_s=1.0, bank_epoch_s=0.0, candidate_s=1.0, epoch_s=1.0,
    finals=(FinalCost(front_size=3, baseline_widths=1, models=6, epoch_s=1.0, besides_s=1.0, measuring_s=1.0),),
)  # fmt: skip
PLAN: Plan = split(300.0, COSTS, RunConfig(), BUDGETED)
CHOSEN = PLAN.onto(RunConfig(budget_s=300.0), BUDGETED)


def begun(out: Path, **changed: object) -> Kept:
    write_config(out, CHOSEN)
    kept = msgspec.structs.replace(Kept(free=tuple(sorted(BUDGETED)), plan=PLAN, began_at=0.0), **changed)
    keep(out, kept)
    return kept


def test_new_run_has_all_of_its_open_fields_to_decide(tmp_path: Path) -> None:
    taken = take_up(RunConfig(budget_s=60.0), BUDGETED, tmp_path)
    assert (taken.config, taken.free, taken.open_fields, taken.used_s) == (RunConfig(budget_s=60.0), BUDGETED, BUDGETED, 0.0)


def test_run_without_a_budget_decides_nothing(tmp_path: Path) -> None:
    assert take_up(RunConfig(), BUDGETED, tmp_path).free == frozenset()


@pytest.mark.parametrize("given", [RunConfig(budget_s=300.0), CHOSEN], ids=["the same command", "the run's config.json"])
def test_begun_run_goes_on_with_the_numbers_that_were_chosen(tmp_path: Path, given: RunConfig) -> None:
    begun(tmp_path)
    free = BUDGETED if given is not CHOSEN else frozenset[str]()
    taken = take_up(given, free, tmp_path)
    assert taken.config == CHOSEN
    assert taken.free == BUDGETED
    assert taken.open_fields == BUDGETED - {"epochs"}


def test_number_that_is_set_now_is_no_longer_chosen(tmp_path: Path) -> None:
    begun(tmp_path)
    taken = take_up(RunConfig(budget_s=300.0, trials=7), BUDGETED - {"trials"}, tmp_path)
    assert taken.config.trials == 7
    assert "trials" not in taken.free


def test_begun_full_trainings_keep_their_numbers(tmp_path: Path) -> None:
    begun(tmp_path, searched_s=300.0)
    assert take_up(RunConfig(budget_s=600.0), BUDGETED, tmp_path).open_fields == {"trials"}


@pytest.mark.parametrize(("searched_s", "budget_s", "expected"), [(300.0, 300.0, True), (300.0, 301.0, False), (0.0, 300.0, False)])
def test_search_that_ended_goes_on_with_more_time_only(tmp_path: Path, searched_s: float, budget_s: float, expected: bool) -> None:
    begun(tmp_path, searched_s=searched_s)
    assert take_up(RunConfig(budget_s=budget_s), BUDGETED, tmp_path).is_searched == expected


def test_search_that_ended_goes_on_with_more_trials_too(tmp_path: Path) -> None:
    begun(tmp_path, searched_s=300.0, searched_trials=20)
    same, more = (take_up(RunConfig(budget_s=300.0, trials=n), BUDGETED - {"trials"}, tmp_path) for n in (20, 21))
    assert same.is_searched
    assert same.open_fields == frozenset()
    assert not more.is_searched


def test_run_begun_without_a_budget_keeps_its_numbers_when_it_gets_one(tmp_path: Path) -> None:
    write_config(tmp_path, RunConfig(epochs=7, final_epochs=9))
    taken = take_up(RunConfig(budget_s=60.0), BUDGETED, tmp_path)
    assert taken.config == RunConfig(epochs=7, final_epochs=9, budget_s=60.0)
    assert taken.free == {"trials"}


def test_start_that_was_killed_before_its_configuration_was_written_begins_anew(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "config.json").unlink()
    check_out(tmp_path, CHOSEN)
    taken = take_up(RunConfig(budget_s=60.0), BUDGETED, tmp_path)
    assert (taken.config, taken.free) == (RunConfig(budget_s=60.0), BUDGETED)


def test_time_of_starts_that_ended_counts(tmp_path: Path) -> None:
    keep(tmp_path, closed(begun(tmp_path, began_at=5.0, used_s=20.0), 30.0))
    assert take_up(CHOSEN, BUDGETED, tmp_path).used_s == 50.0


def test_start_that_was_killed_counts_up_to_its_last_sign(tmp_path: Path) -> None:
    began = time.time() - 1000.0
    begun(tmp_path, began_at=began, used_s=7.0)
    (tmp_path / "candidates.jsonl").touch()
    for path in tmp_path.iterdir():
        os.utime(path, (began + 40.0, began + 40.0))
    os.utime(tmp_path / "candidates.jsonl", (began + 90.0, began + 90.0))
    assert take_up(CHOSEN, BUDGETED, tmp_path).used_s == pytest.approx(97.0, abs=0.01)


def test_damaged_note_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "budget.json").write_text("{")
    with pytest.raises(NasError, match=r"budget\.json: not readable"):
        kept_budget(tmp_path)
