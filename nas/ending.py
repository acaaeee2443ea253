"""From the end of a search to its full trainings: who is trained, beside which baselines, and for how long."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import msgspec

from latency import Failed
from latency.console import duration
from nas import outputs
from nas.bench import Bench
from nas.budget.costs import HELD_OUT, JOB_S, final_costs, measuring_s, probing_s, reporting_s
from nas.budget.planning import Prices, note_searched, spare_s
from nas.budget.probes import Probes, filled
from nas.budget.split import GOOD_EPOCHS, FinalCost, final_epochs_within, makespan
from nas.errors import Stopped
from nas.finals import Baseline, FinalJobs, baselines_near, finalists, search_front, wanted
from nas.forecast import FORWARD, speed_of
from nas.jobs import recipe_for
from nas.reuse import take_over
from nas.rounds import SearchRounds
from nas.store import Candidate, RunFolder
from search_spaces.architecture import Architecture

__all__ = ["Ending"]


class Ending:
    """The two sources of jobs behind a search's rounds: probes of the networks that are trained in full, and these trainings.

    Without a budget that decides about them nothing is probed. ``bench`` has the configuration as it is decided by then.
    """

    def __init__(self, bench: Bench, folder: RunFolder, rounds: SearchRounds, prices: Prices, lines: ExitStack) -> None:
        self.bench, self._folder, self._rounds, self._prices, self._lines = bench, folder, rounds, prices, lines
        self._members: list[Candidate] = []
        self._baselines: list[Baseline] = []
        self._probes = Probes([], bench.config.recipe, seconds=0.0)
        self.jobs: FinalJobs | None = None

    def probes(self) -> Probes:
        """Chooses members of the front and baselines, and gives the jobs that time their training, if that is of use."""
        self._lines.close()
        rows = list(self._rounds.rows.values())
        self._tell(rows)
        if not search_front(rows):
            raise Stopped(f"none of {len(rows)} candidates was trained; candidates.jsonl in {self.bench.out} says why")
        if {"front_size", "baseline_widths"} & self.bench.free:
            self._decide_sizes(rows)
        config = self.bench.config
        self._members = finalists(config, rows)
        self._baselines = _baselines(self.bench, self._members)
        if "final_epochs" in self.bench.free:
            self._probes = Probes(self._archs(), recipe_for(config, config.final_epochs), seconds=probing_s(self.bench))
        return self._probes

    def trainings(self) -> FinalJobs:
        """Decides for how long to train, and gives the full trainings."""
        if "final_epochs" in self.bench.free:
            self._decide_epochs()
        note_searched(self.bench)
        config, console = self.bench.config, self.bench.console
        labels = {i: label for i, (label, _) in wanted(self._members, self._baselines).items()}
        folder = take_over(labels, config.final_epochs, self.bench, self._folder)
        jobs = FinalJobs(config=config, folder=folder, members=self._members, baselines=self._baselines)
        seconds = self._seconds(config.final_epochs)
        jobs.sort(seconds)
        wait = makespan(map(seconds, jobs.archs), self.bench.workers)
        members, baselines, epochs = len(self._members), len(self._baselines), config.final_epochs
        console.say(f"training {members} of the front and {baselines} baselines for {epochs} epochs (~{duration(wait)})")
        if len(jobs):
            tick = self._lines.enter_context(console.progress(len(jobs), "trained in full"))
            jobs.on_row = lambda row: tick(outputs.row_line(row))
        self.jobs = jobs
        return jobs

    def _tell(self, rows: Sequence[Candidate]) -> None:
        console = self.bench.console
        if self._rounds.stopped:
            console.say(f"search ended: {self._rounds.stopped}")
        if story := self.bench.meter.story():
            console.say(f"latencies so far: {story}")
        if late := sum(r.status == "infeasible" and r.score is not None and r.duplicate_of is None for r in rows):
            console.say(f"{late} of the trained candidates turned out to be over --max-ms once measured")

    def _archs(self) -> list[Architecture]:
        return list({a.id: a for a in (*(r.arch for r in self._members), *(b.arch for b in self._baselines))}.values())

    def _decide_sizes(self, rows: Sequence[Candidate]) -> None:
        bench = self.bench
        speed = speed_of(rows, len(bench.task.train), self._prices.speed)
        costs = final_costs(bench, speed, [r.arch for r in search_front(rows)], self._prices.price_s, is_known=True)
        cost = next((c for c in costs if self._epochs(c) >= self._enough()), costs[-1])
        sizes = {"front_size": cost.front_size, "baseline_widths": cost.baseline_widths}
        config = msgspec.structs.replace(bench.config, **{name: sizes[name] for name in sizes.keys() & bench.free})
        self.bench = replace(bench, config=config)

    def _enough(self) -> int:
        return GOOD_EPOCHS if "final_epochs" in self.bench.free else self.bench.config.final_epochs

    def _epochs(self, cost: FinalCost) -> float:
        """Epochs that there is time for, on an estimate."""
        return (spare_s(self.bench) - cost.besides_s - cost.measuring_s) / cost.epoch_s

    def _decide_epochs(self) -> None:
        bench, archs = self.bench, self._archs()
        seconds = spare_s(self.bench) - measuring_s(bench, len(archs)) - reporting_s(len(archs))
        epoch, besides = self._seconds(1), self._seconds(0)
        each = [(epoch(arch) - besides(arch), besides(arch)) for arch in archs]
        config = msgspec.structs.replace(bench.config, final_epochs=final_epochs_within(seconds, each, bench.workers))
        self.bench = replace(bench, config=config)

    def _seconds(self, epochs: int) -> Callable[[Architecture], float]:
        """Expected seconds of a full training of a network on a worker, scoring included; by its probe, where there is one."""
        task, rows = self.bench.task, list(self._rounds.rows.values())
        guess = speed_of(rows, len(task.train), self._prices.speed)
        image_s = filled(self._probes.image_s, {arch.id: guess.seconds(arch, 1, 1) for arch in self._archs()})
        images = epochs * len(task.train) + HELD_OUT * FORWARD * len(task.valid)
        return lambda arch: images * image_s[arch.id] + JOB_S


def _baselines(bench: Bench, members: list[Candidate]) -> list[Baseline]:
    """The baselines beside these members; chosen once and kept, so that a resumed run trains the same ones."""
    latencies = [r.latency.p50_ms for r in members if r.latency]
    kept = outputs.kept_baselines(bench.out, members, bench.config.baselines)
    if kept is not None:
        return kept
    missing: dict[str, Failed] = {}
    found = baselines_near(bench.config, bench.task, bench.meter, min(latencies), max(latencies), missing.setdefault)
    if missing:
        bench.console.warn(f"the device cannot run {', '.join(missing)}: left out ({next(iter(missing.values()))})")
    for baseline in found:
        if not baseline.inside:
            bench.console.say(f"{baseline.label} is outside the front's latencies, and the nearest of its family")
    outputs.keep_baselines(bench.out, members, found, bench.config.baselines)
    return found
