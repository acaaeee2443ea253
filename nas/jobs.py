"""Work that a worker does: train one architecture and score it, or score it with weights from a bank. Values go in, values come out."""

import errno
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from nas.calibration import Calibration
from nas.config import RunConfig
from nas.cores import torch_device
from nas.distillation.lesson import LessonJob
from nas.errors import Stopped
from nas.recipe import BankPlan, Recipe
from nas.refinement.part import Part, parted
from nas.tasks.task import Task
from search_spaces.architecture import Architecture

__all__ = [
    "DONE", "Done", "Job", "JobQueue", "JobSource", "Outcome", "SourceChain", "open_config_task", "plan_for", "recipe_for", "run_job",
]  # fmt: skip


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One network to train. ``weights`` is where its weights go; ``test`` asks for one score on the test split too; ``lesson`` distils.

    ``init`` is a file of weights to begin with; "": drawn by the seed. With ``part`` it is trained on part of the training images and
    scored on another part of them; None: trained on all of them, scored on valid. With ``bank``, a finished bank's file, nothing is
    trained: the network is scored with the weights that it inherits. With ``probe_s``, training steps are timed for so long, and
    nothing is scored or stored.
    """

    key: str
    arch: Architecture
    recipe: Recipe
    seed: int
    weights: str
    test: bool = False
    init: str = ""
    part: Part | None = None
    lesson: LessonJob | None = None
    bank: str = ""
    probe_s: float = 0.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job: a score on valid (and test), or ``error``, the traceback.

    ``story`` is a sentence for the user; ``terms`` are the means of a lesson's terms, per epoch.
    ``stop`` says why the whole run must end: the network is not to blame, and is trained again when the run goes on.
    """

    key: str
    score: float | None = None
    test_score: float | None = None
    calibration: Calibration | None = None
    test_calibration: Calibration | None = None
    terms: dict[str, tuple[float, ...]] = {}
    story: str = ""
    seconds: float = 0.0
    image_s: float = 0.0  # of a probe: training on one image, in seconds
    error: str = ""
    stop: str = ""


class Done:
    """The type of ``DONE``: no more jobs will come."""


DONE = Done()


class JobSource(Protocol):
    """Where an executor gets its jobs. Both calls come from the driver's thread, one after the other."""

    def next(self) -> Job | Done | None:
        """The next job; None: none before an outstanding one is finished; DONE: none any more."""

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Takes in what became of a job."""


class JobQueue:
    """Jobs that are known from the beginning, in order: what several sources hand out from."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs = deque(jobs)
        self._out = 0

    def __len__(self) -> int:
        """How many are left to hand out."""
        return len(self.jobs)

    def next(self) -> Job | Done | None:
        """The next job; see ``JobSource``."""
        if not self.jobs:
            return None if self._out else DONE
        self._out += 1
        return self.jobs.popleft()

    def take_back(self, outcome: Outcome) -> None:
        """One job less is out.

        Raises:
            Stopped: the outcome has a reason to stop that is no fault of the network.
        """
        self._out -= 1
        if outcome.stop:
            raise Stopped(outcome.stop)


class SourceChain:
    """Sources one after the other as one source, so that workers are started once: the next is opened when the last is done."""

    def __init__(self, openers: Sequence[Callable[[], JobSource]]) -> None:
        self._openers = deque(openers)
        self._source: JobSource | None = None
        self._peeked: Job | Done | None = None

    def peek(self) -> Job | Done | None:
        """The job that ``next`` will give: whether there is work at all, before workers are started for it."""
        if self._peeked is None:
            self._peeked = self.next()
        return self._peeked

    def next(self) -> Job | Done | None:
        """The next job of the source at work; see ``JobSource``."""
        if self._peeked is not None:
            job, self._peeked = self._peeked, None
            return job
        while True:
            found = DONE if self._source is None else self._source.next()  # not "if self._source": a source may have a length, and be false
            if not isinstance(found, Done) or not self._openers:
                return found
            self._source = self._openers.popleft()()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Hands an outcome to the source at work: a source is done only when its jobs are."""
        assert self._source is not None, "outcomes come after jobs"
        self._source.finish(job, outcome)


def recipe_for(config: RunConfig, epochs: int) -> Recipe:
    """The configuration's recipe at ``epochs``, its warm-up no longer than half of them."""
    return _at(config.recipe, epochs)


