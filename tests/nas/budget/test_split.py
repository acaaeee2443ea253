"""Splits of a budget, by hand and by their rules."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.budget.split import (
    BUDGETED,
    CEILING,
    LEAST_CANDIDATES,
    LEAST_EPOCHS,
    PROXY_EPOCHS,
    RESERVE,
    Costs,
    FinalCost,
    final_epochs_within,
    makespan,
    smallest_s,
    split,
)
from nas.config import RunConfig

FREE = BUDGETED
ONE = FinalCost(front_size=3, baseline_widths=1, models=6, epoch_s=2.0, besides_s=10.0, measuring_s=20.0)
TWO = FinalCost(front_size=8, baseline_widths=2, models=16, epoch_s=6.0, besides_s=20.0, measuring_s=50.0)
ALONE = Costs(start_s=10.0, bank_epoch_s=0.0, candidate_s=1.0, epoch_s=2.0, finals=(ONE,))
WITH_BANK = Costs(start_s=10.0, bank_epoch_s=5.0, candidate_s=0.5, epoch_s=0.0, finals=(ONE,))


def test_search_gets_55_and_full_trainings_45_hundredths_of_what_is_left_beyond_the_least() -> None:
    # 500 - 20 reserve - 10 start - 10 besides - 20 measuring - least of 8·(1 + 2) and 2·2 = 412
    plan = split(500.0, ALONE, RunConfig(), FREE)
    assert plan.final_epochs == math.floor((4 + 0.45 * 412) / 2) == 94
    assert plan.finals_s == pytest.approx(10 + 94 * 2)
    assert plan.search_s == pytest.approx(500 - 20 - 40 - 94 * 2)


def test_bank_search_and_full_trainings_share_45_15_and_40() -> None:
    # 500 - 20 - 10 - 10 - 20 - (10 + 4 + 4) = 422
    plan = split(500.0, WITH_BANK, RunConfig(), FREE)
    assert plan.bank_epochs == math.floor((10 + 0.45 * 422) / 5) == 39
    assert plan.final_epochs == math.floor((4 + 0.40 * 422) / 2) == 86
    assert plan.search_s == pytest.approx(500 - 20 - 40 - 39 * 5 - 86 * 2)
    assert plan.candidates == math.floor(plan.search_s / 0.5)


def test_more_epochs_of_each_candidate_only_where_there_are_enough_candidates() -> None:
    # at 300 s the search has 24 + 0.55·(300 - 12 - 40 - 28) = 145 s (and what is left of an epoch of the finals)
    few, many = split(300.0, ALONE, RunConfig(), FREE), split(1500.0, ALONE, RunConfig(), FREE)
    assert few.epochs == 1
    assert few.candidates == math.floor(few.search_s / 3)
    assert many.epochs == PROXY_EPOCHS
    assert many.candidates == math.floor(many.search_s / 11)


def test_ceiling_of_trials_is_several_times_what_is_expected_and_no_more_than_the_space_has() -> None:
    plan = split(300.0, ALONE, RunConfig(), FREE)
    assert plan.trials == CEILING * plan.candidates
    assert split(300.0, replace(ALONE, networks=20), RunConfig(), FREE).trials == 20


def test_large_front_is_taken_where_its_trainings_get_enough_epochs() -> None:
    costs = replace(ALONE, finals=(TWO, ONE))
    assert split(250.0, costs, RunConfig(), FREE).front_size == ONE.front_size
    assert split(900.0, costs, RunConfig(), FREE).front_size == TWO.front_size


def test_what_the_user_asked_for_beyond_the_budget_is_kept_and_said() -> None:
    # 4·(1 + 3·2) + 60·2 + 10 + 10 + 20 + 0.04·100 = 192 of 100
    config = RunConfig(trials=4, epochs=3, final_epochs=60)
    plan = split(100.0, ALONE, config, frozenset({"bank_epochs"}))
    assert plan.lacking_s == pytest.approx(92)
    assert (plan.trials, plan.epochs, plan.final_epochs) == (4, 3, 60)


def test_few_trials_leave_their_time_to_the_full_trainings() -> None:
    # 4 trials of 11 s at most; the rest of 300 - 12 - 40 goes to epochs of 2 s
    plan = split(300.0, ALONE, RunConfig(trials=4), FREE - {"trials"})
    assert plan.search_s <= 44
    assert plan.final_epochs == math.floor((300 - 12 - 40 - 44) / 2)


def test_smallest_budget_is_the_sum_of_the_least_of_everything() -> None:
    # (10 + 10 + 20 + 8·3 + 2·2) / 0.96
    assert smallest_s(ALONE, RunConfig(), FREE) == pytest.approx(68 / (1 - RESERVE))
    assert smallest_s(WITH_BANK, RunConfig(), FREE) == pytest.approx((10 + 10 + 20 + 2 * 5 + 8 * 0.5 + 2 * 2) / (1 - RESERVE))


def test_smallest_budget_fits_and_less_does_not() -> None:
    least = smallest_s(WITH_BANK, RunConfig(), FREE)
    plan = split(least, WITH_BANK, RunConfig(), FREE)
    assert plan.lacking_s == pytest.approx(0, abs=1e-9)
    assert (plan.bank_epochs, plan.final_epochs, plan.candidates) == (LEAST_EPOCHS, LEAST_EPOCHS, LEAST_CANDIDATES)
    assert split(least - 1, WITH_BANK, RunConfig(), FREE).lacking_s == pytest.approx(1 - RESERVE)


def test_full_trainings_get_the_epochs_that_the_slowest_worker_has_time_for() -> None:
    each = [(3.0, 1.0), (2.0, 1.0), (1.0, 1.0)]
    # two workers, the longest first: 3e + 1 beside (2e + 1) + (e + 1)
    assert final_epochs_within(32.0, each, 2) == 10
    assert final_epochs_within(31.9, each, 2) == 9


def test_jobs_go_to_the_worker_that_is_free_first() -> None:
    assert makespan([5.0, 4.0, 3.0, 3.0], 2) == 8.0
    assert makespan([5.0, 4.0], 1) == 9.0


positive = st.floats(0.01, 50.0)
finals = st.builds(
    FinalCost, front_size=st.integers(1, 8), baseline_widths=st.integers(1, 2), models=st.integers(2, 20), epoch_s=positive,
    besides_s=st.floats(0, 50), measuring_s=st.floats(0, 100),
)  # fmt: skip
costs = st.builds(
    Costs, start_s=st.floats(0, 30), bank_epoch_s=st.just(0.0) | positive, candidate_s=positive, epoch_s=positive,
    finals=st.lists(finals, min_size=1, max_size=3).map(tuple), networks=st.just(math.inf) | st.floats(1, 1000),
)  # fmt: skip
configs = st.builds(
    RunConfig, trials=st.integers(1, 500), epochs=st.integers(1, 9), bank_epochs=st.integers(1, 99), final_epochs=st.integers(1, 99)
)


@given(st.floats(1, 100_000), costs, configs, st.frozensets(st.sampled_from(sorted(BUDGETED))))
def test_parts_sum_to_the_time_there_is_and_none_is_negative(left_s: float, costs: Costs, config: RunConfig, free: frozenset[str]) -> None:
    plan = split(left_s, costs, config, free)
    assert all(seconds >= 0 for seconds in plan.parts.values())
    assert sum(plan.parts.values()) == pytest.approx(left_s + plan.lacking_s)


@given(st.floats(1, 100_000), costs, configs, st.frozensets(st.sampled_from(sorted(BUDGETED))))
def test_users_fields_are_kept(left_s: float, costs: Costs, config: RunConfig, free: frozenset[str]) -> None:
    plan = split(left_s, costs, config, free)
    for name in {"trials", "epochs", "bank_epochs", "final_epochs"} - free:
        assert getattr(plan, name) == getattr(config, name)


@given(st.floats(1, 100_000), costs, configs, st.frozensets(st.sampled_from(sorted(BUDGETED))))
def test_plans_numbers_make_a_configuration(left_s: float, costs: Costs, config: RunConfig, free: frozenset[str]) -> None:
    plan = split(left_s, costs, config, free)
    assert plan.onto(config, free).trials >= 1


@given(st.floats(1, 100_000), costs, configs, st.frozensets(st.sampled_from(sorted(BUDGETED))))
def test_smallest_budget_lacks_nothing(left_s: float, costs: Costs, config: RunConfig, free: frozenset[str]) -> None:
    least = smallest_s(costs, config, free)
    plans = [split(least, replace(costs, finals=(cost,)), config, free) for cost in costs.finals]
    assert min(plan.lacking_s for plan in plans) == pytest.approx(0, abs=1e-6)
