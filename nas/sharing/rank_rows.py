"""The networks of a ranking: drawn, trained alone with two seeds and scored by inheritance; rows that outlive a kill."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from latency.console import Console
from nas.config import RunConfig
from nas.cores import become_worker, torch_device, workers_of
from nas.cost import count
from nas.errors import NasError, Stopped
from nas.executors import EXECUTORS
from nas.jobs import Done, Job, JobQueue, Outcome, open_config_task, recipe_for
from nas.recipe import Recipe
from nas.samplers import proposal_seed
from nas.sharing.run_bank import train_run_bank
from nas.store import BANK_FILE, drop_torn_line, open_run
from nas.tasks.task import Task
from search_spaces import Architecture, Head, SearchSpace, open_space

__all__ = ["Ranked", "RankJobs", "Trained", "drawn", "ranked"]

SEEDS = 2
STREAM = 1_000_000_009  # not the search's proposals, nor its finals


class Trained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of ranking.jsonl: one network trained alone, with the ``nth`` seed (from 0) for ``epochs``."""

    id: str
    nth: int
    epochs: int
    score: float
    seconds: float


class Ranked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One network and all that it is ranked by; scores are of valid, ``alone`` one for each seed that is done, the first among them.
    ``inherited`` is None where there is no bank to inherit from."""

    id: str
    params: int
    macs: int
    inherited: float | None
    inherited_seconds: float
    alone: tuple[float, ...]


def ranked(
    config: RunConfig, out: Path, *, networks: int, epochs: int, console: Console, shows: bool = False, kept: RunConfig | None = None,
) -> list[Ranked]:  # fmt: skip
    """Draws, trains and scores what is missing in ``out``, and gives all of it. ``shows``: trains nothing, and gives the networks that are
    trained with the first seed; another process may be at it. ``kept``: the configuration that ``out`` has or gets, where that is not
    ``config``.

    Raises:
        RunConflict: ``out`` holds another configuration, or a bank of another space or data set.
        InvalidWeights: the bank is damaged.
        Stopped: a training failed, or there is nothing to show.
    """
    task = open_config_task(config)
    space = open_space(config.space, width=config.width, input_chw=task.input_chw)
    archs = drawn(space, task.head, networks, config.seed)
    if shows:
        become_worker()
        there = {(row.id, row.nth): row for row in _read(out / "ranking.jsonl") if row.epochs == epochs}
        console.say(f"{sum((arch.id, nth) in there for arch in archs for nth in range(SEEDS))} of {SEEDS * networks} trainings are done")
        if not (done := [arch for arch in archs if (arch.id, 0) in there]):
            raise Stopped(f"{out} has none of these {networks} networks trained for {epochs} epochs; leave out --show to do that")
        if why := _unfinished(out / BANK_FILE):
            console.say(f"{why}: scores by inheritance are left out; without --show it is trained")
        return _scored(out, done, there, space, task, config.recipe, inherits=not why)
    with open_run(out, kept or config):
        if (out / BANK_FILE).exists():  # before hours of training, not after
            from nas.sharing.bank_file import refuse_foreign

            refuse_foreign(out / BANK_FILE, space, task)
        path = out / "ranking.jsonl"
        drop_torn_line(path)
        jobs = RankJobs(config, out, archs, epochs, _read(path))
        with console.progress(len(jobs), "trained alone") as tick:
            jobs.on_row = lambda row: tick(f"{row.id} valid {row.score:.3f}")
            if len(jobs):
                EXECUTORS[config.executor](jobs, config, workers=workers_of(config))
        train_run_bank(config, out, space, task, console)  # after the trainings, whose rows are small files that can be kept anywhere
        return _scored(out, archs, jobs.rows, space, task, config.recipe)


def drawn(space: SearchSpace, head: Head, networks: int, seed: int) -> list[Architecture]:
    """So many different networks, each pick even; of two numbers the smaller's are the first of the larger's.

    Raises:
        NasError: the space has not that many.
    """
    rng, found = np.random.default_rng((seed, STREAM)), dict[str, Architecture]()
    for _ in range(100 * networks):
        arch = space.decode(space.sample(rng), head)
        found.setdefault(arch.id, arch)
        if len(found) == networks:
            return list(found.values())
    raise NasError(f"{100 * networks} draws from {space.name} gave {len(found)} different networks; ask for fewer than {networks}")


class RankJobs:
    """The trainings that are missing, as a source of jobs; each row is kept as soon as it is there."""

    def __init__(self, config: RunConfig, out: Path, archs: Sequence[Architecture], epochs: int, kept: Sequence[Trained]) -> None:
        self.rows = {(row.id, row.nth): row for row in kept if row.epochs == epochs}
        self.on_row: Callable[[Trained], None] = lambda row: None
        self._path, weights = out / "ranking.jsonl", out.resolve() / "weights"
        self._queue = JobQueue(
            Job(
                key=f"{arch.id}-{nth}", arch=arch, recipe=recipe_for(config, epochs), seed=proposal_seed(config.seed, STREAM + nth),
                weights=str(weights / f"ranking-{arch.id}-{nth}.safetensors"),
            )
            for nth in range(SEEDS) for arch in archs if (arch.id, nth) not in self.rows
        )  # fmt: skip

    def __len__(self) -> int:
        """How many trainings are left."""
        return len(self._queue)

    def next(self) -> Job | Done | None:
        """The next training."""
        return self._queue.next()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Keeps a score.

        Raises:
            Stopped: there is none; a ranking with a network missing would be another ranking.
        """
        self._queue.take_back(outcome)
        if outcome.error or outcome.score is None:
            reason = outcome.error.strip().splitlines()[-1]
            raise Stopped(f"network {job.key} was not trained: {reason}; mend that, and the same command goes on from there")
        name, nth = _place(job.key)
        row = Trained(id=name, nth=nth, epochs=job.recipe.epochs, score=outcome.score, seconds=outcome.seconds)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[name, nth] = row
        self.on_row(row)


