"""The costs of full trainings against hand arithmetic, at a speed that is the same for all networks."""

from dataclasses import replace
from pathlib import Path

import pytest

from nas.bench import Bench, samples
from nas.budget.costs import EXPORT_S, REPORT_S, costs_of, final_costs, measuring_s, reporting_s
from nas.budget.split import BUDGETED
from nas.forecast import Speed
from nas.store import Candidate, Latency
from search_spaces import Architecture
from tests.nas.budget.test_planning import bench

SPEED = Speed(per_image_s=0.01, per_mac_s=0.0)


def networks(opened: Bench, count: int = 2) -> list[Architecture]:
    found = {a.id: a for a in samples(opened)}
    assert len(found) >= count
    return list(found.values())[:count]


def test_epoch_of_all_full_trainings_is_their_images_at_the_speed(tmp_path: Path) -> None:
    with bench(tmp_path) as opened:  # two of the front, and each of two families at one width
        (cost,) = final_costs(opened, SPEED, networks(opened), 0.0)
        images = len(opened.task.train)
    assert (cost.front_size, cost.baseline_widths, cost.models) == (2, 1, 4)
    assert cost.epoch_s == pytest.approx(4 * images * 0.01)


def test_what_is_trained_by_now_costs_no_more_training_and_is_measured_all_the_same(tmp_path: Path) -> None:
    with bench(tmp_path) as opened:
        front = networks(opened)
        (whole,) = final_costs(opened, SPEED, front, 0.0, is_known=True)
        (left,) = final_costs(opened, SPEED, front, 0.0, is_known=True, done={front[0].id})
        images = len(opened.task.train)
    assert whole.epoch_s - left.epoch_s == pytest.approx(images * 0.01)
    assert left.models == whole.models


def test_front_that_is_known_has_no_more_members_than_it_has(tmp_path: Path) -> None:
    with bench(tmp_path, front_size=5) as opened:
        (known,), (expected,) = (final_costs(opened, SPEED, networks(opened), 0.0, is_known=is_known) for is_known in (True, False))
    assert (known.models, expected.models) == (4, 7)


def test_choices_of_a_budget_begin_with_the_most_models(tmp_path: Path) -> None:
    with bench(tmp_path, budget_s=60.0) as opened:
        choices = final_costs(replace(opened, free=BUDGETED), SPEED, networks(opened), 0.0)
    assert len(choices) == 10  # five sizes of the front by two numbers of widths
    assert [c.models for c in choices] == sorted((c.models for c in choices), reverse=True)
    assert {(c.front_size, c.baseline_widths) for c in choices} == {(n, w) for n in (8, 6, 4, 3, 2) for w in (2, 1)}


def test_bank_that_is_trained_costs_nothing(tmp_path: Path) -> None:
    with bench(tmp_path, evaluate="inherited") as opened:
        new, kept = (costs_of(opened, SPEED, 0.0, has_bank=has_bank) for has_bank in (False, True))
    assert new.bank_epoch_s > 0.0 == kept.bank_epoch_s
    assert new.epoch_s == 0.0


def test_front_of_earlier_starts_is_what_is_trained_in_full(tmp_path: Path) -> None:
    with bench(tmp_path) as opened:
        row = Candidate(
            stage="search", status="trained", arch=networks(opened)[0], seed=0, score=0.5, score_source="alone",
            latency=Latency(p50_ms=1.0, low_ms=1.0, high_ms=1.0),
        )  # fmt: skip
        fresh, again = (costs_of(opened, SPEED, 0.0, has_bank=False, rows=rows).finals[0] for rows in ((), (row,)))
    assert (fresh.models, again.models) == (4, 3)  # the search's only member, and two baselines


def test_fake_device_takes_no_time_and_the_report_counts_each_model(tmp_path: Path) -> None:
    with bench(tmp_path, budget_s=60.0) as opened:
        assert measuring_s(opened, 5) == 0.0
    assert reporting_s(5) - reporting_s(2) == pytest.approx(3 * EXPORT_S)
    assert reporting_s(0) == REPORT_S
