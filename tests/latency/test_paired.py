"""Ratios of models timed in turns, on devices whose speed is known round by round."""

import numpy as np
import pytest

from latency.devices.fake import INFO
from latency.measurement import Measurement
from latency.paired import ratio
from latency.plan import TimingPlan


def measured(*processes: np.ndarray) -> Measurement:
    """Of each process the latency in ms by round, three equal runs in each."""
    samples = tuple((int(ms * 1e6),) * 3 for process in processes for ms in process)
    return Measurement(
        samples_ns=samples, process_rounds=tuple(map(len, processes)), warmup_ns=0, load_ns=0, plan=TimingPlan(), device=INFO,
        model_sha256="", taken_at="",
    )  # fmt: skip


def test_jumps_of_the_whole_device_leave_the_ratio() -> None:
    rng = np.random.default_rng(0)
    speeds = [rng.choice([1.0, 1.7], 20) for _ in range(12)]
    center, low, high = ratio(measured(*(0.9 * s for s in speeds)), measured(*(1.2 * s for s in speeds)))
    assert (center, low, high) == pytest.approx((0.75, 0.75, 0.75), rel=1e-4)


def test_rounds_that_one_of_them_has_no_more_do_not_count() -> None:
    """The one converged after six rounds, all fast; the other's last are slow."""
    speeds = np.where(np.arange(20) < 8, 1.0, 1.5)
    center, *_ = ratio(measured(0.5 * speeds[:6]), measured(speeds))
    assert center == pytest.approx(0.5, rel=1e-4)


def test_process_that_is_another_world_is_outvoted_and_counts_in_the_interval() -> None:
    ratios = [0.5] * 10 + [0.4, 0.4]  # caches laid out otherwise in two of twelve
    center, low, high = ratio(measured(*(r * np.ones(9) for r in ratios)), measured(*(np.ones(9) for _ in ratios)))
    assert center == pytest.approx(0.5, rel=1e-4)
    assert low == high == pytest.approx(0.5, rel=1e-4)  # drawn again, two of twelve are half of them in less than one case of a hundred
    ratios = [0.5] * 8 + [0.4] * 4
    assert ratio(measured(*(r * np.ones(9) for r in ratios)), measured(*(np.ones(9) for _ in ratios)))[1] == pytest.approx(0.4, rel=1e-4)


def test_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(100):
        between = np.exp(0.03 * rng.standard_normal(12))
        own, beside = ([v * np.exp(0.02 * rng.standard_normal(12)) for v in base] for base in (0.8 * between, np.ones(12)))
        _, low, high = ratio(measured(*own), measured(*beside))
        hits += low <= 0.8 <= high
    assert hits >= 88  # of 95 expected; fewer than 88 of 100 would be four standard deviations below


def test_model_beside_itself_takes_as_long() -> None:
    one = measured(np.linspace(1, 2, 9), np.linspace(2, 3, 9))
    assert ratio(one, one) == (1.0, 1.0, 1.0)
