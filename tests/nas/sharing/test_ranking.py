import math

import numpy as np
import pytest
import scipy.stats

from nas.errors import NasError
from nas.sharing.ranking import agreement, spearman, tau_b


def drawn(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 6, 15).astype(float) if ties else rng.normal(size=15)
    return a, a + rng.normal(size=15)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys(seed: int, ties: bool) -> None:
    a, b = drawn(seed, ties)
    assert tau_b(a, b) == pytest.approx(scipy.stats.kendalltau(a, b).statistic)
    assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_equal_and_opposite_orders_are_the_ends() -> None:
    same, opposite = agreement([1, 2, 3, 4], [10, 20, 25, 30]), agreement([1, 2, 3, 4], [4, 3, 2, 1])
    assert (same.tau.value, same.rho.value) == (1.0, 1.0)
    assert (opposite.tau.value, opposite.rho.value) == (-1.0, -1.0)


def test_interval_is_the_bootstraps_of_whole_networks() -> None:
    """scipy's own percentile bootstrap over pairs, other draws: equal to within what draws differ by."""
    a, b = drawn(3, ties=False)
    ours = agreement(list(a), list(b)).tau
    theirs = scipy.stats.bootstrap(
        (a, b), lambda x, y: scipy.stats.kendalltau(x, y).statistic, paired=True, vectorized=False, n_resamples=2000, method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert ours.low == pytest.approx(theirs.low, abs=0.06)
    assert ours.high == pytest.approx(theirs.high, abs=0.04)
    assert ours.low < ours.value < ours.high


def test_figure_that_is_the_same_for_all_ranks_nothing() -> None:
    assert math.isnan(agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).tau.value)


def test_two_networks_are_too_few() -> None:
    with pytest.raises(NasError, match="at least 3 networks, got 2"):
        agreement([1, 2], [1, 2])
