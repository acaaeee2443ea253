"""What a budget makes of a configuration before any work, at speeds that the tests set."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from latency.console import open_console
from nas.bench import Bench, open_bench
from nas.budget.bank import GENEROUS
from nas.budget.kept import Kept, TakenUp
from nas.budget.planning import Prices, budgeted, show_plan
from nas.budget.split import BUDGETED
from nas.config import RunConfig
from nas.errors import InvalidConfig
from nas.forecast import Speed
from tests.nas.small import config, inheriting

FAST = Prices(speed=Speed(per_image_s=1e-4, per_mac_s=0.0), price_s=0.01)
NEW = TakenUp(config=RunConfig(), free=BUDGETED)


@contextmanager
def bench(folder: Path, *, said: StringIO | None = None, **changed: Any) -> Iterator[Bench]:  # Any: values of any field
    """A run that is open in no time."""
    make = inheriting if changed.get("evaluate") == "inherited" else config
    began = time.monotonic() + 3600.0
    with open_bench(make(folder, **changed), folder / "run", open_console(err=said or StringIO()), began=began) as opened:
        now = time.monotonic()
        yield replace(opened, began=now, deadline=opened.deadline and now + (opened.config.budget_s or 0.0))


def test_without_a_budget_nothing_is_decided(tmp_path: Path) -> None:
    with bench(tmp_path) as opened:
        assert budgeted(opened, FAST, NEW) is opened


def test_open_numbers_are_the_plans_and_the_others_the_users(tmp_path: Path) -> None:
    with bench(tmp_path, budget_s=60.0, epochs=4) as opened:
        done = budgeted(opened, FAST, TakenUp(config=RunConfig(), free=BUDGETED - {"epochs"}))
    assert done.plan is not None
    assert done.config.epochs == 4
    for name in ("trials", "final_epochs", "front_size", "baseline_widths"):
        assert getattr(done.config, name) == getattr(done.plan, name)


def test_bank_is_begun_with_more_epochs_than_are_expected_to_fit(tmp_path: Path) -> None:
    slow = Prices(speed=Speed(per_image_s=5e-3, per_mac_s=0.0), price_s=0.01)
    with bench(tmp_path, evaluate="inherited", budget_s=60.0) as opened:
        done = budgeted(opened, slow, NEW)
    assert done.plan is not None
    assert done.config.bank_epochs == GENEROUS * done.plan.bank_epochs


def test_run_that_goes_on_gets_no_new_numbers_but_trials(tmp_path: Path) -> None:
    with bench(tmp_path, budget_s=60.0) as opened:
        first = budgeted(opened, FAST, NEW)
        assert first.plan is not None
        kept = Kept(free=tuple(BUDGETED), plan=first.plan, began_at=0.0)
        again = budgeted(opened, FAST, TakenUp(config=opened.config, free=BUDGETED, kept=kept))
    for name in BUDGETED - {"trials"}:
        assert getattr(again.config, name) == getattr(opened.config, name)


def test_budget_that_is_too_short_names_one_that_is_not(tmp_path: Path) -> None:
    with bench(tmp_path, budget_s=5.0) as opened, pytest.raises(InvalidConfig, match=r"--budget 5.0 s is too short for small on 90 images"):
        budgeted(opened, FAST, NEW)


def test_plan_is_a_table_and_names_what_was_asked_for(tmp_path: Path) -> None:
    said = StringIO()
    with bench(tmp_path, said=said, budget_s=60.0, epochs=4) as opened:
        done = budgeted(opened, FAST, TakenUp(config=RunConfig(), free=BUDGETED - {"epochs"}))
        assert done.plan is not None
        show_plan(done, done.plan)
    lines = said.getvalue().splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["start", "search", "finals", "measuring"]
    assert "of 4 epochs, as asked" in said.getvalue()


def test_numbers_that_do_not_fit_are_said_with_what_they_lack(tmp_path: Path) -> None:
    said, slow = StringIO(), Prices(speed=Speed(per_image_s=1e-3, per_mac_s=0.0), price_s=0.01)
    with bench(tmp_path, said=said, budget_s=60.0, final_epochs=900) as opened:
        done = budgeted(opened, slow, TakenUp(config=RunConfig(), free=BUDGETED - {"final_epochs"}))
        assert done.plan is not None
        show_plan(done, done.plan)
    assert "warning: what you asked for takes ~" in said.getvalue()
    assert "longer than the budget: give fewer --final-epochs" in said.getvalue()
