from collections.abc import Sequence

import numpy as np
import pytest

from latency import DeviceInfo, Measurement, TimingPlan
from latency.compare import compare

INFO = DeviceInfo(kind="test", cpu="none", cores=1, machine="none", os="none", runtime="none")


def measurement(rounds: Sequence[Sequence[float]], cpu: Sequence[Sequence[float]] = ()) -> Measurement:
    """Rounds in microseconds; ``cpu`` in the same."""
    wall_ns, cpu_ns = (tuple(tuple(round(v * 1000) for v in r) for r in each) for each in (rounds, cpu))
    return Measurement(
        samples_ns=wall_ns, cpu_ns=cpu_ns, warmup_ns=1, load_ns=1, plan=TimingPlan(), device=INFO, model_sha256="", taken_at="",
    )  # fmt: skip


def noisy(base_us: float, rng: np.random.Generator, drift: np.ndarray) -> Measurement:
    """Three runs a round with 3 % noise, all rounds slowed by ``drift`` (R,)."""
    return measurement((base_us * drift[:, None] * (1 + 0.03 * rng.standard_normal((len(drift), 3)))).tolist())


def test_ratio_is_exact_under_a_slowdown_that_hits_both() -> None:
    slow = np.linspace(1, 3, 20)  # the device becomes three times slower on the way
    a, b = (measurement([[base * s] * 3 for s in slow]) for base in (1000, 1250))
    found = compare("a", "b", [a], [b])
    # Whole nanoseconds of a millisecond: exact to 1e-6.
    assert (found.ratio, found.low, found.high) == pytest.approx((1.25, 1.25, 1.25), rel=2e-6)


def test_sentence_puts_the_faster_model_first() -> None:
    quick, slow = measurement([[100.0]] * 12), measurement([[200.0]] * 12)
    assert compare("a", "b", [quick], [slow]).text == "a is 2.000× (2.000–2.000) as fast as b; 12 pairs of rounds in 1 session"
    assert compare("a", "b", [slow], [quick]).text == "b is 2.000× (2.000–2.000) as fast as a; 12 pairs of rounds in 1 session"


def test_sentence_shows_an_interval_of_several_per_cent_with_two_decimals() -> None:
    rng, steady = np.random.default_rng(1), np.ones(10)
    text = compare("a", "b", [noisy(100, rng, steady)], [noisy(150, rng, steady)]).text
    assert text.startswith("a is 1.")
    assert len(text.partition("×")[0]) == len("a is 1.50")


def test_equal_models_show_no_difference() -> None:
    rng, drift = np.random.default_rng(0), np.ones(30)
    found = compare("a", "b", [noisy(500, rng, drift)], [noisy(500, rng, drift)])
    assert found.low < 1 < found.high
    assert found.text.startswith("no difference beyond the noise: a is ")


def test_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng, hits, trials = np.random.default_rng(0), 0, 100
    for _ in range(trials):
        drift = 1 + 0.2 * rng.random(20)
        found = compare("a", "b", [noisy(1000, rng, drift)], [noisy(1050, rng, drift)])
        hits += found.low <= 1.05 <= found.high
    # 95 % promised; a percentile bootstrap of 20 rounds gives a few per cent less, and 100 trials scatter by 2 %.
    assert hits >= 88


def test_sessions_that_disagree_widen_the_interval() -> None:
    sessions = [(measurement([[100.0]] * 12), measurement([[100.0 * r]] * 12)) for r in (1.0, 1.1, 1.2)]
    found = compare("a", "b", [a for a, _ in sessions], [b for _, b in sessions])
    assert (found.low, found.ratio, found.high) == pytest.approx((1.0, 1.1, 1.2))
    assert (found.rounds, found.sessions) == (36, 3)


def test_rounds_that_one_model_ran_alone_do_not_count() -> None:
    alone = measurement([[100.0]] * 10 + [[900.0]] * 90)
    found = compare("a", "b", [alone], [measurement([[200.0]] * 10)])
    assert (found.ratio, found.rounds) == (2.0, 10)


def test_preempted_runs_do_not_count() -> None:
    # Every round's first run waits for another process: wall time far above CPU time.
    cpu = [[100.0, 100.0]] * 12
    disturbed, quiet = measurement([[5000.0, 100.0]] * 12, cpu), measurement([[100.0, 100.0]] * 12, cpu)
    found = compare("a", "b", [disturbed], [quiet])
    assert (found.ratio, found.clock) == (1.0, "wall")


def test_mostly_preempted_rounds_are_compared_by_cpu_time_and_say_so() -> None:
    cpu = [[100.0, 100.0]] * 12
    disturbed, quiet = measurement([[5000.0, 5000.0]] * 12, cpu), measurement([[200.0, 200.0]] * 12, [[200.0, 200.0]] * 12)
    found = compare("a", "b", [disturbed], [quiet])
    assert (found.ratio, found.clock) == (2.0, "cpu")
    assert found.text.endswith("by CPU time: other work kept interrupting")
