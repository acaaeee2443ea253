import hashlib
import pickle

import msgspec
import numpy as np
import pytest

from latency.measurement import DeviceInfo, Measurement, half_width
from latency.plan import TimingPlan

INFO = DeviceInfo(kind="local", cpu="Acme 9", cores=2, machine="x86_64", os="Linux", runtime="onnxruntime 1.2.3", governor="powersave")
PLAN = TimingPlan(min_rounds=10, min_samples=20, half_width=0.02)


def measurement(wall_ns: np.ndarray, cpu_ns: np.ndarray | None = None, *, plan: TimingPlan = PLAN, info: DeviceInfo = INFO) -> Measurement:
    """A measurement of (R, B) wall times, R rounds of B runs."""
    return Measurement(
        samples_ns=rows(wall_ns), cpu_ns=() if cpu_ns is None else rows(cpu_ns), warmup_ns=1, load_ns=1, plan=plan, device=info,
        model_sha256="0" * 64, taken_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


def rows(values: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in values.astype(int).tolist())


def noisy(rounds: int = 20, runs: int = 10, *, relative: float = 0.01, seed: int = 0) -> np.ndarray:
    return 1e6 * (1 + relative * np.random.default_rng(seed).standard_normal((rounds, runs)))


def preempted(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Wall and CPU time of 20 × 10 runs of 1 ms; a share of the runs lost the core for 4 ms."""
    cpu = np.full((20, 10), 1e6)
    wall = cpu + 500
    wall.T.flat[: round(share * wall.size)] += 4e6
    wall[:] = np.random.default_rng(0).permutation(wall.ravel()).reshape(wall.shape)
    return wall, cpu


def test_median_and_percentile_are_over_all_runs_in_milliseconds() -> None:
    ramp = np.arange(1, 101).reshape(10, 10) * 1e6
    assert measurement(ramp).p50_ms == pytest.approx(50.5)
    assert measurement(ramp).p90_ms == pytest.approx(90.1)


def test_spread_is_the_interquartile_range_over_the_median() -> None:
    ramp = np.arange(1, 102).reshape(1, 101) * 1e6
    assert measurement(ramp).spread == pytest.approx(50 / 51)


def test_interval_agrees_with_a_bootstrap_written_out() -> None:
    wall = noisy(rounds=12, runs=5, relative=0.05)
    rng = np.random.default_rng(7)
    medians = [np.median(wall[rng.integers(0, 12, 12)]) for _ in range(4000)]
    expected = np.percentile(medians, (2.5, 97.5)) / 1e6
    # Two bootstraps of 1000 and 4000 draws differ by a few per cent of the interval's own width.
    assert measurement(wall).ci_ms == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))


def test_interval_holds_the_true_median_about_95_times_in_100() -> None:
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        wall = 1e6 * (1 + 0.02 * rng.standard_normal((20, 1)) + 0.02 * rng.standard_normal((20, 5)))
        low, high = measurement(wall).ci_ms
        hits += low <= 1.0 <= high
    # A percentile bootstrap of 20 rounds is a little too narrow: 90 to 99 of 100.
    assert 180 <= hits <= 198


def test_interval_is_the_same_at_every_call() -> None:
    assert measurement(noisy()).ci_ms == measurement(noisy()).ci_ms


def test_interval_holds_the_median_itself() -> None:
    # One round of 1 and 2 ms: every draw is that round, of which each resampled median is a run; the median is 1.5 ms.
    taken = measurement(np.array([[1e6, 2e6]]))
    assert taken.ci_ms[0] <= taken.p50_ms == 1.5 <= taken.ci_ms[1]


def test_half_width_is_that_of_the_interval() -> None:
    taken = measurement(noisy(relative=0.05))
    low, high = taken.ci_ms
    assert half_width(taken.samples_ns) == pytest.approx((high - low) / 2 / taken.p50_ms)


def test_steady_runs_have_no_problems() -> None:
    assert measurement(noisy()).problems() == ()


def test_preempted_runs_are_left_out() -> None:
    taken = measurement(*preempted(0.1))
    assert taken.rejected_share == pytest.approx(0.1)
    assert taken.p90_ms == pytest.approx(1.0005)
    assert taken.problems() == ()


def test_many_preempted_runs_are_said() -> None:
    assert "30% of the runs were preempted and left out" in measurement(*preempted(0.3)).problems()[0]


def test_cpu_time_stands_in_when_most_runs_were_preempted() -> None:
    taken = measurement(*preempted(0.7))
    assert taken.p50_ms == 1.0
    assert "this is CPU time and not wall time" in taken.problems()[0]


def test_without_cpu_time_nothing_is_rejected() -> None:
    wall, _ = preempted(0.1)
    assert measurement(wall).rejected_share == 0
    assert measurement(wall).p90_ms > 1.0005


def test_wide_interval_is_said_with_both_figures() -> None:
    problem = measurement(noisy(relative=0.5)).problems()[0]
    assert problem.startswith("the median is known to ±")
    assert "the plan wants ±2.0%" in problem


def test_drift_over_the_rounds_is_said() -> None:
    wall = noisy()
    wall[10:] *= 1.1
    assert any("the second half of the rounds is +10" in p for p in measurement(wall).problems())


def test_a_difference_within_the_noise_of_the_rounds_is_no_drift() -> None:
    wall = np.full((10, 4), 1e6) * np.array([0.9, 1.1, 0.9, 1.1, 0.9, 1.1, 0.9, 1.1, 0.9, 1.1])[:, None]
    assert np.median(wall[5:]) / np.median(wall[:5]) > 1.2
    assert not any("second half" in p for p in measurement(wall).problems())


def test_too_few_rounds_are_said() -> None:
    assert measurement(noisy(rounds=3)).problems()[0].startswith("only 30 runs in 3 rounds fitted into 600 ms")


def test_coarse_clock_is_said() -> None:
    info = msgspec.structs.replace(INFO, timer_ns=15_000)
    assert "the device's clock counts in steps of 15000 ns" in measurement(noisy(), info=info).problems()[0]


def test_measurement_survives_json_and_pickle() -> None:
    taken = measurement(*preempted(0.1))
    assert taken.p50_ms > 0
    assert msgspec.json.decode(msgspec.json.encode(taken), type=Measurement) == taken
    assert pickle.loads(pickle.dumps(taken)) == taken


def test_device_id_changes_with_the_runtime_and_not_with_the_governor() -> None:
    assert INFO.id == msgspec.structs.replace(INFO, governor="performance").id
    assert INFO.id != msgspec.structs.replace(INFO, runtime="onnxruntime 1.2.4").id


def test_device_id_does_not_change_with_the_kernel() -> None:
    assert INFO.id == msgspec.structs.replace(INFO, kernel="Linux 6.6").id


def test_device_id_is_the_hash_of_what_the_device_is() -> None:
    text = (
        '{"cores":2,"cpu":"Acme 9","governor":"","isa":[],"kind":"local","machine":"x86_64","max_mhz":0,"os":"Linux",'
        '"runtime":"onnxruntime 1.2.3","runtime_build":"","timer_ns":1}'
    )
    assert INFO.id == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_device_name_is_short() -> None:
    assert INFO.name == "local (Acme 9, 2 cores)"


@pytest.mark.parametrize(("threads", "cores", "is_said"), [(2, 2, False), (3, 2, True), (2, 1, True), (4, 0, False)])
def test_more_threads_than_cores_are_said(threads: int, cores: int, is_said: bool) -> None:
    taken = measurement(noisy(), plan=msgspec.structs.replace(PLAN, threads=threads), info=msgspec.structs.replace(INFO, cores=cores))
    assert any(f"{threads} threads for {cores} core" in problem for problem in taken.problems()) == is_said


def test_more_threads_than_the_cores_that_were_used_are_said() -> None:
    taken = msgspec.structs.replace(measurement(noisy(), plan=msgspec.structs.replace(PLAN, threads=2)), cpus=(1,))
    assert taken.problems() == ("the plan has 2 threads for 1 core, and they wait for each other: use at most 1",)
