"""One training loop: ``fit`` trains a module on a task by a recipe and leaves the averaged weights in it."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Protocol

import torch
from torch import Tensor, nn

from nas.calibration import Calibration
from nas.cores import torch_device
from nas.errors import Diverged
from nas.evaluate import Judged, judge
from nas.feed import Feed
from nas.midway import Keeper, Midway, Progress, Training
from nas.models.taps import Tapped
from nas.recipe import Recipe
from nas.tasks.task import Task

__all__ = ["Batch", "Epoch", "Fit", "Lesson", "fit", "learning_rate", "parameter_groups", "precision", "seeded", "timed_steps"]

TIMED_STEPS = 3
CHECK_STEPS_CUDA = 50  # asking the GPU for the loss makes it wait, so not at every step


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One epoch done: its number from 1, mean training loss, and validation score of the averaged weights.

    ``terms``: with a lesson, the means of the task's loss before its weight, and of each of the lesson's terms as it enters the loss.
    """

    number: int
    loss: float
    score: float
    terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What training gave. ``score`` is the validation score of the weights left in the module, ``calibration`` belongs to it;
    ``scores`` are those per epoch and empty without ``on_epoch``; ``terms`` are those of a lesson, per epoch; ``seconds``
    include scoring, ``images_per_second`` counts training alone."""

    score: float
    epochs: int
    steps: int
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    seconds: float
    images_per_second: float
    device: str
    precision: str
    calibration: Calibration
    terms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """One step as a lesson sees it: images (B, C, H, W) as the network was fed them (augmented, normalised), labels (B,), logits
    (B, K) float32, the feature maps of its taps; ``step`` counts from 0."""

    x: Tensor
    y: Tensor
    logits: Tensor
    features: tuple[Tensor, ...]
    step: int
    steps: int


class Lesson(Protocol):
    """What a network learns beside its labels (see ``nas.distillation.teaching``). ``parts`` are trained along with it by the same
    recipe, and are no part of it; the loss is ``task_weight`` times the task's plus the sum of ``terms``. Of a lesson that
    ``reads_features`` the network must be ``Tapped``."""

    reads_features: bool
    task_weight: float
    parts: Sequence[nn.Module]

    def prepare(self, device: torch.device, *, precision: str, steps: int, batch: int) -> None:
        """Called once before the first step: move what is needed to ``device``."""

    def terms(self, batch: Batch) -> Mapping[str, Tensor]:
        """Named scalars to add to the loss."""


def fit(
    module: nn.Module, task: Task, recipe: Recipe, *, seed: int, device: torch.device | str | None = None,
    on_epoch: Callable[[Epoch], bool | None] | None = None, loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    lesson: Lesson | None = None, keeper: Keeper | None = None,
) -> Fit:  # fmt: skip
    """Train ``module`` in place on the training split and score it on the validation split; test is never opened.

    The same module, task, recipe and seed give the same weights on one device with the same number of threads; the caller's own
    random state is left as it was. The module ends on ``device`` (default: CUDA where present), in eval mode, holding the
    moving average of weights and buffers. With ``on_epoch`` validation is scored after each epoch; returning True stops there.
    ``loss`` of logits and labels replaces the task's smoothed one; a ``lesson`` adds to it, and changes neither the order of the
    images nor their augmentation. The feature maps that it may read are those of the module's ``forward_taps``.

    ``keeper``: its file holds the state after an epoch; where there is one already, that training goes on, and ends with the weights of
    an unbroken one, given the same module and ``loss``, and an ``on_epoch`` in all parts or none. The file stays when the training is
    done, for the caller to remove once the weights are safe. A lesson's state is not kept, so not with a ``lesson``.

    Raises:
        InvalidWeights: the keeper's file is damaged, or of another training or network; remove it to train from the beginning.
        Diverged: a loss or weight is not finite, or an epoch's mean loss is four times that of guessing (with a lesson: of its first
            epoch).
    """
    place = torch_device(device)
    criterion = loss or partial(task.loss, label_smoothing=recipe.label_smoothing)
    began = time.perf_counter()
    with seeded(seed, place):
        module.to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this overload
        run = _Run(module, task, recipe, criterion, place, torch.Generator(place).manual_seed(seed), lesson)
        if keeper:
            assert lesson is None, "its state is not kept"
            run.keep_with(keeper, Training.of(task, recipe, seed, place))
        earlier, done = run.done, run.epochs(on_epoch)
    with torch.no_grad():
        torch._foreach_copy_(run.live, run.averaged)
    module.eval()
    judged = run.judged or judge(module, task, "valid", device=place)
    return Fit(
        score=judged.score, epochs=len(done.losses), steps=run.step, losses=done.losses, scores=done.scores,
        seconds=earlier.seconds + time.perf_counter() - began, images_per_second=run.step * run.batch / done.trained_seconds,
        device=str(place), precision=precision(recipe, place), calibration=judged.calibration,
        terms={k: tuple(v) for k, v in run.terms.items()},
    )  # fmt: skip


def timed_steps(
    module: nn.Module, task: Task, recipe: Recipe, *, seconds: float, device: torch.device | str | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:  # fmt: skip
    """Seconds of one training step of ``module``: the median of ``TIMED_STEPS`` or more that take ``seconds``; the first is left out.

    The weights move by these steps.
    """
    place = torch_device(device)
    with seeded(0, place):
        module.to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this overload
        run = _Run(module.train(), task, recipe, task.loss, place, torch.Generator(place).manual_seed(0), None)
        times: list[float] = []
        while len(times) <= TIMED_STEPS or sum(times[1:]) < seconds:
            began = clock()
            float(run._train(torch.arange(run.batch, device=place)))  # asking for the loss waits for a GPU
            run.step = 0  # of the schedule
            times.append(clock() - began)
    return median(times[1:])


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of step ``step`` (from 0) of ``steps``: linear up to ``lr`` over the warm-up, then a cosine that ends at 0.

    >>> [round(learning_rate(Recipe(epochs=2, warmup_epochs=1, lr=1.0), step, 8), 3) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    warmup = round(steps * recipe.warmup_epochs / recipe.epochs)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, list[nn.Parameter] | float]]:
    """The module's trainable parameters, those of two or more dimensions with weight decay, norms and biases without."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def precision(recipe: Recipe, device: torch.device) -> str:
    """ "bf16" or "fp32": what the forward pass is computed in. On CUDA, fp32 convolutions use TF32 as torch allows by default."""
    if recipe.amp == "bf16" or (recipe.amp == "auto" and _gains_from_bf16(device)):
        return "bf16"
    return "fp32"


