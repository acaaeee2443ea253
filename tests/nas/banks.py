"""Banks that are trained in a second: a space of a dozen small networks on images of three colours."""

from pathlib import Path
from typing import Any

import msgspec

from nas.recipe import BankPlan, Recipe
from nas.supernet import BankFit, train_bank
from nas.tasks import Task, open_task
from search_spaces import SearchSpace, open_space
from tests.nas.small import SPACE
from tests.nas.tasks.samples import write_npz

RECIPE = Recipe(epochs=2, batch=16, lr=0.05, crop_pixels=1)
PLAN = BankPlan(randoms=1, recipe=RECIPE)


class Halted(Exception):
    """What a test raises to stop a training."""


def plan(
    *, randoms: int = 1, teacher: str = "largest", sampling: str = "sandwich", **recipe: Any,  # Any: values of a recipe's fields
) -> BankPlan:  # fmt: skip
    changed = msgspec.structs.replace(RECIPE, **recipe)
    return BankPlan(randoms=randoms, teacher=teacher, sampling=sampling, recipe=changed)  # type: ignore[arg-type]  # the tests' own literals


def inputs(folder: Path, text: str = SPACE, train: int = 100) -> tuple[SearchSpace, Task]:
    """A space and a task written below ``folder``."""
    (folder / "small.toml").write_text(text)
    task = open_task("classify", f"npz:{write_npz(folder / 'small.npz', train=train)}")
    return open_space(folder / "small.toml", input_chw=task.input_chw), task


def trained(
    space: SearchSpace, task: Task, path: Path, plan: BankPlan = PLAN, *, seed: int = 0, until: int | None = None
) -> BankFit | None:
    """Trains a bank, saving it at every step; with ``until`` it is halted behind that step, as if killed, and None is returned."""

    def on_step(step: int, steps: int) -> None:
        if step == until:
            raise Halted

    try:
        return train_bank(space, task, plan, seed=seed, path=path, device="cpu", save_s=0.0, on_step=on_step)
    except Halted:
        return None
