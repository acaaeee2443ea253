"""Levelling: figures of models timed in turns keep their proportions however the device's speed jumps."""

import numpy as np
import pytest

from latency.devices.fake import INFO
from latency.measurement import Measurement
from latency.plan import TimingPlan
from latency.turns import levelled_ms

PLAN = TimingPlan()


def measured(ms_by_round: np.ndarray) -> Measurement:
    """Three equal runs in each round."""
    samples = tuple((int(ms * 1e6),) * 3 for ms in ms_by_round)
    return Measurement(samples_ns=samples, warmup_ns=0, load_ns=0, plan=PLAN, device=INFO, model_sha256="", taken_at="")


OWN_MS = np.array([0.1, 0.2, 0.3, 0.5, 1.0, 2.0])


def test_jumps_of_the_whole_device_leave_the_proportions() -> None:
    speeds = np.where(np.arange(20) % 7 < 3, 1.5, 1.0)
    found = levelled_ms([measured(own * speeds) for own in OWN_MS])
    assert np.array(found) / found[0] == pytest.approx(OWN_MS / OWN_MS[0], rel=1e-4)


def test_model_that_was_done_before_the_device_slowed_down_is_not_thought_faster() -> None:
    speeds = np.where(np.arange(20) < 8, 1.0, 1.4)
    rounds = [6, 20, 20, 20, 20, 20]  # plain medians would say 0.1 and 1.4 · 0.2
    found = levelled_ms([measured(own * speeds[:count]) for own, count in zip(OWN_MS, rounds, strict=True)])
    assert found[1] / found[0] == pytest.approx(2, rel=1e-3)


def test_steady_device_gives_the_plain_medians() -> None:
    assert levelled_ms([measured(own * np.ones(9)) for own in OWN_MS]) == pytest.approx(OWN_MS, rel=1e-5)


def test_few_models_are_left_as_they_are() -> None:
    found = levelled_ms([measured(np.array([1.0, 2.0, 3.0])), measured(np.array([5.0, 5.0, 5.0]))])
    assert found == pytest.approx([2, 5], rel=1e-5)


def test_one_disturbed_run_of_one_model_moves_nothing() -> None:
    rounds = np.ones((6, 15)) * OWN_MS[:, None]
    rounds[2, 4] *= 30
    assert levelled_ms([measured(row) for row in rounds]) == pytest.approx(OWN_MS, rel=1e-5)