def _place(key: str) -> tuple[str, int]:
    name, _, nth = key.rpartition("-")
    return name, int(nth)


def _read(path: Path) -> list[Trained]:
    """The rows, without one that is being written."""
    whole, _, _ = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
    try:
        return [msgspec.json.decode(line, type=Trained) for line in whole.splitlines()]
    except msgspec.DecodeError as error:
        raise NasError(f"{path}: not the rows of a ranking ({error}); remove it to train its networks again") from error


def _unfinished(path: Path) -> str:
    """Why networks cannot inherit from a run's bank yet; "" where they can."""
    if not path.exists():
        return f"{path.parent} has no {path.name}"

    from nas.sharing.bank_file import bank_facts

    _, notes = bank_facts(path)
    return f"{path} is trained for {notes.step} of {notes.steps} steps" if notes.step < notes.steps else ""


def _scored(
    out: Path, archs: Sequence[Architecture], rows: Mapping[tuple[str, int], Trained], space: SearchSpace, task: Task, recipe: Recipe,
    *, inherits: bool = True,
) -> list[Ranked]:  # fmt: skip
    from nas.sharing.bank_file import refuse_foreign
    from nas.sharing.inherited import inherited_score, kept_bank

    path, bank, found = out.resolve() / BANK_FILE, None, []
    if inherits:
        refuse_foreign(path, space, task)  # it may have been copied here
        bank = kept_bank(str(path), torch_device().type)
    for arch in archs:
        began, cost = time.perf_counter(), count(arch)
        score = None if bank is None else inherited_score(bank, arch, task, recipe)
        found.append(
            Ranked(
                id=arch.id,
                params=cost.params,
                macs=cost.macs,
                inherited=score,
                inherited_seconds=time.perf_counter() - began,
                alone=tuple(rows[arch.id, nth].score for nth in range(SEEDS) if (arch.id, nth) in rows),
            )
        )
    return found