def _gains_from_bf16(device: torch.device) -> bool:
    # of CPUs none: even with AMX a step in bf16 took 0.9 to 2.0 times that in fp32 (benchmarks/precision.md)
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global randomness (dropout) seeded and convolutions deterministic inside, everything as before outside."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        torch.manual_seed(seed)
        yield


class _Run:
    """The state of one training run: what changes from step to step."""

    def __init__(
        self, module: nn.Module, task: Task, recipe: Recipe, loss: Callable[[Tensor, Tensor], Tensor], device: torch.device,
        generator: torch.Generator, lesson: Lesson | None,
    ) -> None:  # fmt: skip
        self.module, self.task, self.recipe, self.loss, self.device, self.generator = module, task, recipe, loss, device, generator
        self.feed = Feed(task, recipe, device)
        self.data, self.batch, self.epoch_steps = self.feed.data, self.feed.batch, self.feed.epoch_steps
        self.steps = self.epoch_steps * recipe.epochs
        self.step = 0
        self.bf16 = precision(recipe, device) == "bf16"
        self.lesson, self.parts = lesson, [module]
        self.tapped: Tapped | None = None
        if lesson and lesson.reads_features:
            assert isinstance(module, Tapped), "the lesson reads features"
            self.tapped = module
        self.sums: dict[str, Tensor] = {}  # of a lesson's terms in this epoch
        self.terms: dict[str, list[float]] = {}
        self.usual = 0.0  # a lesson's own scale, the loss of its first epoch: a teacher may be far from the labels
        if lesson:
            lesson.prepare(device, precision=precision(recipe, device), steps=self.steps, batch=self.batch)
            self.parts += lesson.parts
        self.optimizer = _optimizer(nn.ModuleList(self.parts), recipe)
        self.average = copy.deepcopy(module).requires_grad_(False)
        self.live, self.averaged = _state(module), _state(self.average)
        self.judged: Judged | None = None
        self.done = Progress()
        self.keep: Callable[[Progress], None] | None = None

    def keep_with(self, keeper: Keeper, training: Training) -> None:
        """Goes on with what is kept, and keeps the state after epochs."""
        midway = Midway(self.module, self.average, self.optimizer, self.generator)
        self.done = keeper.take_up(midway, training)
        self.step = len(self.done.losses) * self.epoch_steps
        self.keep = partial(keeper.keep, midway, training)

    def epochs(self, on_epoch: Callable[[Epoch], bool | None] | None) -> Progress:
        """The epochs that are left, and all that were run."""
        began, earlier = time.perf_counter(), self.done.seconds
        for number in range(len(self.done.losses) + 1, self.recipe.epochs + 1):
            epoch_began = time.perf_counter()
            loss, scores, stops = self._epoch(), self.done.scores, False
            trained = self.done.trained_seconds + time.perf_counter() - epoch_began
            if on_epoch:
                self.judged = judge(self.average, self.task, "valid", device=self.device)
                scores = (*scores, self.judged.score)
                means = {name: means[-1] for name, means in self.terms.items()}
                stops = bool(on_epoch(Epoch(number=number, loss=loss, score=scores[-1], terms=means)))
            seconds = earlier + time.perf_counter() - began
            self.done = Progress(losses=(*self.done.losses, loss), scores=scores, seconds=seconds, trained_seconds=trained)
            if self.keep:
                self.keep(self.done)
            if stops:
                break
        return self.done

    def _epoch(self) -> float:
        for part in self.parts:
            part.train()
        order = self.feed.order(self.generator)
        total = torch.zeros((), device=self.device)
        self.sums = {}
        check = 1 if self.device.type == "cpu" else CHECK_STEPS_CUDA
        for i in range(self.epoch_steps):
            total += self._train(order[i * self.batch : (i + 1) * self.batch])
            if self.step % check == 0 and not math.isfinite(float(total)):
                raise self._diverged(f"loss is not finite{self._culprits()}")
        weights = torch.stack([p.detach().abs().sum() for part in self.parts for p in part.parameters()]).sum()
        if not math.isfinite(float(total)):
            raise self._diverged(f"loss is not finite{self._culprits()}")
        if not math.isfinite(float(weights)):
            raise self._diverged("weights are not finite")
        for name, summed in self.sums.items():
            self.terms.setdefault(name, []).append(float(summed) / self.epoch_steps)
        mean = float(total) / self.epoch_steps
        if self.lesson and self.step == self.epoch_steps:
            self.usual = max(mean, self._guessing())
        if mean > 4 * (self.usual or self._guessing()):
            than = "in the first" if self.lesson else "guessing"
            raise self._diverged(f"mean loss of the epoch is {mean:.3g}, far worse than {than}")
        return mean

    def _train(self, index: Tensor) -> Tensor:
        """One step on the images at ``index``; its loss, detached and left on the device."""
        recipe = self.recipe
        x = self.feed.images(index, self.generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.step, self.steps)
        loss = self._loss(x, self.data.y[index])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        if recipe.clip_norm:
            for part in self.parts:
                nn.utils.clip_grad_norm_(part.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self._follow()
        self.step += 1
        return loss.detach()

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of normalised images and their labels; a lesson's terms are also added to the epoch's sums."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits, features = self.tapped.forward_taps(x) if self.tapped else (self.module(x), ())
        task = self.loss(logits.float(), y)
        if self.lesson is None:
            return task
        batch = Batch(x=x, y=y, logits=logits.float(), features=features, step=self.step, steps=self.steps)
        terms = self.lesson.terms(batch)
        for name, term in {"task": task, **terms}.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=self.device)) + term.detach()
        return torch.stack([self.lesson.task_weight * task, *terms.values()]).sum()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the live weights and buffers."""
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averaged, self.live, 1 - decay)

    def _guessing(self) -> float:
        """The loss of equal logits, the fair measure of a loss's scale."""
        y = self.data.y[: self.batch]
        return float(self.loss(torch.zeros(len(y), self.task.head.outputs, device=self.device), y))

    def _culprits(self) -> str:
        """The terms of a lesson that are not finite, in brackets."""
        names = [name for name, summed in self.sums.items() if not math.isfinite(float(summed))]
        return f" ({', '.join(names)})" if names else ""

    def _diverged(self, what: str) -> Diverged:
        rate = learning_rate(self.recipe, self.step - 1, self.steps)
        more = ", lower the weight of the distillation" if self.lesson else ""
        return Diverged(
            f"training diverged at step {self.step} of {self.steps} (lr {rate:.3g}): {what}; lower lr ({self.recipe.lr:g}){more}, lengthen "
            f"warmup_epochs ({self.recipe.warmup_epochs:g}) or set clip_norm ({self.recipe.clip_norm:g})"
        )


def _state(module: nn.Module) -> list[Tensor]:
    """The floating-point parameters and buffers, in one order for equal modules (step counters have no average)."""
    return [t.detach() for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(module, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
