"""How long a step will take, from a fine-tuning that is timed before it."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from nas.cores import become_worker
from nas.models import Network
from nas.recipe import Recipe
from nas.refinement.part import Part, parted
from nas.tasks.task import Task

__all__ = ["TuningSpeed", "measured_tuning", "steps_left"]

WARM_UP_STEPS, TIMED_STEPS = 2, 8
SCORED = 256
BESIDE = 1.1  # what a worker loses beside others that are as busy


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningSpeed:
    """Seconds of one optimizer step, of scoring one image, and of what comes once a job."""

    step_s: float
    scored_image_s: float
    job_s: float

    def seconds(self, part: Part, *, trainings: int, workers: int) -> float:
        """Expected wall time of the fine-tunings of a step of the refinement, so many at a time."""
        one = part.steps * self.step_s + part.held_out * self.scored_image_s + self.job_s
        return math.ceil(trainings / workers) * one * (BESIDE if min(workers, trainings) > 1 else 1.0)


def measured_tuning(
    network: Network, task: Task, recipe: Recipe, part: Part, clock: Callable[[], float] = time.perf_counter
) -> TuningSpeed:
    """The speed of this process on one thread, from some steps of ``network``, which is left as it was."""
    from nas.evaluate import predict
    from nas.train import fit

    become_worker()

    began = clock()
    scored = min(SCORED, part.held_out)
    first, short = parted(task, recipe, msgspec.structs.replace(part, steps=WARM_UP_STEPS, held_out=scored))
    prepared_s = clock() - began
    fit(copy.deepcopy(network), first, short, seed=0)
    timed, short = parted(task, recipe, msgspec.structs.replace(part, steps=TIMED_STEPS, held_out=scored))
    module = copy.deepcopy(network)
    found = fit(module, timed, short, seed=0)
    began = clock()
    predict(module, timed.load("valid").x, task)
    scored_s = clock() - began
    batch = min(recipe.batch, len(timed.train))
    return TuningSpeed(step_s=batch / found.images_per_second, scored_image_s=scored_s / scored, job_s=prepared_s)


def steps_left(current_ms: float, target_ms: float, delta_ms: float, decay: float, least_ms: float = 0.0) -> int:
    """How many more steps a path takes whose steps save just their delta, and ``least_ms`` at least; at most a thousand.

    >>> steps_left(10.0, 7.0, 0.5, 1.0), steps_left(10.0, 10.0, 0.5, 1.0), steps_left(10.0, 7.0, 1.0, 0.5, 0.5)
    (6, 0, 5)
    """
    steps = 0
    while current_ms > target_ms * (1 + 1e-9) and steps < 1000:
        current_ms, delta_ms, steps = current_ms - delta_ms, max(delta_ms * decay, least_ms), steps + 1
    return steps
