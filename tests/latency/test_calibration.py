"""Calibrations against coefficients that are known, and errors against hand arithmetic."""

import numpy as np
import pytest

from latency.calibration import Judged, estimates_ms, fit_calibration, piece_terms, total_terms
from search_spaces.architecture import Block, Head, Piece

TRUTH = np.array([0.05, 1.1, -0.3, 0.2, 0.1, 0.02, 0.04, 0.01, 0.1, -0.1, 0.2])


def drawn(count: int, seed: int) -> np.ndarray:
    """Totals (count, 10) of networks of 1 to 4 ms, the terms of sizes as real ones have."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(1, 4, count), *(rng.uniform(0.1, 1, count) for _ in range(3)),
                            *(rng.uniform(1, 5, count) for _ in range(2)), rng.uniform(15, 25, count),
                            *(rng.uniform(0.5, 2, count) for _ in range(3))])  # fmt: skip


def true_ms(totals: np.ndarray) -> np.ndarray:
    found: np.ndarray = TRUTH[0] + totals @ TRUTH[1:]
    return found


def test_a_law_of_these_terms_is_found() -> None:
    fit, other = drawn(40, 0), drawn(20, 1)
    found = fit_calibration((fit, true_ms(fit)), (other, true_ms(other)))
    # what is left is the weakest penalty's pull on the terms beside a + b · sum
    assert found.held_out.mape < 0.003
    assert found.line.mape > 0.01


def test_coefficients_are_those_of_all_networks_and_errors_those_of_the_held_out() -> None:
    fit, other = drawn(40, 0), drawn(40, 1)
    found = fit_calibration((fit, fit[:, 0]), (other, 1.2 * other[:, 0]))
    assert found.held_out.bias == pytest.approx(1 / 1.2 - 1, abs=0.003)
    assert found.fitted == 80
    middle = float((estimates_ms(found.coefficients, other) / other[:, 0]).mean())
    assert 1.05 < middle < 1.15


def test_terms_that_carry_only_noise_are_held_back() -> None:
    fit, other, rng = drawn(40, 0), drawn(200, 1), np.random.default_rng(2)
    noisy_ms = (0.1 + 1.2 * fit[:, 0]) * (1 + 0.05 * rng.standard_normal(40))
    found = fit_calibration((fit, noisy_ms), (other, 0.1 + 1.2 * other[:, 0]))
    # nine coefficients too many, each known to noise / √40: less than 0.05 · √(11 / 40) in all
    assert found.held_out.mape < 0.026


def test_few_networks_give_a_single_factor() -> None:
    fit, other = drawn(4, 0), drawn(3, 1)
    found = fit_calibration((fit, 1.25 * fit[:, 0]), (other, 1.25 * other[:, 0]))
    assert found.coefficients == pytest.approx((0, 1.25, *[0] * 9))


def test_terms_that_never_vary_do_no_harm() -> None:
    fit = drawn(20, 0)
    fit[:, 2:4] = 0
    measured_ms = 0.2 + 1.3 * fit[:, 0]
    assert fit_calibration((fit, measured_ms), (fit, measured_ms)).held_out.mape < 1e-3


def test_a_calibration_does_not_overrule_the_sum() -> None:
    totals = np.array([[1.0, *[0] * 9], [1.0, *[0] * 9]])
    assert estimates_ms([-5.0, 1, *[0] * 9], totals)[0] == pytest.approx(1 / 3)
    assert estimates_ms([50.0, 1, *[0] * 9], totals)[0] == 3.0


def test_errors_are_those_worked_out_by_hand() -> None:
    found = Judged.of([1.0, 2.18, 2.8, 5.0], [1.0, 2.0, 3.0, 4.0])  # errors 0, +9 %, -6.7 %, +25 %
    assert (found.networks, found.within_5, found.within_10) == (4, 0.25, 0.75)
    assert found.worst == pytest.approx(0.25)
    assert found.mape == pytest.approx((0 + 0.09 + 1 / 15 + 0.25) / 4)
    assert found.bias == pytest.approx((0 + 0.09 - 1 / 15 + 0.25) / 4)
    assert found.spearman == pytest.approx(1)


def test_rank_correlation_of_a_single_swap_is_the_textbook_s() -> None:
    # 1 - 6·Σd²/(n(n² - 1)) = 1 - 6·2/(4·15)
    assert Judged.of([1.0, 3.0, 2.0, 4.0], [1.0, 2.0, 3.0, 4.0]).spearman == pytest.approx(0.8)


def test_two_networks_have_no_rank_correlation() -> None:
    assert Judged.of([1.0, 2.0], [1.0, 2.0]).spearman is None


@pytest.mark.parametrize(("networks", "rank"), [(5, 5), (9, 9), (19, 18), (40, 37)])
def test_interval_is_the_conformal_quantile_of_the_held_out_networks(networks: int, rank: int) -> None:
    fit = drawn(5, 0)  # a single factor: the calibration is 1 · sum
    other = drawn(networks, 1)
    factors = 1 + 0.01 * np.arange(1, networks + 1)
    found = fit_calibration((fit, fit[:, 0]), (other, other[:, 0] * np.random.default_rng(0).permutation(factors)))
    assert found.ratio_90 == pytest.approx(1 + 0.01 * rank)


def test_terms_of_a_piece_are_those_worked_out_by_hand() -> None:
    gated = Piece(layer=Block(op="sepconv", in_ch=8, out_ch=16, stride=2, se_ch=2, skip="pool"), in_chw=(8, 10, 10))
    # weights: 8·9 + 8 depthwise, (8·2 + 2) + (2·8 + 8) gate, 8·16 + 16 pointwise
    # log2 of 100 pixels is 6.643856
    by_map = (0.5 * 0.6643856, 0.5 * 0.6643856**2, 0)
    assert piece_terms(gated, 0.5) == pytest.approx((0.5, 800e-6, 400e-6, 400e-6, *[(80 + 18 + 24 + 144) / 1e6] * 2, 1, *by_map))


def test_terms_of_a_head_have_no_gate() -> None:
    head = Piece(layer=Head(outputs=10), in_chw=(64, 2, 2))
    assert piece_terms(head, 0.5) == pytest.approx((0.5, 256e-6, 0, 0, 650e-6, 650e-6, 1, 0.1, 0.02, 0.5))  # log2 of 4 pixels is 2


def test_weights_count_as_far_as_a_cache_holds_them() -> None:
    # 512 KiB and 4 MiB of float32: 131,072 and 1,048,576 of them
    middle, large = (Piece(layer=Block(op="conv", in_ch=ch, out_ch=ch, kernel=3), in_chw=(ch, 4, 4)) for ch in (200, 400))
    assert piece_terms(middle, 1.0)[4:6] == pytest.approx((0.131072, (9 * 200 * 200 + 200) / 1e6))
    assert piece_terms(large, 1.0)[4:6] == pytest.approx((0.131072, 1.048576))


def test_terms_of_networks_are_summed() -> None:
    found = total_terms([[(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), (1,) * 10], [(1, *[0] * 9)]])
    assert found.tolist() == [[2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [1, *[0] * 9]]
