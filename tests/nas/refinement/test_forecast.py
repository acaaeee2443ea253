from pathlib import Path

import pytest
import torch

from nas.models import build
from nas.recipe import Recipe
from nas.refinement.forecast import TuningSpeed, measured_tuning, steps_left
from nas.refinement.part import Part
from nas.tasks import open_task
from tests.nas.refinement.walks import SEED
from tests.nas.tasks.samples import write_npz

SPEED = TuningSpeed(step_s=0.1, scored_image_s=0.01, job_s=0.5)
PART = Part(held_out=100, steps=10, seed=0)


WAVES = [(1, 1, 2.5), (5, 1, 12.5), (5, 2, 3 * 2.5 * 1.1), (5, 8, 2.5 * 1.1), (1, 2, 2.5)]


@pytest.mark.parametrize(("trainings", "workers", "seconds"), WAVES)
def test_step_takes_its_waves_of_trainings(trainings: int, workers: int, seconds: float) -> None:
    assert SPEED.seconds(PART, trainings=trainings, workers=workers) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("current", "target", "delta", "decay", "steps"),
    [(10.0, 7.0, 1.0, 1.0, 3), (10.0, 7.1, 1.0, 1.0, 3), (10.0, 10.0, 1.0, 1.0, 0), (10.0, 8.5, 1.0, 0.5, 2), (10.0, 7.9, 1.0, 0.5, 1000)],
)  # fmt: skip
def test_steps_left_are_those_of_the_schedule(current: float, target: float, delta: float, decay: float, steps: int) -> None:
    assert steps_left(current, target, delta, decay) == steps


def test_timed_tuning_leaves_the_network_as_it_was_and_reads_no_clock_but_its_own(tmp_path: Path) -> None:
    task = open_task("classify", f"npz:{write_npz(tmp_path / 'small.npz')}")
    network = build(SEED, generator=torch.Generator().manual_seed(0))
    before = {key: t.clone() for key, t in network.state_dict().items()}
    ticks = iter([0.0, 0.25, 10.0, 11.0])  # preparing takes a quarter of a second, scoring a second
    speed = measured_tuning(network, task, Recipe(batch=8, crop_pixels=0), Part(held_out=10, steps=50, seed=0), lambda: next(ticks))
    assert (speed.job_s, speed.scored_image_s) == (0.25, 0.1)
    assert speed.step_s > 0
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())
