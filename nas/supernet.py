"""Training of a bank: every step runs a few networks of the space on one batch and moves the slices that they use."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from nas.cores import torch_device
from nas.errors import Diverged
from nas.feed import Feed
from nas.recipe import BankPlan
from nas.sharing.bank import Bank, Skeleton, laid_out, new_bank, parameters, part, skeleton
from nas.sharing.bank_file import Notes, Stamp, load_bank, refuse_other, save_bank
from nas.sharing.sandwich import Sandwich, counted
from nas.sharing.slices import Gradient, SliceOptimizer, clip, merged
from nas.sharing.widening import Widening
from nas.tasks.task import Task
from nas.train import learning_rate, precision, seeded
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace

__all__ = ["BankFit", "BankTraining", "train_bank"]

SAVE_S = 30.0
SAMPLINGS: Mapping[str, Callable[[SearchSpace, int], Sandwich | Widening]] = {"sandwich": Sandwich.of, "widening": Widening.of}


@dataclass(frozen=True, kw_only=True, slots=True)
class BankFit:
    """What training a bank gave. ``losses``: mean training loss of the steps' first networks per epoch; ``began_at``: the step that an
    earlier process had reached; ``seconds`` are this one's."""

    steps: int
    began_at: int
    losses: tuple[float, ...]
    seconds: float
    device: str
    precision: str


