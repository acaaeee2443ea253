"""The bank of a run: trained before its search, in its folder; and what scoring candidates with it should take."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from latency.console import Console, duration
from nas.config import RunConfig
from nas.cores import become_worker, workers_of
from nas.forecast import FORWARD, Speed
from nas.jobs import plan_for
from nas.sharing.widening import SETTLED, WIDENED, trunk
from nas.store import BANK_FILE, Candidate
from nas.tasks.task import Task
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from search_spaces.stage import Pick

__all__ = ["scored", "search_seconds", "train_run_bank"]

SAVE_S = 30.0
SCORING_SHARE = 0.15  # of what training on an image takes: ONNX Runtime, and forward only


def scored(rows: Iterable[Candidate]) -> int:
    """How many different candidates of the search have a score."""
    return sum(r.stage == "search" and r.score is not None and r.duplicate_of is None for r in rows)


def search_seconds(config: RunConfig, space: SearchSpace, task: Task, samples: Sequence[Architecture], speed: Speed) -> tuple[float, float]:
    """Expected wall seconds for a run's bank (0 without one), and seconds for the score of one candidate."""
    images = len(task.train)
    if config.evaluate == "alone":
        return 0.0, sum(speed.seconds(a, images, config.epochs) for a in samples) / len(samples)

    from nas.sharing.inherited import CALIBRATION_IMAGES, VALID_IMAGES

    each = sum(speed.seconds(a, 1, 1) for a in samples) / len(samples)
    looked_at = min(CALIBRATION_IMAGES, images) + min(VALID_IMAGES, len(task.valid))
    return _step_seconds(config, space, task, each, speed) * images * config.bank_epochs, each * looked_at * SCORING_SHARE


def _step_seconds(config: RunConfig, space: SearchSpace, task: Task, each: float, speed: Speed) -> float:
    """Mean wall seconds of a step, for one image."""
    randoms = [each] * config.bank.randoms
    if config.bank.sampling == "widening":
        first = _seconds(trunk(space), space, task, speed)
        settling, widening = _taught(config, first, []), _taught(config, first, randoms)
        return SETTLED * settling + (WIDENED - SETTLED) * widening + (1 - WIDENED) * _wall(config, [each, *randoms])
    smallest, largest = (_seconds(picks, space, task, speed) for picks in space.corners())
    return _taught(config, largest, [smallest, *randoms])


def _taught(config: RunConfig, first: float, others: Sequence[float]) -> float:
    """Wall seconds of a step: the first network alone where it teaches the others, those as many at once as may be."""
    if config.bank.teacher == "labels":
        return _wall(config, [first, *others])
    return first * (1 + FORWARD * (config.bank.teacher == "average")) + _wall(config, others)


def _seconds(picks: Mapping[str, Pick], space: SearchSpace, task: Task, speed: Speed) -> float:
    """What training on one image takes."""
    return speed.seconds(space.decode(picks, task.head), 1, 1)


def _wall(config: RunConfig, seconds: Sequence[float]) -> float:
    import torch

    one_by_one = torch.cuda.is_available() or config.bank.recipe.dropout > 0
    return max(sum(seconds) / (1 if one_by_one else workers_of(config)), max(seconds, default=0.0))


def train_run_bank(
    config: RunConfig, out: Path, space: SearchSpace, task: Task, console: Console, *, save_s: float = SAVE_S,
    watch: Callable[[int, int], None] = lambda step, steps: None,
) -> None:  # fmt: skip
    """Trains the bank that the candidates of the run in ``out`` inherit from, or goes on with it; a finished one is left as it is.

    ``watch`` hears of each step; what it raises ends the training, which goes on from the step that was saved last.
    """
    from nas.supernet import train_bank

    become_worker()  # two threads on two busy cores are several times slower than one
    plan, images, done = plan_for(config), len(task.train), 0
    total = images // min(plan.recipe.batch, images) * plan.recipe.epochs
    with console.progress(total, "steps of the bank") as tick:

        def on_step(step: int, steps: int) -> None:
            nonlocal done
            if step - done > 1:  # the first of a bank that is taken up
                tick(advance=step - done - 1, earlier=True)
            tick()
            done = step
            watch(step, steps)

        fit = train_bank(
            space, task, plan, seed=config.seed, path=out / BANK_FILE, workers=workers_of(config), save_s=save_s, on_step=on_step
        )
    steps = fit.steps - fit.began_at
    now = f"{steps} of its {fit.steps} steps in {duration(fit.seconds)}" if steps else "trained before"
    console.say(f"bank     {now}; training loss of the first networks of its steps {fit.losses[-1]:.3f}")
