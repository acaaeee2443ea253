"""Levelling against shares that are known, hand arithmetic, and a dense mixed model solved as a whole."""

import numpy as np
import pytest

from latency.levelling import SHRINKAGE, levelled


def test_one_go_stays_as_it_is() -> None:
    assert levelled({"a": [(0, 2.0)], "b": [(0, 3.0)], "c": [(1, 5.0)]}) == pytest.approx({"a": 2, "b": 3, "c": 5})


def test_equal_shares_in_all_batches_leave_the_geometric_mean() -> None:
    found = levelled({"a": [(0, 2.0), (1, 2.0)], "b": [(0, 3.0), (1, 3.0)]})
    assert found == pytest.approx({"a": 2, "b": 3})


def test_two_batches_of_the_same_two_items_are_worked_out_by_hand() -> None:
    # Every item is in both batches: the shares cannot touch the mean of logs.
    found = levelled({"a": [(0, 1.0), (1, 4.0)], "b": [(0, 2.0), (1, 8.0)]})
    assert found == pytest.approx({"a": 2, "b": 4})


def test_item_that_met_a_slow_batch_is_freed_of_it() -> None:
    # 20 items of 1 in a fast and a slow batch, another in the slow one alone and once in a third of the middle.
    timings = {i: [("fast", 0.8), ("slow", 1.25)] for i in range(20)}
    timings[20] = [("slow", 1.25), ("middle", 1.0)]
    found = levelled(timings)
    assert found[20] == pytest.approx(1, abs=0.03)
    assert found[0] == pytest.approx(1, abs=0.01)
    assert np.sqrt(1.25) > 1.11  # what its own two goes say


def test_shares_of_many_batches_are_taken_out() -> None:
    rng = np.random.default_rng(0)
    own, share = rng.uniform(0.1, 5, 400), np.exp(0.05 * rng.standard_normal(60))
    timings: dict[int, list[tuple[object, float]]] = {i: [] for i in range(400)}
    for go in range(3):
        for place, i in enumerate(rng.permutation(400)):
            batch = go * 20 + place // 20
            timings[int(i)].append((batch, own[i] * share[batch] * np.exp(0.02 * rng.standard_normal())))
    found = np.array(list(levelled(timings).values()))
    plain = np.array([np.exp(np.mean([np.log(v) for _, v in pairs])) for pairs in timings.values()])
    # noise alone leaves 0.02 / √3; three shares beside it (0.02² + 0.05²) / 3
    assert np.std(np.log(found / own)) < 0.0145
    assert np.std(np.log(plain / own)) > 0.025


def test_result_is_that_of_the_whole_mixed_model() -> None:
    rng = np.random.default_rng(1)
    rows = [(int(rng.integers(6)), int(rng.integers(4)), float(rng.uniform(1, 2))) for _ in range(30)] + [(i, 0, 1.5) for i in range(6)]
    x = np.array([[*(i == r for r in range(6)), *(b == r for r in range(4))] for i, b, _ in rows], dtype=float)
    y = np.log([v for _, _, v in rows])
    whole = np.linalg.solve(x.T @ x + np.diag([0.0] * 6 + [SHRINKAGE] * 4), x.T @ y)
    found = levelled({i: [(b, v) for r, b, v in rows if r == i] for i in range(6)})
    assert [np.log(found[i]) for i in range(6)] == pytest.approx(whole[:6])


def test_single_timing_that_went_wrong_counts_little() -> None:
    rng = np.random.default_rng(2)
    timings: dict[int, list[tuple[object, float]]]
    timings = {i: [(go, float(np.exp(0.02 * rng.standard_normal()))) for go in range(3)] for i in range(50)}
    timings[7][1] = (1, 3.0)
    # a plain mean of logs would say 3 ** (1 / 3) = 1.44
    assert levelled(timings)[7] < 1.1
    assert levelled(timings)[8] == pytest.approx(1, abs=0.05)


def test_nothing_timed_is_nothing() -> None:
    assert levelled({}) == {}
