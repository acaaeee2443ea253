"""Lessons for ``nas.train.fit``: a fixed teacher's logits, the student's own weak classifier, or a teacher that trains beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import torch
from torch import Tensor, nn

from nas.distillation.lesson import PLAIN, LessonConfig, LessonJob, lesson_key
from nas.distillation.lessons import SHARED, lessons
from nas.distillation.teacher_logits import AskedLogits, StoredLogits
from nas.distillation.teachers import named_network, open_teacher
from nas.errors import InvalidConfig, InvalidTeacher
from nas.evaluate import evaluate
from nas.losses import LOSSES, Method
from nas.models.features import Feature, Featured, feature_of
from nas.models.taps import second_to_last, tap_ch, with_taps
from nas.recipe import Recipe
from nas.tasks.task import Task
from nas.train import Batch, Fit, fit
from search_spaces.architecture import Architecture

__all__ = ["Taught", "TaughtByItself", "TaughtByTeacher", "TaughtOnline", "Weights", "open_lesson", "tapped", "teach"]


TaskLoss = Callable[[Tensor, Tensor], Tensor]


class TeacherLogits(Protocol):
    """Where a fixed teacher's logits come from."""

    story: str  # what to tell of it when the training is done

    def prepare(self, device: torch.device, *, precision: str, steps: int, batch: int) -> None:
        """See ``nas.train.Lesson``."""

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (B, K), float32, for the batch's images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """How much of a loss enters: ``task`` · the task's, and ``term`` · the lesson's, grown over the first ``warmup`` of the steps."""

    task: float = 1.0
    term: float = 1.0
    warmup: float = 0.0

    def at(self, batch: Batch) -> float:
        """The term's weight in this step."""
        ramp = self.warmup * batch.steps
        return self.term * min(1.0, (batch.step + 1) / ramp) if ramp else self.term


