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


def test_eight_steady_processes_are_drawn_with_replacement() -> None:
    # Four at 1 and four at 2: the median of eight draws is 1.5 where half of them are 2, so in 70 of 256 cases.
    found = two_level([np.full(RESAMPLES, v, dtype=np.float64) for v in (1, 2) * 4], np.random.default_rng(0))
    # 2000 draws: three standard errors are 0.030.
    assert float(np.mean(found == 1.5)) == pytest.approx(70 / 256, abs=0.030)
    assert set(found) == {1, 1.5, 2}


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_interval_of_few_processes_holds_the_true_median_19_times_in_20(count: int) -> None:
    rng, held = np.random.default_rng(count), 0
    for _ in range(600):
        medians = 1 + 0.02 * rng.standard_normal(count)
        low, high = interval(two_level([np.full(RESAMPLES, m) for m in medians], rng), float(np.median(medians)))
        held += low <= 1 <= high
    # 600 trials: three standard errors are 0.027, and the standard error of a median is taken as that of many values.
    assert 0.923 <= held / 600 <= 0.995


def test_processes_that_agree_are_no_closer_together_than_the_noise_within_them() -> None:
    rng = np.random.default_rng(0)
    low, high = interval(two_level([1 + 0.01 * rng.standard_normal(RESAMPLES) for _ in range(3)], rng), 1.0)
    # 1.96 · 0.01 · √(π / 2 / 3) to both sides
    assert (high - low) / 2 == pytest.approx(0.0142, rel=0.1)


def test_interval_reaches_to_a_centre_outside_of_it() -> None:
    assert interval(np.full(RESAMPLES, 2.0), 1.5) == (1.5, 2.0)