def plan_for(config: RunConfig) -> BankPlan:
    """The configuration's plan for a bank at ``bank_epochs``, its warm-up no longer than half of them."""
    return msgspec.structs.replace(config.bank, recipe=_at(config.bank.recipe, config.bank_epochs))


def _at(recipe: Recipe, epochs: int) -> Recipe:
    return msgspec.structs.replace(recipe, epochs=epochs, warmup_epochs=min(recipe.warmup_epochs, epochs / 2))


def open_config_task(config: RunConfig) -> Task:
    """The task that a configuration names, its data loaded."""
    from nas.tasks import open_task

    seed = config.seed if config.data_seed is None else config.data_seed
    return open_task(
        config.task, config.data, image_size=config.image_size, train_images=config.train_images, seed=seed,
        root=config.data_root,
    )


def run_job(job: Job, task: Task, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Trains, scores and stores one network (or only scores it) on this process's device; what it raises becomes ``error``.

    The seed fixes initial weights, order and augmentation. Interrupts pass through.
    """
    started = clock()
    try:
        done = _probed(job, task) if job.probe_s else _inherited(job, task) if job.bank else _train(job, task)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Outcome(key=job.key, stop=f"{job.weights}: {error.strerror}; free some, and the same command goes on from there")
        return Outcome(key=job.key, seconds=clock() - started, error=traceback.format_exc())
    return msgspec.structs.replace(done, seconds=clock() - started)


def _train(job: Job, task: Task) -> Outcome:
    import torch

    from nas.evaluate import judge
    from nas.models import build
    from nas.train import fit
    from nas.weights import load, save

    arch, lesson = job.arch, None
    if job.lesson:
        from nas.distillation.teaching import open_lesson, tapped

        arch = tapped(job.arch, job.lesson.config)
        lesson = open_lesson(job.lesson, arch, task, job.recipe, job.seed)
    network = build(arch, dropout=job.recipe.dropout, generator=torch.Generator().manual_seed(job.seed))
    if job.init:
        network.load_state_dict(load(job.init))
    on, recipe = parted(task, job.recipe, job.part) if job.part else (task, job.recipe)
    result = fit(network, on, recipe, seed=job.seed, lesson=lesson)
    tested = judge(network, task, "test", temperature=result.calibration.temperature) if job.test else None
    save(network.state_dict(), Path(job.weights), metadata={"arch": job.arch.id})
    return Outcome(
        key=job.key, score=result.score, calibration=result.calibration, test_score=tested.score if tested else None,
        test_calibration=tested.calibration if tested else None, story=lesson.story(task) if lesson else "",
        terms={name: tuple(round(mean, 6) for mean in means) for name, means in result.terms.items()},
    )  # fmt: skip


def _probed(job: Job, task: Task) -> Outcome:
    import torch

    from nas.models import build
    from nas.train import timed_steps

    network = build(job.arch, dropout=job.recipe.dropout, generator=torch.Generator().manual_seed(job.seed))
    step_s = timed_steps(network, task, job.recipe, seconds=job.probe_s)
    return Outcome(key=job.key, image_s=step_s / min(job.recipe.batch, len(task.train)))


def _inherited(job: Job, task: Task) -> Outcome:
    from nas.sharing.inherited import inherited_score, kept_bank

    bank = kept_bank(job.bank, torch_device().type)
    return Outcome(key=job.key, score=inherited_score(bank, job.arch, task, job.recipe))
