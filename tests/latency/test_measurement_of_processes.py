"""Statistics over several processes, against an anchor, and with frequencies: hand arithmetic and simulation."""

import math

import msgspec
import numpy as np
import pytest

from latency.measurement import Measurement
from tests.latency.test_measurement import measurement, noisy


def processes(*medians_ms: float, rounds: int = 12, noise: float = 0.002, seed: int = 0) -> Measurement:
    """Processes around these medians, ``rounds`` × 5 runs each."""
    rng = np.random.default_rng(seed)
    wall = np.concatenate([1e6 * m * (1 + noise * rng.standard_normal((rounds, 5))) for m in medians_ms])
    return msgspec.structs.replace(measurement(wall), process_rounds=(rounds,) * len(medians_ms))


def anchored(wall: np.ndarray, anchor_ns: np.ndarray, reference_ns: int = 0) -> Measurement:
    anchor = tuple(anchor_ns.astype(int).tolist())
    return msgspec.structs.replace(measurement(wall), anchor_ns=anchor, anchor_reference_ns=reference_ns)


def test_median_is_the_middle_one_of_the_processes() -> None:
    taken = processes(1.0, 1.02, 1.3, noise=0)
    assert taken.process_p50_ms == pytest.approx((1.0, 1.02, 1.3))
    assert taken.p50_ms == pytest.approx(1.02)


def test_spread_between_processes_is_their_standard_deviation_over_their_mean() -> None:
    # 1.0 and 1.1: standard deviation 0.0707 (n − 1) around 1.05.
    assert processes(1.0, 1.1, noise=0).process_cv == pytest.approx(0.1 / math.sqrt(2) / 1.05)
    assert measurement(noisy()).process_cv is None


def test_interval_of_three_steady_processes_is_students() -> None:
    low, high = processes(1.0, 1.02, 1.05, noise=0).ci_ms
    # standard deviation 0.02517, 97.5th percentile of t with 2 degrees of freedom 4.303: 4.303 · 0.02517 · √(π / 2 / 3) = 0.0784
    assert (1.02 - low, high - 1.02) == pytest.approx((0.0784, 0.0784), rel=0.15)  # 2000 draws of a long tail


def test_interval_over_processes_holds_the_truth_more_often_than_that_of_one() -> None:
    several = one = 0
    for seed in range(100):
        medians = 1 + 0.02 * np.random.default_rng(seed).standard_normal(5)
        taken = processes(*medians, seed=seed)
        low, high = taken.ci_ms
        several += low <= 1 <= high
        first = taken.split()[0]
        one += first.ci_ms[0] <= 1 <= first.ci_ms[1]
    # Of five processes with 2 % between them the interval covers 19 times in 20, of one almost never.
    assert several >= 88
    assert one <= 20


def test_one_process_is_widened_by_the_spread_that_the_device_has_between_them() -> None:
    narrow = measurement(noisy())
    wide = msgspec.structs.replace(narrow, between_cv=0.05)
    low, high = narrow.ci_ms
    more = 1.96 * 0.05 * narrow.p50_ms
    expected = (narrow.p50_ms - math.hypot(narrow.p50_ms - low, more), narrow.p50_ms + math.hypot(high - narrow.p50_ms, more))
    assert wide.ci_ms == pytest.approx(expected)
    assert wide.problems() == ()


def test_a_known_spread_does_not_widen_what_was_measured_in_several_processes() -> None:
    taken = processes(1.0, 1.01, 1.02)
    assert msgspec.structs.replace(taken, between_cv=0.05).ci_ms == taken.ci_ms


def test_processes_that_differ_are_said_with_their_range() -> None:
    (problem,) = processes(1.0, 1.02, 1.1).problems()
    assert problem.startswith("unstable: the medians of 3 processes lie between 1 and 1.1 ms and vary by ")


def test_processes_that_agree_have_no_problems() -> None:
    assert processes(1.0, 1.005, 1.01).problems() == ()


def test_a_change_from_process_to_process_is_no_drift() -> None:
    assert not any("second half" in p for p in processes(1.0, 1.2).problems())


def test_too_few_rounds_of_one_process_are_said() -> None:
    taken = msgspec.structs.replace(processes(1.0, 1.0), process_rounds=(20, 4))
    assert taken.problems()[0].startswith("only 20 runs in 4 rounds of process 2 fitted into 600 ms")


