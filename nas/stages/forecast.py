"""What the stages will do and how long that should take, said before the search: a guess from a few training steps on this computer."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from latency.console import duration
from nas.config import RunConfig
from nas.cores import become_worker, workers_of
from nas.distillation.teachers import named_network, open_teacher, resolve
from nas.forecast import STEPS, Speed, measured_speed
from nas.losses import LOSSES
from nas.refinement.forecast import steps_left
from nas.refinement.places import places
from nas.refinement.settings import USUAL_KINDS
from nas.stages.rules import USUAL_RATIO
from nas.tasks.task import Task
from search_spaces import Architecture, open_space

__all__ = ["say_stages"]

FULL_OF_A_REFINEMENT = 4  # the last network both ways, its seed, and that scaled down


def say_stages(config: RunConfig, task: Task, say: Callable[[str], None], *, is_new: bool, is_sized: bool = True) -> None:
    """Says the stages that follow the search, and for each what it does and about how long it takes from its beginning; without the
    latter where a budget has yet to decide how large the front is and how long it is trained (not ``is_sized``)."""
    space = open_space(config.space, width=config.width, input_chw=task.input_chw)
    rng = np.random.default_rng(config.seed)
    samples = [space.decode(space.sample(rng), task.head) for _ in range(3)]
    speed = measured_speed(samples, task, config.recipe.batch)
    workers = workers_of(config)
    more = "; --budget is for the search alone, and what follows comes on top" if config.budget_s else ""
    say(f"stages   {', '.join(config.stages)}{more}{'' if is_new else '; what is done of them is not done again'}")
    if "refine" in config.stages:
        count = min(config.refine_members, config.front_size)
        target = f"{config.refine_ms:g} ms" if config.refine_ms else f"{config.refine_ratio or USUAL_RATIO:g} of its latency"
        which = "the most accurate of the front" if count == 1 else f"the {count} most accurate of the front, each"
        wait = f"up to ~{duration(count * _refining_s(config, task, samples, speed, workers))}" if not config.refine_ms else (
            "how long depends on where they begin")  # fmt: skip
        say(f"refine   {which} to {target}{f' ({wait})' if is_sized else ''}")
    if "distill" in config.stages:
        teacher = f" from {config.teacher}" if LOSSES[config.loss].needs in ("teacher", "online") else ", without a teacher"
        if not is_sized:
            say(f"distill  the networks with {config.loss}{teacher}, for as many epochs as the budget gives full trainings")
            return
        most = config.front_size + config.refine_members * ("refine" in config.stages) + config.distill_baselines * len(config.baselines)
        wait = duration(_distilling_s(config, task, samples, speed, most, workers))
        epochs = f"{_epochs(config)} epoch{'s' * (_epochs(config) > 1)}"
        say(f"distill  up to {most} networks with {config.loss}{teacher}, {epochs} each (~{wait})")


def _epochs(config: RunConfig) -> int:
    return config.distill_epochs or config.final_epochs


def _mean_s(samples: list[Architecture], speed: Speed, images: float, epochs: float) -> float:
    return sum(speed.seconds(a, 1, 1) for a in samples) / len(samples) * images * epochs


def _refining_s(config: RunConfig, task: Task, samples: list[Architecture], speed: Speed, workers: int) -> float:
    """Expected seconds of one refinement whose steps save just their least."""
    ratio, images = config.refine_ratio or USUAL_RATIO, len(task.train)
    proposals = max(len(places(a, USUAL_KINDS)) for a in samples) + 1
    tuning = _mean_s(samples, speed, config.refine_steps * config.recipe.batch, 1)
    full = FULL_OF_A_REFINEMENT * _mean_s(samples, speed, images, config.final_epochs)
    return (steps_left(1.0, ratio, config.refine_delta, 1.0) * proposals * tuning + full) / workers


def _distilling_s(config: RunConfig, task: Task, samples: list[Architecture], speed: Speed, students: int, workers: int) -> float:
    """Expected seconds of teaching so many students; a fixed teacher is asked once, as its outputs are kept."""
    images, epochs = len(task.train), _epochs(config)
    own = students * _mean_s(samples, speed, images, epochs) / workers
    kind, _, name = config.teacher.partition(":")
    needs = LOSSES[config.loss].needs
    if needs == "online":
        return own + students * images * epochs * _step_s(named_network(name if kind == "train" else config.teacher_arch or "", task), task,
                                                          trains=True) / workers  # fmt: skip
    if needs != "teacher":
        return own
    if kind == "train":
        network = named_network(name, task)
        learning = images * (config.teacher_epochs or epochs) * _step_s(network, task, trains=True)
        return own + learning + images * epochs * _step_s(network, task, trains=False)
    teacher = open_teacher(resolve(config.teacher, task, arch=config.teacher_arch, norm=config.teacher_norm), task)
    return own + images * epochs * _step_s(teacher.module, task, trains=False, hw=teacher.spec.image_hw)


def _step_s(network: nn.Module, task: Task, *, trains: bool, hw: tuple[int, int] | None = None) -> float:
    """Seconds an image takes in ``network`` on one thread here, forward or forward and backward: the median of a few batches."""
    become_worker()
    x = torch.randn(16, task.input_chw[0], *(hw or task.input_chw[1:]))
    times = []
    with torch.set_grad_enabled(trains):
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            logits = network(x)
            if trains:
                logits.sum().backward()
            times.append(time.perf_counter() - began)
    return sorted(times[1:])[STEPS // 2] / len(x)
