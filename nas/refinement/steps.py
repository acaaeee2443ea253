"""The loop: propose, fine-tune every proposal shortly, keep the one that gives up least accuracy for its milliseconds, measure it."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from latency import Failed
from latency.console import duration, three_digits
from nas.config import RunConfig
from nas.cost import count
from nas.errors import Stopped
from nas.jobs import DONE, Done, Job, Outcome
from nas.measuring import Meter
from nas.models import build
from nas.recipe import Recipe
from nas.refinement.beside import timed_beside
from nas.refinement.carry import carried
from nas.refinement.choice import ranked, standard_error
from nas.refinement.importance import scores_of
from nas.refinement.part import Part
from nas.refinement.places import described, places, size_at
from nas.refinement.pricing import Pricing, anchored
from nas.refinement.record import Record, Tried
from nas.refinement.settings import Refinement
from nas.refinement.sizing import Proposal, reachable, sized
from nas.samplers import proposal_seed
from nas.store import Candidate, Latency, RunFolder
from nas.tasks.task import Task
from nas.weights import load, save
from search_spaces.architecture import Architecture

__all__ = ["Steps", "tuning_recipe"]

DOUBLINGS = 3  # of what a step saves, where the device finds none of its proposals faster
FAILURES_IN_A_ROW = 3
STEP_SEED = 2_000_000_011  # not the seeds of a search's proposals

Say = Callable[[str], None]


class Steps:
    """The short trainings of a refinement as a source of jobs (a ``JobSource``); nothing trains while the device measures.

    All trainings of a step see the same images in the same order. One of them trains the step's network as it is: accuracy given up
    is told against it, so that neither the longer training nor a seed that has seen the held-out images counts as a gain or a loss.
    Only what the device finds faster than the step's network, timed beside it, is accepted.
    What a killed run left is read from the folder: accepted steps, and proposals of the step at work.
    """

    def __init__(
        self, *, config: RunConfig, settings: Refinement, folder: RunFolder, record: Record, task: Task, meter: Meter,
        pricing: Pricing, part: Part, target_ms: float, delta_ms: float, least_ms: float, say: Say,
        on_row: Callable[[Tried], None] = lambda row: None,
    ) -> None:  # fmt: skip
        """Take a run folder whose first ``refine`` row is the measured seed.

        Args:
            config: the recipe, the seed.
            settings: the rules.
            folder: open for writing.
            record: of the same folder.
            task: for scores that want data.
            meter: of the device.
            pricing: sizes the proposals.
            part: held-out images and steps; its ``draw`` is replaced by the step's number.
            target_ms: measured latency at which the path ends.
            delta_ms: what the first step saves at least.
            least_ms: below which no step's saving could be told from the measurement's noise.
            say: takes a sentence for the user.
            on_row: called for every fine-tuned proposal.
        """
        self._config, self._settings, self._folder, self._record = config, settings, folder, record
        self._task, self._meter, self._pricing, self._part = task, meter, pricing, part
        self._target_ms, self._delta_ms, self._least_ms = target_ms, delta_ms, least_ms
        self._say, self.on_row = say, on_row
        self.path = [r for r in folder.rows if r.stage == "refine"]
        self._proposals: dict[str, Proposal] = {}  # of the open step, by architecture
        self._queue: deque[Job] = deque()
        self._out = self._failures = 0
        self._began = self._cut_ms = 0.0
        self._slow: set[str] = set()  # of the open step: proposals that the device did not find faster
        self._doublings = 0
        self.stopped = record.ended(len(self.path))  # why the path ended before its target, if it did
        if self.stopped:
            self._sweep(len(self.path))

    def next(self) -> Job | Done | None:
        """The next fine-tuning; see ``JobSource``.

        Raises:
            Stopped: every proposal of a step failed.
        """
        while not self._queue:
            if self._out:
                return None
            if self._proposals:
                self._accept()
            if self.current_ms <= self._target_ms or self.stopped:
                return DONE
            self._open_step()
        job = self._queue.popleft()
        self._prepare(job)
        self._out += 1
        return job

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Stores what became of a proposal.

        Raises:
            Stopped: the third failure in a row, or a reason to stop that is no fault of the network.
        """
        self._out -= 1
        proposal = self._proposals.get(job.arch.id)
        if proposal:
            Path(job.init).unlink(missing_ok=True)
        if outcome.stop:
            raise Stopped(outcome.stop)
        score_se = standard_error(outcome.score or 0.0, self._part.held_out)
        row = Tried(
            step=len(self.path), parent_id=self.path[-1].id, arch=job.arch, place=proposal.place if proposal else None,
            size=proposal.size if proposal else 0, ms=proposal.ms if proposal else self.current_ms, score=outcome.score,
            score_se=score_se, seconds=outcome.seconds, error=outcome.error,
        )  # fmt: skip
        self._record.add(row)
        self._failures = self._failures + 1 if outcome.error else 0
        self.on_row(row)
        if self._failures >= FAILURES_IN_A_ROW:
            reason = outcome.error.strip().splitlines()[-1]
            raise Stopped(f"{FAILURES_IN_A_ROW} proposals in a row failed, the last with: {reason}; tracebacks are in refine.jsonl")

    @property
    def current_ms(self) -> float:
        """The measured latency of the path's last network."""
        latency = self.path[-1].latency
        assert latency is not None, "the path is measured"
        return latency.p50_ms

    @property
    def cut_ms(self) -> float:
        """What the next step is to save: its delta, no more than is missing to the target, and no less than can be measured."""
        delta = self._delta_ms * self._settings.delta_decay ** (len(self.path) - 1)
        return max(min(delta, self.current_ms - self._target_ms), self._least_ms)

    def _open_step(self) -> None:
        current, step = self.path[-1], len(self.path)
        if not self._slow:
            self._began = time.monotonic()
        proposals = self._larger(current) if self._slow else self._sized(current)
        if not proposals:
            return
        self._network = build(current.arch, generator=torch.Generator().manual_seed(0))
        self._network.load_state_dict(load(self._folder.path / current.weights))
        self._step_part = msgspec.structs.replace(self._part, draw=step)
        self._recipe = tuning_recipe(self._config, self._settings)
        self._scores = scores_of(self._settings.keep, self._network, self._task, self._recipe, self._step_part)
        self._proposals = {p.arch.id: p for p in proposals}
        known = {i for i, row in self._record.of_step(step, current.id).items() if not row.error}  # a new start tries the failed ones again
        archs = {current.id: current.arch} | {i: p.arch for i, p in self._proposals.items()}
        self._queue = deque(self._job(arch, step) for i, arch in archs.items() if i not in known)

    def _sized(self, current: Candidate) -> list[Proposal]:
        estimate = anchored(self._pricing.ms, current.arch, self.current_ms)
        cut_ms = self.cut_ms
        able = places(current.arch, self._settings.kinds)
        found, least_ms = reachable(current.arch, able, self.current_ms, cut_ms, estimate, self._least_ms)
        self._cut_ms = least_ms
        if not found:
            further = "more --kinds, or a smaller --delta" if least_ms > self._least_ms else "more --kinds, or a device that is less busy"
            self.stopped = (
                f"no single change saves {three_digits(least_ms)} ms any more: the path ends at {three_digits(self.current_ms)} ms; "
                f"{further}, may go further"
            )
        elif least_ms < cut_ms:
            self._say(f"no single change saves {three_digits(cut_ms)} ms: step {len(self.path)} takes 1/{cut_ms / least_ms:.2g} of that")
        return found

    def _larger(self, current: Candidate) -> list[Proposal]:
        """Proposals that save twice as much as those that the device did not find faster, or four or eight times; else the path ends."""
        estimate, able = anchored(self._pricing.ms, current.arch, self.current_ms), places(current.arch, self._settings.kinds)
        none = f"none of step {len(self.path)}'s proposals measures faster"
        while self._doublings < DOUBLINGS:
            self._doublings += 1
            cut_ms = self._cut_ms * 2**self._doublings
            found = [p for p in sized(current.arch, able, self.current_ms - cut_ms, estimate) if p.arch.id not in self._slow]
            if found:
                self._say(f"{none}: those that save {three_digits(cut_ms)} ms are tried")
                return found
        self.stopped = f"{none}: the path ends at {three_digits(self.current_ms)} ms"
        self._record.end(len(self.path), self.stopped)
        self._sweep(len(self.path))
        return []

    def _job(self, arch: Architecture, step: int) -> Job:
        folder, own = self._folder.path.resolve() / "weights", arch.id == self.path[-1].id
        name = f"{step:03d}-{arch.id}.safetensors"
        return Job(
            key=f"{step:03d}-{arch.id}", arch=arch, recipe=self._recipe, seed=self._seed(step),
            weights=str(folder / name), init=str(self._folder.path.resolve() / self.path[-1].weights if own else folder / f"init-{name}"),
            part=self._step_part,
        )  # fmt: skip

    def _seed(self, step: int) -> int:
        return proposal_seed(self._config.seed, STEP_SEED + step)

    def _prepare(self, job: Job) -> None:
        """Writes the weights that a proposal begins with."""
        proposal = self._proposals.get(job.arch.id)
        if proposal:
            generator = torch.Generator().manual_seed(job.seed)
            small = carried(self._network, proposal.place, proposal.arch, self._scores, generator=generator)
            save(small.state_dict(), job.init)

    def _accept(self) -> None:
        """Ends the open step with the best proposal that the device finds faster; where there is none, larger ones are to follow."""
        step, parent = len(self.path), self.path[-1]
        rows = self._record.of_step(step, parent.id)
        own = rows.pop(parent.id, None)
        able = [r for r in rows.values() if r.score is not None and r.arch.id in self._proposals]
        if not able:
            raise Stopped(f"every proposal of step {step} failed; refine.jsonl in {self._folder.path} has the tracebacks")
        faster = self._faster(self._ranked(able, own))
        if faster is None:
            self._slow |= set(self._proposals)
            self._proposals = {}
            return
        chosen, latency = faster
        row = Candidate(
            stage="refine", status="trained", arch=chosen.arch, seed=self._seed(step), parent_id=parent.id,
            cost=count(chosen.arch), latency=latency, latency_source="measured", score=chosen.score,
            score_source="short", seconds=sum(r.seconds for r in (*rows.values(), *([own] if own else []))),
            weights=f"weights/{step:03d}-{chosen.arch.id}.safetensors",
        )  # fmt: skip
        self._folder.append(row)
        self._tell(chosen, latency, own)
        self.path.append(row)
        self._proposals, self._slow, self._doublings = {}, set(), 0
        self._sweep(step, Path(row.weights).name)

    def _sweep(self, step: int, kept: str = "") -> None:
        """Removes the weights of a decided step's proposals."""
        for file in (self._folder.path / "weights").glob(f"{step:03d}-*.safetensors"):
            if file.name != kept:
                file.unlink()

    def _ranked(self, able: list[Tried], own: Tried | None) -> list[Tried]:
        """The best first; by accuracy alone where the network left as it is has none to tell a loss against."""
        if own is not None and own.score is not None:
            return ranked(self._settings.choose, able, own.score, self.current_ms)
        if self._settings.choose == "ratio":
            self._say(f"step {len(self.path)}: the network left as it is could not be trained, so its proposals are ranked by accuracy")
        return ranked("accuracy", able, 0.0, self.current_ms)

    def _faster(self, best_first: list[Tried]) -> tuple[Tried, Latency] | None:
        """The first of these that the device finds faster than the step's network, and its latency; None where it finds none so.

        Raises:
            Stopped: the device can run none of them.
        """
        name, failed = self._meter.device.info().name, 0
        for row in best_first:
            timed = self._timed(row)
            if isinstance(timed, Failed):
                self._say(f"{name} cannot run {row.arch.id}, which is left out: {timed}")
                failed += 1
                continue
            own_ms, latency = timed
            if latency.p50_ms < own_ms:
                return row, latency
            self._say(
                f"{row.arch.id} was estimated at {three_digits(row.ms)} ms and measures {three_digits(latency.p50_ms)}, "
                f"the step's network beside it {three_digits(own_ms)}: no gain"
            )
        if failed == len(best_first):
            raise Stopped(f"{name} can run none of the proposals of step {len(self.path)}")
        return None

    def _timed(self, row: Tried) -> tuple[float, Latency] | Failed:
        """What the step's network takes in ms, and a proposal's latency, in turns with each other and the seed.

        The path's own figures were chosen for being low, so they are no measure of what comes after. A proposal that seems to
        reach the target is timed once more for the same reason, and the second figure counts.
        """
        own, latency = self._beside(row)
        if not isinstance(latency, Failed) and latency.p50_ms <= self._target_ms and latency.p50_ms < own.p50_ms:
            first_ms = latency.p50_ms
            own, latency = self._beside(row)
            if not isinstance(latency, Failed) and latency.p50_ms > self._target_ms:
                self._say(f"{row.arch.id} measures {three_digits(first_ms)} ms and once more {three_digits(latency.p50_ms)}, which counts")
        return latency if isinstance(latency, Failed) else (own.p50_ms, latency)

    def _beside(self, row: Tried) -> tuple[Latency, Latency | Failed]:
        first = self.path[0]
        own, latency = timed_beside(first.arch, first.latency, [self.path[-1].arch, row.arch], self._meter, self._say)
        if isinstance(own, Failed):
            raise own
        return own, latency

    def _pace(self) -> float:
        """The seed's measured latency over its estimate: by so much the device runs slower than when its table was built."""
        first = self.path[0].latency
        assert first is not None, "the path is measured"
        (own,) = self._pricing.ms([self.path[0].arch])
        return first.p50_ms / own

    def _tell(self, chosen: Tried, latency: Latency, own: Tried | None) -> None:
        parent = self.path[-1]
        assert chosen.place is not None, "a step's own network is not chosen"
        before = f" (left as it is {own.score:.3f})" if own and own.score is not None else ""
        change = f"{described(parent.arch, chosen.place)} {size_at(parent.arch, chosen.place)} → {chosen.size}"
        took = duration(time.monotonic() - self._began)
        self._say(
            f"step {len(self.path)}: {change}: {three_digits(latency.p50_ms)} ms measured, {three_digits(chosen.ms)} estimated; "
            f"held-out {chosen.score:.3f} ±{chosen.score_se:.3f}{before}; {took}"
        )
        if latency.problems:
            self._say(f"its latency is in doubt: {'; '.join(latency.problems)}")
        interval = self._pricing.interval_ms(chosen.arch)
        if interval and not interval[0] <= latency.p50_ms / self._pace() <= interval[1]:
            low, high = (three_digits(end * self._pace()) for end in interval)
            self._say(f"{self._pricing.name} says {low} to {high} ms: the measurement is outside its stated error, and rules")


def tuning_recipe(config: RunConfig, settings: Refinement) -> Recipe:
    """The run's recipe with the learning rate of fine-tuning."""
    return msgspec.structs.replace(config.recipe, lr=config.recipe.lr * settings.tune_lr)