def test_split_gives_back_each_process_with_what_belongs_to_it() -> None:
    taken = msgspec.structs.replace(processes(1.0, 2.0), anchor_ns=tuple(range(1, 25)), stopped=("converged", "max_ms"))
    first, second = taken.split()
    assert (len(first.samples_ns), first.stopped, first.anchor_ns) == (12, ("converged",), tuple(range(1, 13)))
    assert (second.stopped, second.anchor_ns) == (("max_ms",), tuple(range(13, 25)))
    assert second.p50_ms == taken.process_p50_ms[1]


def test_ratio_to_the_anchor_cancels_what_slows_the_device() -> None:
    slow = np.linspace(1, 2, 20)
    taken = anchored(2e6 * slow[:, None] * np.ones((20, 5)), 5e5 * slow, 500_000)
    assert taken.anchor_ratio == pytest.approx((4.0, 4.0, 4.0), rel=1e-5)
    assert taken.normalised_ms == pytest.approx(2.0, rel=1e-5)


def test_without_an_anchor_there_is_no_ratio() -> None:
    assert (measurement(noisy()).anchor_ratio, measurement(noisy()).normalised_ms) == (None, None)


def test_without_a_reference_nothing_is_normalised() -> None:
    assert anchored(noisy(), np.full(20, 5e5)).normalised_ms is None


def test_rounds_of_which_every_run_was_preempted_have_no_part_in_the_ratio() -> None:
    wall, cpu = np.full((10, 5), 1e6), np.full((10, 5), 1e6)
    wall[3] = 9e6
    anchor = np.full(10, 500_000)
    anchor[3] = 100
    taken = msgspec.structs.replace(measurement(wall, cpu), anchor_ns=tuple(anchor.tolist()))
    assert taken.anchor_ratio == (2.0, 2.0, 2.0)


def test_rounds_at_a_lower_frequency_are_left_out() -> None:
    wall = np.full((20, 5), 1e6)
    wall[15:] = 2e6
    taken = msgspec.structs.replace(measurement(wall), mhz=(2000,) * 15 + (1000,) * 5)
    assert (taken.p90_ms, taken.slowed_share) == (1.0, 0.25)
    (problem,) = taken.problems()
    assert problem.startswith("the core's frequency fell from 2000 to 1000 MHz, and 25% of the rounds ran at less than 90 % of the usual")


def test_notes_of_the_device_and_throttling_are_problems() -> None:
    taken = msgspec.structs.replace(measurement(noisy()), notes=("its battery is at 9 %",), stopped=("throttled",))
    assert taken.problems()[0] == "its battery is at 9 %"
    assert taken.problems()[1].startswith("throttled: ")


def test_least_and_percentiles_are_over_the_runs_that_count() -> None:
    taken = measurement(np.arange(1, 102).reshape(1, 101) * 1e6)
    assert (taken.min_ms, taken.p10_ms, taken.p99_ms) == pytest.approx((1, 11, 100))


def test_cpu_median_is_over_all_runs() -> None:
    cpu = np.full((10, 5), 1e6)
    assert measurement(cpu * 5, cpu).cpu_p50_ms == 1.0
    assert measurement(cpu).cpu_p50_ms is None




def test_a_process_that_never_had_the_core_to_itself_is_there_by_its_cpu_time() -> None:
    cpu = np.full((24, 5), 1e6)
    wall = cpu.copy()
    wall[16:] = 3e6
    taken = msgspec.structs.replace(measurement(wall, cpu), process_rounds=(8, 8, 8))
    assert taken.process_p50_ms == (1.0, 1.0, 1.0)
    said = "33% of the runs were preempted, so 1 of its 3 processes counts by CPU time and not wall time: stop other work on the device"
    assert said in taken.problems()


def test_a_process_at_a_lower_frequency_is_not_left_out_as_a_whole() -> None:
    wall = np.full((24, 5), 1e6)
    wall[16:] = 2e6
    taken = msgspec.structs.replace(measurement(wall), process_rounds=(8, 8, 8), mhz=(2000,) * 16 + (1000,) * 8)
    assert taken.process_p50_ms == (1.0, 1.0, 2.0)
    assert any(problem.startswith("unstable") for problem in taken.problems())