class TaughtByTeacher:
    """A loss between the student's and a fixed teacher's logits, under the loss's ``name``."""

    reads_features = False

    def __init__(self, name: str, loss: nn.Module, logits: TeacherLogits, weights: Weights) -> None:
        self.task_weight = weights.task
        self.parts: Sequence[nn.Module] = ()
        self._name, self._loss, self._logits, self._weights = name, loss, logits, weights

    def story(self, task: Task) -> str:
        """What to tell of the teacher's outputs when the training is done."""
        return self._logits.story

    def prepare(self, device: torch.device, *, precision: str, steps: int, batch: int) -> None:
        """See ``nas.train.Lesson``."""
        self._logits.prepare(device, precision=precision, steps=steps, batch=batch)

    def terms(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``nas.train.Lesson``."""
        return {self._name: self._weights.at(batch) * self._loss(batch.logits, self._logits(batch), batch.y)}


class TaughtByItself:
    """A loss of the student's own logits and first tapped feature map; its weak classifier trains along."""

    reads_features = True

    def __init__(self, name: str, loss: nn.Module, weights: Weights) -> None:
        self.task_weight = weights.task
        self.parts: Sequence[nn.Module] = (loss,)
        self._name, self._loss, self._weights = name, loss, weights

    def story(self, task: Task) -> str:
        """Nothing is to be told of it."""
        return ""

    def prepare(self, device: torch.device, *, precision: str, steps: int, batch: int) -> None:
        """See ``nas.train.Lesson``."""
        self._loss.to(device)

    def terms(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``nas.train.Lesson``."""
        return {self._name: self._weights.at(batch) * self._loss(batch.logits, batch.features[0], batch.y)}


class TaughtOnline:
    """Two networks learn from each other on the same images, step by step; the terms are the student's and the teacher's whole loss.

    One optimizer holds both, which is two with one schedule: no gradient crosses, and each network is clipped by itself.
    """

    reads_features = False

    def __init__(self, name: str, loss: nn.Module, teacher: nn.Module, task_loss: TaskLoss, weights: Weights) -> None:
        self.task_weight = weights.task
        self.parts: Sequence[nn.Module] = (teacher,)
        self._name, self._loss, self._teacher, self._task_loss, self._weights = name, loss, teacher, task_loss, weights
        self._precision = "fp32"

    def story(self, task: Task) -> str:
        """What the teacher scores, to be told when the training is done: of its last weights, as no average is kept of them."""
        return f"its online teacher scores {evaluate(self._teacher, task, 'valid'):.3f} on valid"

    def prepare(self, device: torch.device, *, precision: str, steps: int, batch: int) -> None:
        """See ``nas.train.Lesson``."""
        self._teacher.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this overload
        self._precision = precision

    def terms(self, batch: Batch) -> Mapping[str, Tensor]:
        """See ``nas.train.Lesson``."""
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            logits = self._teacher(batch.x)
        student_part, teacher_part = self._loss(batch.logits, logits.float(), batch.y)
        weight = self._weights.at(batch)
        teacher_task = self.task_weight * self._task_loss(logits.float(), batch.y)
        return {self._name: weight * student_part, "teacher": teacher_task + weight * teacher_part}


Taught = TaughtByTeacher | TaughtByItself | TaughtOnline


def tapped(arch: Architecture, lesson: LessonConfig) -> Architecture:
    """The architecture with the tap that a lesson reads, if it reads one."""
    needs = LOSSES[lesson.loss].needs if lesson.loss != PLAIN else ""
    return with_taps(arch, second_to_last(arch)) if needs == "feature" else with_taps(arch)


def open_lesson(job: LessonJob, arch: Architecture, task: Task, recipe: Recipe, seed: int) -> Taught | None:
    """The lesson of a job for a student of this architecture, its extra parts initialised by ``seed``; None for plain training.

    Raises:
        InvalidTeacher: the lesson needs a teacher that the job lacks, or landmarks, which the task has not.
    """
    return _open(job, tap_ch(arch, second_to_last(arch)), task, recipe, seed)


def _open(job: LessonJob, feature_ch: int | None, task: Task, recipe: Recipe, seed: int) -> Taught | None:
    config = job.config
    if config.loss == PLAIN:
        return None
    method = LOSSES[config.loss]
    task_share, term_share = method.shares(config.options)
    weights = Weights(task=config.task_weight * task_share, term=config.weight * term_share, warmup=config.warmup)
    makers: Mapping[str, Callable[[], Taught]] = {
        "teacher": lambda: _by_teacher(job, method, weights, task, recipe, seed),
        "feature": lambda: _by_itself(config, method, weights, feature_ch, task, seed),
        "online": lambda: _online(config, method, weights, task, recipe, seed),
    }
    if method.needs not in makers:
        raise InvalidTeacher(f"--loss {config.loss} is for {method.needs}, and the task {task.name} has none; call it from nas.losses")
    return makers[method.needs]()


def _by_teacher(job: LessonJob, method: Method, weights: Weights, task: Task, recipe: Recipe, seed: int) -> Taught:
    if job.teacher is None:
        raise InvalidTeacher(f"--loss {job.config.loss} needs --teacher")
    teacher = open_teacher(job.teacher, task)
    logits: TeacherLogits = AskedLogits(teacher)
    if job.cache:
        flip = task.flip if recipe.flip == "auto" else recipe.flip
        who = msgspec.structs.replace(job.teacher, name="", weights="", fed="")  # its hash says what it is, wherever it lies
        views = lesson_key(who, task.data_sha256, seed, recipe.crop_pixels, recipe.cutout_pixels, flip, recipe.batch, recipe.epochs)
        logits = StoredLogits(teacher, Path(job.cache), views, len(task.classes))
    return TaughtByTeacher(job.config.loss, method.term(job.config.options), logits, weights)


def _by_itself(config: LessonConfig, method: Method, weights: Weights, feature_ch: int | None, task: Task, seed: int) -> Taught:
    loss = method.module(feature_ch, len(task.classes), **config.options)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in loss.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=0.01, generator=generator)
    return TaughtByItself(config.loss, loss, weights)


def _online(config: LessonConfig, method: Method, weights: Weights, task: Task, recipe: Recipe, seed: int) -> Taught:
    if not config.online:
        raise InvalidTeacher(f"--loss {config.loss} trains its teacher along: name it with --online-teacher, such as resnet20")
    teacher = named_network(config.online, task, generator=torch.Generator().manual_seed(seed + 1))

    def task_loss(logits: Tensor, y: Tensor) -> Tensor:
        return task.loss(logits, y, label_smoothing=recipe.label_smoothing)

    return TaughtOnline(config.loss, method.module(**config.options), teacher, task_loss, weights)


def teach(
    module: nn.Module, job: LessonJob, task: Task, recipe: Recipe, *, seed: int, feature: Feature | None = None,
) -> Fit:  # fmt: skip
    """Trains any network of logits in place by a lesson, as ``nas.train.fit``: a ResNet, a ViT, or one of your own.

    ``nas.distill`` does so with architectures, measures and exports them. A lesson that reads a feature map (uskd) takes it from
    ``feature``: ``nas.models.features.FEATURES`` has that of each reference network, and one that ``build`` made needs none.
    ``job.config`` is taken as it is: ``nas.distillation.lessons.lessons`` makes those that the command line would.

    Raises:
        UnknownName: no such loss or option, or the network has no such part.
        InvalidConfig: the value of an option or weight; a feature that is missing, not read by the lesson, or no feature map.
        InvalidTeacher: the lesson needs a teacher that the job lacks, or landmarks.
        Diverged: see ``fit``.
    """
    config = job.config
    shared = {name: getattr(config, name) for name in SHARED}
    if wrong := sorted(config.options.keys() & shared.keys()):
        raise InvalidConfig(f"{wrong[0]} is a field of LessonConfig and no option of a loss; nas.distillation.lessons.lessons sets it")
    if config.start != "scratch":
        raise InvalidConfig(f"start={config.start!r} is for networks of a run; load the weights yourself and leave it out")
    settings = {**config.options, **({} if config.loss == PLAIN else shared)}
    lessons([config.loss], settings=settings, teacher=job.teacher, online=config.online)  # for its checks
    if config.loss == PLAIN or LOSSES[config.loss].needs != "feature":
        if feature:
            raise InvalidConfig(f"the feature {feature.part} is for uskd; {config.loss} reads none")
        return fit(module, task, recipe, seed=seed, lesson=_open(job, None, task, recipe, seed))
    featured = Featured(module, feature or feature_of(module))
    place = next((p.device for p in module.parameters()), None)
    feature_ch = featured.feature_ch(torch.zeros(2, *task.input_chw, device=place))
    return fit(featured, task, recipe, seed=seed, lesson=_open(job, feature_ch, task, recipe, seed))
