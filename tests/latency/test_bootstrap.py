import numpy as np
import pytest

from latency.bootstrap import RESAMPLES, interval, resampled_medians, two_level


def by_hand(values: np.ndarray, rounds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same draws, each resample written out and sorted."""
    count = rounds.max() + 1
    drawn = rng.integers(0, count, (RESAMPLES, count))
    pools = [np.sort(np.concatenate([values[rounds == r] for r in row])) for row in drawn]
    return np.array([pool[(len(pool) - 1) // 2] for pool in pools])


@pytest.mark.parametrize("sizes", [[5] * 12, [1] * 30, [1], [3, 1, 7, 2, 10, 4], [10] * 40, [2, 2]])
def test_resampled_medians_are_those_of_pools_written_out(sizes: list[int]) -> None:
    rng = np.random.default_rng(3)
    rounds = np.repeat(np.arange(len(sizes)), sizes)
    values = np.round(rng.normal(1000, 50, len(rounds)))  # some are equal
    shuffled = rng.permutation(len(rounds))
    found = resampled_medians(values[shuffled], rounds[shuffled], np.random.default_rng(1))
    np.testing.assert_array_equal(found, by_hand(values, rounds, np.random.default_rng(1)))


def test_one_process_is_its_own_second_level() -> None:
    medians = np.arange(RESAMPLES, dtype=np.float64)
    assert two_level([medians], np.random.default_rng(0)) is medians


def test_three_steady_processes_give_their_middle_one_13_times_in_27() -> None:
    # Of three draws from {1, 2, 3} the median is 2 in 13 of 27 cases, 1 and 3 in 7 each.
    found = two_level([np.full(RESAMPLES, v, dtype=np.float64) for v in (1, 2, 3)], np.random.default_rng(0))
    shares = [float(np.mean(found == v)) for v in (1, 2, 3)]
    # 2000 draws: three standard errors are 0.034.
    assert shares == pytest.approx([7 / 27, 13 / 27, 7 / 27], abs=0.034)


def test_interval_reaches_to_a_centre_outside_of_it() -> None:
    assert interval(np.full(RESAMPLES, 2.0), 1.5) == (1.5, 2.0)
