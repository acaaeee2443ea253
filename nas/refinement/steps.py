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
from nas.refinement.choice import merit, standard_error
from nas.refinement.importance import scores_of
from nas.refinement.part import Part
from nas.refinement.places import described, places, size_at
from nas.refinement.pricing import Pricing, anchored
from nas.refinement.record import Record, Tried
from nas.refinement.settings import Refinement
from nas.refinement.sizing import Proposal, reachable
from nas.samplers import proposal_seed
from nas.store import Candidate, Latency, RunFolder
from nas.tasks.task import Task
from nas.weights import load, save
from search_spaces.architecture import Architecture

__all__ = ["Steps", "tuning_recipe"]

MEASURED = 3  # proposals of a step that are measured, in order of merit, to find one that the device finds faster
FAILURES_IN_A_ROW = 3
STEP_SEED = 2_000_000_011  # not the seeds of a search's proposals

Say = Callable[[str], None]


class Steps:
    """The short trainings of a refinement as a source of jobs (a ``JobSource``); nothing trains while the device measures.

    All trainings of a step see the same images in the same order. One of them trains the step's network as it is: accuracy given up
    is told against it, so that neither the longer training nor a seed that has seen the held-out images counts as a gain or a loss.
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
        self._began = 0.0
        self.stopped = ""  # why the path ended before its target, if it did

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
        self._began = time.monotonic()
        proposals = self._sized(current)
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
        found, least_ms = reachable(current.arch, places(current.arch, self._settings.kinds), self.current_ms, cut_ms, estimate)
        if not found:
            further = "more --kinds, or a smaller --delta" if cut_ms > self._least_ms else "more --kinds, or a device that is less busy"
            self.stopped = (
                f"no single change saves {three_digits(least_ms)} ms any more: the path ends at {three_digits(self.current_ms)} ms; "
                f"{further}, may go further"
            )
        elif least_ms < cut_ms:
            lost = ", less than one measurement can tell" if least_ms < self._least_ms else ""
            self._say(
                f"no single change saves {three_digits(cut_ms)} ms: step {len(self.path)} takes 1/{cut_ms / least_ms:.0f} of that{lost}"
            )
        return found

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
        """Ends the open step: its best proposal becomes the path's next network, once it is measured."""
        step, parent = len(self.path), self.path[-1]
        rows = self._record.of_step(step, parent.id)
        own = rows.pop(parent.id, None)
        reference = own.score if own and own.score is not None else parent.score
        able = [r for r in rows.values() if r.score is not None and r.arch.id in self._proposals]
        if not able:
            raise Stopped(f"every proposal of step {step} failed; refine.jsonl in {self._folder.path} has the tracebacks")
        ranked = sorted(able, key=lambda r: merit(self._settings.choose, r, reference or 0.0, self.current_ms), reverse=True)
        chosen, latency = self._measured(ranked)
        row = Candidate(
            stage="refine", status="trained", arch=chosen.arch, seed=self._seed(step), parent_id=parent.id,
            cost=count(chosen.arch), latency=latency, latency_source="measured", score=chosen.score,
            score_source="short", seconds=sum(r.seconds for r in (*rows.values(), *([own] if own else []))),
            weights=f"weights/{step:03d}-{chosen.arch.id}.safetensors",
        )  # fmt: skip
        self._folder.append(row)
        self._tell(chosen, latency, own)
        self.path.append(row)
        self._proposals = {}
        for file in (self._folder.path / "weights").glob(f"{step:03d}-*.safetensors"):
            if file.name != Path(row.weights).name:
                file.unlink()

    def _measured(self, ranked: list[Tried]) -> tuple[Tried, Latency]:
        """The first of the best proposals that the device finds faster than the step's network; the best one where it finds none so."""
        slow: list[tuple[Tried, Latency]] = []
        for row in ranked:
            (latency,) = timed_beside(self.path[0], [row.arch], self._meter, self._say)
            if isinstance(latency, Failed):
                self._say(f"{self._meter.device.info().name} cannot run {row.arch.id}, which is left out: {latency}")
                continue
            if latency.p50_ms < self.current_ms:
                return row, latency
            slow.append((row, latency))
            self._say(f"{row.arch.id} was estimated at {three_digits(row.ms)} ms and measures {three_digits(latency.p50_ms)}: no gain")
            if len(slow) == MEASURED:
                break
        if not slow:
            raise Stopped(f"{self._meter.device.info().name} can run none of the proposals of step {len(self.path)}")
        return slow[0]

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
        interval = self._pricing.interval_ms(chosen.arch)
        if interval and not interval[0] <= latency.p50_ms / self._pace() <= interval[1]:
            low, high = (three_digits(end * self._pace()) for end in interval)
            self._say(f"{self._pricing.name} says {low} to {high} ms: the measurement is outside its stated error, and rules")


def tuning_recipe(config: RunConfig, settings: Refinement) -> Recipe:
    """The run's recipe with the learning rate of fine-tuning."""
    return msgspec.structs.replace(config.recipe, lr=config.recipe.lr * settings.tune_lr)
