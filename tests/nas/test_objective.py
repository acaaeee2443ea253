from typing import Any

import pytest

from nas.config import RunConfig
from nas.objective import WORST_SCORE, directions, excess, reward, values


def config(**fields: Any) -> RunConfig:  # Any: values of any field
    return RunConfig(**fields)


def test_soft_reward_of_a_network_twice_too_slow() -> None:
    # 2^-0.07 = exp(-0.07 · 0.693147) = 0.952638
    assert reward(config(reward="soft", target_ms=10.0), 0.75, 20.0) == pytest.approx(0.75 * 0.952638, abs=1e-6)


def test_soft_reward_gains_five_per_cent_when_the_latency_halves() -> None:
    # what MnasNet's authors chose w for: 2^0.07 = 1.0497
    soft = config(reward="soft", target_ms=10.0)
    assert reward(soft, 0.5, 5.0) / reward(soft, 0.5, 10.0) == pytest.approx(1.0497, abs=1e-4)


def test_soft_reward_takes_the_users_w() -> None:
    assert reward(config(reward="soft", target_ms=10.0, w=-1.0), 0.8, 40.0) == pytest.approx(0.2)


@pytest.mark.parametrize(("latency_ms", "expected"), [(5.0, 0.8), (10.0, 0.8), (20.0, 0.4), (80.0, 0.1)])
def test_hard_reward_is_the_score_up_to_the_target_and_falls_inversely_above(latency_ms: float, expected: float) -> None:
    assert reward(config(reward="hard", target_ms=10.0), 0.8, latency_ms) == pytest.approx(expected)


@pytest.mark.parametrize(("latency_ms", "expected"), [(10.0, 0.8), (15.0, 0.75), (5.0, 0.75), (30.0, 0.6)])
def test_absolute_reward_punishes_both_sides_of_the_target(latency_ms: float, expected: float) -> None:
    assert reward(config(reward="abs", target_ms=10.0), 0.8, latency_ms) == pytest.approx(expected)


def test_pareto_maximises_the_score_and_minimises_the_latency() -> None:
    assert directions(config()) == ["maximize", "minimize"]
    assert values(config(), 0.7, 3.0) == [0.7, 3.0]


def test_scalar_reward_is_maximised() -> None:
    hard = config(reward="hard", target_ms=10.0)
    assert directions(hard) == ["maximize"]
    assert values(hard, 0.8, 20.0) == [0.4]


def test_excess_is_relative_to_the_limit() -> None:
    assert excess(config(max_ms=2.0), 3.0) == pytest.approx(0.5)
    assert excess(config(max_ms=2.0), 2.0) == 0.0
    assert excess(config(max_ms=2.0), 1.0) == pytest.approx(-0.5)


def test_without_a_limit_nothing_is_infeasible() -> None:
    assert excess(config(), 1e9) < 0


@pytest.mark.parametrize("kind", ["soft", "hard", "abs"])
def test_worst_score_is_no_better_than_any_score_at_the_same_latency(kind: str) -> None:
    rewarded = config(reward=kind, target_ms=10.0)
    assert reward(rewarded, WORST_SCORE, 12.0) <= min(reward(rewarded, score, 12.0) for score in (0.0, 0.1, 1.0))