def train_bank(
    space: SearchSpace, task: Task, plan: BankPlan, *, seed: int, path: Path, device: torch.device | str | None = None,
    workers: int = 1, save_s: float = SAVE_S, on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> BankFit:  # fmt: skip
    """Trains the bank of a space on a task to its end and leaves it in ``path``; what is there already goes on at the step it reached.

    The same space, task, plan and seed give the same bank on one device with the same number of threads, in one go or in parts, with
    any number of ``workers``: so many networks of a step run at once, on a CPU and without dropout (else one after another).
    It is saved every ``save_s`` seconds and at the end; ``on_step`` hears of each step done. Only the training split is opened.

    Raises:
        RunConflict: ``path`` holds a bank of another space, data set, head, plan or seed.
        InvalidWeights: ``path`` holds something else.
        Diverged: a loss or weight is not finite, or an epoch's mean loss of the steps' first networks is four times that of guessing.
    """
    place = torch_device(device)
    began, stamp = time.perf_counter(), Stamp.of(space, task, plan, seed)
    for torn in path.parent.glob(f".{path.name}.*"):  # what a kill left half written
        torn.unlink(missing_ok=True)
    with seeded(seed, place):
        training = BankTraining(space, task, plan, seed, place, workers)
        if path.exists():
            training.take_up(path, stamp)
        first = training.step
        training.run(partial(training.save, path, stamp), save_s, on_step)
    return BankFit(
        steps=training.step, began_at=first, losses=tuple(training.losses), seconds=time.perf_counter() - began, device=str(place),
        precision=precision(plan.recipe, place),
    )  # fmt: skip


class _Streams:
    """Streams of randomness, each numbered by epoch or step: nothing of them need be saved."""

    WEIGHTS, ORDER, IMAGES, NETWORKS, DROPOUT = range(5)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Pass:
    """What one network gave in one step; ``gradients`` are in the order of the places of its ``bones``."""

    bones: Skeleton
    logits: Tensor
    loss: Tensor
    gradients: tuple[Tensor, ...]


class BankTraining:
    """What changes from step to step of a training; ``train_bank`` runs it, and keeps it in a file."""

    def __init__(self, space: SearchSpace, task: Task, plan: BankPlan, seed: int, device: torch.device, workers: int = 1) -> None:
        self.space, self.task, self.plan, self.recipe, self.seed, self.device = space, task, plan, plan.recipe, seed, device
        self.feed = Feed(task, plan.recipe, device)
        self.steps = self.feed.epoch_steps * plan.recipe.epochs
        generator = torch.Generator().manual_seed(self._seed(_Streams.WEIGHTS, 0))
        self.live = new_bank(space, task.head, generator=generator, device=device)
        self.average = {name: tensor.clone() for name, tensor in self.live.items()}
        self.optimizer = SliceOptimizer(parameters(self.live), plan.recipe)
        self.sampling = SAMPLINGS[plan.sampling](space, plan.randoms)
        self.usage: dict[str, dict[str, int]] = {}
        self.step, self.losses, self.loss_sum = 0, list[float](), 0.0
        self.bf16 = precision(plan.recipe, device) == "bf16"
        at_once = workers if device.type == "cpu" and not plan.recipe.dropout else 1  # dropout draws from the one global generator
        threads = partial(torch.set_num_threads, torch.get_num_threads())  # else a new thread takes all cores
        self.pool = ThreadPoolExecutor(at_once, "bank", initializer=threads) if at_once > 1 else None
        self.distils = plan.teacher != "labels" and task.name == "classify"

    def take_up(self, path: Path, stamp: Stamp) -> None:
        """Goes on from what ``save`` wrote."""
        there, notes, groups = load_bank(path)
        refuse_other(path, there, stamp)
        for group, bank in self._groups().items():
            for name, tensor in bank.items():
                tensor.copy_(groups[group][name])
        self.usage, self.step, self.losses, self.loss_sum = notes.usage, notes.step, list(notes.losses), notes.loss_sum

    def save(self, path: Path, stamp: Stamp) -> None:
        """Writes all of it, unless weights are not finite."""
        self._refuse(torch.stack([t.abs().sum() for t in self.live.values()]).sum(), "weights are not finite")
        notes = Notes(step=self.step, steps=self.steps, usage=self.usage, losses=tuple(self.losses), loss_sum=self.loss_sum)
        save_bank(path, stamp, notes, self._groups())

    def run(self, save: Callable[[], None], save_s: float, on_step: Callable[[int, int], None]) -> None:
        """The steps that are left."""
        saved, order = time.monotonic(), torch.empty(0)
        while self.step < self.steps:
            epoch, i = divmod(self.step, self.feed.epoch_steps)
            if i == 0 or not len(order):
                order = self.feed.order(self._generator(_Streams.ORDER, epoch))
            rng = np.random.default_rng((self.seed, _Streams.NETWORKS, self.step))
            picked = self.sampling.picks(self.usage, rng, self.step / self.steps)
            archs = list(dict.fromkeys(self.space.decode(picks, self.task.head) for picks in picked))
            teaches = self.sampling.teaches(self.step / self.steps)
            self.loss_sum += self.train(order[i * self.feed.batch : (i + 1) * self.feed.batch], archs, teaches=teaches)
            self.usage = counted(self.usage, picked)
            if i == self.feed.epoch_steps - 1:
                self._close_epoch()
            if self.step == self.steps or time.monotonic() - saved >= save_s:
                save()
                saved = time.monotonic()
            on_step(self.step, self.steps)

    def _close_epoch(self) -> None:
        mean = self.loss_sum / self.feed.epoch_steps
        self.losses.append(mean)
        self.loss_sum = 0.0
        y = self.feed.data.y[: self.feed.batch]
        guessing = float(self._label_loss(torch.zeros(len(y), self.task.head.outputs, device=self.device), y))
        if mean > 4 * guessing:
            self._refuse(torch.tensor(math.nan), f"mean loss of the epoch's first networks is {mean:.3g}, far worse than guessing")

    def train(self, index: Tensor, archs: Sequence[Architecture], *, teaches: bool = True) -> float:
        """One step of some networks on the images at positions ``index``; the loss of the first, which teaches the others where the plan
        wants that and it can."""
        x, y = self.feed.images(index, self._generator(_Streams.IMAGES, self.step)), self.feed.data.y[index]
        torch.manual_seed(self._seed(_Streams.DROPOUT, self.step))
        gradients, loss = self._gradients(archs, x, y, taught=self.distils and teaches)
        if self.recipe.clip_norm:
            clip(gradients.values(), self.recipe.clip_norm)
        self.optimizer.step(self.live, gradients, learning_rate(self.recipe, self.step, self.steps))
        self._follow()
        self.step += 1
        return loss

    def _gradients(self, archs: Sequence[Architecture], x: Tensor, y: Tensor, *, taught: bool) -> tuple[dict[str, Gradient], float]:
        """The gradient for every tensor of the bank that one of the networks uses, and the loss of the first of them."""
        if taught:
            first = self._network(archs[0], x, y, None)
            soft = self._taught(first, x)
            runs = [first, *self._at_once([partial(self._network, arch, x, y, soft) for arch in archs[1:]])]
        else:
            runs = self._at_once([partial(self._network, arch, x, y, None) for arch in archs])
        found: dict[str, list[Tensor]] = {}
        for run in runs:
            for place, gradient in zip(run.bones.places, run.gradients, strict=True):
                found.setdefault(place.name, []).append(gradient)
        self._refuse(torch.stack([run.loss for run in runs]).sum(), "loss is not finite")
        return {name: merged(gradients) for name, gradients in found.items()}, float(runs[0].loss)

    def _network(self, arch: Architecture, x: Tensor, y: Tensor, soft: Tensor | None) -> "_Pass":
        """One network forward and backward; ``soft`` are a teacher's probabilities (B, K)."""
        bones = skeleton(arch, dropout=self.recipe.dropout, training=True)
        leaves = {key: slice_.requires_grad_() for key, slice_ in _slices(self.live, bones).items()}
        logits = self._logits(bones, leaves, x)
        loss = self._label_loss(logits, y) if soft is None else F.cross_entropy(logits, soft)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        return _Pass(bones=bones, logits=logits.detach(), loss=loss.detach(), gradients=gradients)

    def _at_once(self, passes: Sequence[Callable[[], "_Pass"]]) -> list["_Pass"]:
        """The results, in order. Networks of a step are different modules, and torch computes outside Python's lock."""
        if not self.pool:
            return [one() for one in passes]
        return [done.result() for done in [self.pool.submit(one) for one in passes]]

    @torch.no_grad()
    def _taught(self, first: "_Pass", x: Tensor) -> Tensor:
        """The teacher's probabilities (B, K) for the other networks of the step."""
        if self.plan.teacher == "average":
            return self._logits(first.bones, _slices(self.average, first.bones), x).softmax(1)
        return first.logits.softmax(1)

    def _logits(self, bones: Skeleton, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = functional_call(bones.module, tensors, (x,), tie_weights=False)
        return logits.float()

    def _label_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.task.loss(logits, y, label_smoothing=self.recipe.label_smoothing)

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the average of all weights: what stands still is reached in the end, however rarely it is used."""
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        averaged, live = parameters(self.average), parameters(self.live)
        torch._foreach_lerp_(list(averaged.values()), list(live.values()), 1 - decay)

    def _groups(self) -> dict[str, dict[str, Tensor]]:
        return {"live": self.live, "average": self.average, **self.optimizer.moments}

    def _seed(self, stream: int, number: int) -> int:
        return int(np.random.SeedSequence([self.seed, stream, number]).generate_state(1)[0])

    def _generator(self, stream: int, number: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self._seed(stream, number))

    def _refuse(self, value: Tensor, what: str) -> None:
        if math.isfinite(float(value)):
            return
        rate, recipe = learning_rate(self.recipe, max(self.step - 1, 0), self.steps), self.recipe
        raise Diverged(
            f"the bank diverged at step {self.step} of {self.steps} (lr {rate:.3g}): {what}; begin again in another folder with a "
            f"lower lr of its recipe ({recipe.lr:g}), longer warmup_epochs ({recipe.warmup_epochs:g}) or another clip_norm "
            f"({recipe.clip_norm:g})"
        )


def _slices(bank: Bank, bones: Skeleton) -> dict[str, Tensor]:
    """State key → copy of the slice of the bank: what a network computes with fastest, and a leaf of its own for autograd."""
    return {place.key: laid_out(part(bank[place.name], place.shape)) for place in bones.places}
