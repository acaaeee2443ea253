"""A run's bank trained within its share of a budget: a longer training than fits is begun, and shortened once its pace is known."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from latency.console import Console
from nas.config import RunConfig
from nas.jobs import plan_for
from nas.sharing.bank_file import Stamp, load_bank, refuse_other, save_bank
from nas.sharing.run_bank import train_run_bank
from nas.store import BANK_FILE
from nas.tasks.task import Task
from search_spaces.space import SearchSpace

__all__ = ["GENEROUS", "shorten", "train_bank_until"]

GENEROUS = 3  # times the epochs that are expected to fit: a forecast may be that pessimistic
FIRST_STEPS = 2  # not counted: memory is laid out
PACE_STEPS = 20
LATE = 1.08  # of the time that is left: less is not worth another schedule
SAVES = 10  # in the time that there is; a training is shortened at a saved step, so that none is lost
SAVE_S = (2.0, 30.0)


class _Late(Exception):  # no error: it ends a training that is begun again with fewer epochs
    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self.epochs = epochs


class _Watch:
    """Hears of each step; ends the training at a saved one, with the epochs that fit, where it would not end in time."""

    def __init__(self, path: Path, until: float, epochs: int, clock: Callable[[], float]) -> None:
        self._path, self._until, self._epochs, self._clock = path, until, epochs, clock
        self._began: tuple[int, float] | None = None
        self._heard = 0
        self._written = self._stamp()

    def __call__(self, step: int, steps: int) -> None:
        self._heard += 1
        now = self._clock()
        if self._began is None:
            self._began = (step, now) if self._heard >= FIRST_STEPS else None
            return
        written, self._written = self._written, self._stamp()
        done = step - self._began[0]
        step_s, left_s = (now - self._began[1]) / done, max(self._until - now, 0.0)
        is_known = done >= PACE_STEPS or done * step_s > left_s / SAVES
        if not is_known or written == self._written or (steps - step) * step_s <= LATE * left_s:
            return
        each = steps // self._epochs
        epochs = max(step // each + 1, int((step + left_s / step_s) // each) if step_s else self._epochs)
        if epochs < self._epochs:
            raise _Late(epochs)

    def _stamp(self) -> int:
        return self._path.stat().st_mtime_ns if self._path.exists() else 0


def train_bank_until(
    config: RunConfig, out: Path, space: SearchSpace, task: Task, console: Console, *, until: float,
    on_shorter: Callable[[RunConfig], None], clock: Callable[[], float] = time.monotonic,
) -> RunConfig:  # fmt: skip
    """Trains the bank of the run in ``out`` for at most ``bank_epochs``, fewer where it would not end by ``until`` on ``clock``.

    Its learning rate falls to 0 in either case: along the cosine of the epochs that are left to it once they are known. ``on_shorter``
    must keep a configuration with fewer epochs, which is what the run goes on with after a kill. Gives the configuration in the end.
    """
    path = out / BANK_FILE
    if path.exists():
        shorten(path, Stamp.of(space, task, plan_for(config), config.seed))  # a kill may have come between the configuration and the file
    low, high = SAVE_S
    save_s = max(low, min(high, (until - clock()) / SAVES))
    while True:
        watch = _Watch(path, until, config.bank_epochs, clock)
        try:
            train_run_bank(config, out, space, task, console, save_s=save_s, watch=watch)
            return config
        except _Late as late:
            config = msgspec.structs.replace(config, bank_epochs=late.epochs)
            on_shorter(config)
            console.say(f"bank     its pace allows {late.epochs} epoch{'s' * (late.epochs > 1)}")
            shorten(path, Stamp.of(space, task, plan_for(config), config.seed))


def shorten(path: Path, wanted: Stamp) -> None:
    """Gives a half-trained bank the fewer epochs of ``wanted``; one that has no more than these is left as it is.

    Raises:
        RunConflict: it differs in more than its epochs.
    """
    stamp, notes, groups = load_bank(path)
    epochs, ours = stamp.plan.recipe.epochs, wanted.plan.recipe
    if ours.epochs >= epochs:
        return
    recipe = msgspec.structs.replace(stamp.plan.recipe, epochs=ours.epochs, warmup_epochs=ours.warmup_epochs)
    shorter = msgspec.structs.replace(stamp, plan=msgspec.structs.replace(stamp.plan, recipe=recipe))
    refuse_other(path, shorter, wanted)
    steps = notes.steps // epochs * ours.epochs
    save_bank(path, shorter, msgspec.structs.replace(notes, steps=steps), groups)
