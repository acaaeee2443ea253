"""After the search: the front and its baselines, trained with the same full recipe, scored once on test, measured side by side."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from latency import PUBLISH, Device, Failed, Measurement, TimingPlan
from latency.devices.base import time_each
from latency.onnx_graph import emit
from nas import objective, pareto
from nas.config import RunConfig
from nas.cost import count
from nas.jobs import Job, JobQueue, Outcome, recipe_for
from nas.measuring import Meter
from nas.samplers import proposal_seed
from nas.store import Candidate, Latency, RunFolder
from nas.tasks.task import Task
from nas.trainings import Trainings
from search_spaces.architecture import Architecture
from search_spaces.baselines import baseline, published

__all__ = [
    "FINAL_SEED", "FinalJobs", "baselines_near", "final_plan", "final_plan_within", "final_seed", "finalists", "predicted_baselines",
    "remeasured", "search_front", "wanted",
]  # fmt: skip

WIDTHS = (0.1, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0, 1.4)
FAMILIES = 3  # at least so many stand beside a front
FINAL_SEED = 1_000_000_007  # the final training starts anew: not with the seed of the search's proxy
SHORT_WARMUP_MS, SHORT_SETTLE_S = 100.0, 1.0  # not 0: what stands against measuring is said
WARMING, LOADING_S = 1.5, 0.1  # a warm-up takes longer than its least; a process loads each model
MEASURING_MS = 120_000.0  # at most so long for timing all finals together, warm-up apart


def final_seed(config: RunConfig) -> int:
    """The seed of a run's full trainings."""
    return proposal_seed(config.seed, FINAL_SEED)


def search_front(rows: Sequence[Candidate]) -> list[Candidate]:
    """The non-dominated candidates of the search by (score, latency), by rising latency; only trained ones count."""
    trained = [r for r in rows if r.stage == "search" and r.status == "trained" and r.score is not None and r.latency is not None]
    return [trained[i] for i in pareto.front([(r.score or 0.0, r.latency.p50_ms if r.latency else 0.0) for r in trained])]


def finalists(config: RunConfig, rows: Sequence[Candidate]) -> list[Candidate]:
    """The members of the search's front that are trained in full: at most ``front_size``, spread over its latencies.

    With a scalar reward the best-rewarded candidate is always among them.
    """
    members = search_front(rows)
    chosen = [members[i] for i in pareto.spread(range(len(members)), config.front_size)]
    if config.reward != "pareto" and members:
        best = max(members, key=lambda r: objective.reward(config, r.score or 0.0, r.latency.p50_ms if r.latency else 0.0))
        if best not in chosen:
            chosen = sorted([*chosen[: config.front_size - 1], best], key=lambda r: r.latency.p50_ms if r.latency else 0.0)
    return chosen


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published network at a width; ``inside`` says whether its latency falls into the front's range."""

    label: str
    arch: Architecture
    inside: bool


def baselines_near(
    config: RunConfig, task: Task, meter: Meter, low_ms: float, high_ms: float,
    on_missing: Callable[[str, Failed], object] = lambda label, why: None,
) -> list[Baseline]:  # fmt: skip
    """Each family at the widths whose measured latency lies in [low_ms, high_ms], at most ``baseline_widths`` of them; and those whose
    width is given (``NAME@WIDTH``).

    Widths are tried upwards until one is too slow. Where fewer than three families have one inside, the nearest others
    are added at their nearest width. Networks that the device cannot run are left out, and ``on_missing`` hears of each, with the reason.
    """

    def p50_ms(b: Baseline) -> float | None:
        (result,) = meter.time([emit(b.arch)])
        if isinstance(result, Failed):
            on_missing(b.label, result)
            return None
        return result.measurement.p50_ms

    return _chosen(config, task, p50_ms, low_ms, high_ms)


def predicted_baselines(config: RunConfig, task: Task, members: Sequence[Architecture]) -> list[Architecture]:
    """A guess at ``baselines_near`` by MACs instead of latency, for planning: nothing is measured."""
    macs = [count(arch).macs for arch in members]
    if not macs:
        return []
    return [b.arch for b in _chosen(config, task, lambda b: float(count(b.arch).macs), min(macs), max(macs))]


def _chosen(config: RunConfig, task: Task, price: Callable[[Baseline], float | None], low: float, high: float) -> list[Baseline]:
    given = [_at(*published(spec), task) for spec in config.baselines if "@" in spec]
    able = {b.arch.id: b for b in given if price(b) is not None}
    tried = {name: _tried_widths(name, task, price, high) for name in config.baselines if "@" not in name}
    return list({b.arch.id: b for b in (*able.values(), *_nearest(tried, low, high, config.baseline_widths, [*able.values()]))}.values())


def _at(name: str, width: float, task: Task) -> Baseline:
    arch = baseline(name, width=width, input_chw=task.input_chw, outputs=len(task.classes))
    return Baseline(label=f"{name} x{width:g}", arch=arch, inside=True)


def _tried_widths(name: str, task: Task, price: Callable[[Baseline], float | None], high: float) -> list[tuple[float, Baseline]]:
    """(price, network) at rising widths, up to the first whose price is above ``high``; equal networks once, without a price none."""
    seen: set[str] = set()
    found = []
    for width in WIDTHS:
        one = msgspec.structs.replace(_at(name, width, task), inside=False)
        if one.arch.id in seen:
            continue
        seen.add(one.arch.id)
        cost = price(one)
        if cost is not None:
            found.append((cost, one))
            if cost > high:
                break
    return found


def _nearest(
    tried: Mapping[str, list[tuple[float, Baseline]]], low: float, high: float, most: int, given: Sequence[Baseline]
) -> list[Baseline]:
    found, others = [], []
    for family in tried.values():
        inside = [b for price, b in family if low <= price <= high]
        found += [msgspec.structs.replace(inside[i], inside=True) for i in pareto.spread(range(len(inside)), most)]
        if family and not inside:
            others.append(min(((max(low / price, price / high), b) for price, b in family), key=lambda o: o[0]))
    families = len({b.label.split(" x")[0] for b in (*found, *given)})
    return found + [b for _, b in sorted(others, key=lambda o: o[0])[: max(0, FAMILIES - families)]]


def wanted(members: Sequence[Candidate], baselines: Sequence[Baseline]) -> dict[str, tuple[str, Architecture]]:
    """The networks to train in full by id: label as a baseline and architecture; one that is both is a found one, without label."""
    found = {r.id: ("", r.arch) for r in members}
    return found | {b.arch.id: (b.label, b.arch) for b in baselines if b.arch.id not in found}


class FinalJobs(Trainings):
    """The full trainings of a search; what the run already has is not trained again, and what fails is missing from the front."""

    def __init__(
        self,
        *,
        config: RunConfig,
        folder: RunFolder,
        members: Sequence[Candidate],
        baselines: Sequence[Baseline],
        on_row: Callable[[Candidate], None] = lambda row: None,
    ) -> None:
        self._config, self.on_row = config, on_row
        networks = wanted(members, baselines)
        kept = {r.id: r for r in folder.rows if r.stage == "final" and r.status == "trained"}
        jobs = ((self._job(arch, folder), label) for i, (label, arch) in networks.items() if i not in kept)
        rows = (msgspec.structs.replace(kept[i], baseline=label) for i, (label, _) in networks.items() if i in kept)
        super().__init__(folder, rows, ((job, _draft(job, label)) for job, label in jobs))

    def told(self, row: Candidate, outcome: Outcome) -> None:
        """Hands the row on."""
        self.on_row(row)

    def sort(self, seconds: Callable[[Architecture], float]) -> None:
        """Orders the queue by expected time, the longest first."""
        self._queue = JobQueue(sorted(self._queue.jobs, key=lambda job: -seconds(job.arch)))

    def _job(self, arch: Architecture, folder: RunFolder) -> Job:
        weights = str(folder.path.resolve() / "models" / f"{arch.id}.safetensors")
        recipe = recipe_for(self._config, self._config.final_epochs)
        return Job(key=arch.id, arch=arch, recipe=recipe, seed=final_seed(self._config), weights=weights, test=True)


def _draft(job: Job, label: str) -> Candidate:
    return Candidate(
        stage="final", status="failed", arch=job.arch, seed=job.seed, baseline=label, cost=count(job.arch), score_source="full",
        epochs=job.recipe.epochs,
    )  # fmt: skip


def final_plan(models: int, plan: TimingPlan = PUBLISH) -> TimingPlan:
    """The plan for reported latencies, its limit lowered so that all models in all processes take at most 2 min of timed runs.

    The least that the plan asks of each stays: 20 models or more take longer.
    """
    goes = max(models, 1) * (plan.processes + plan.more_processes)
    return msgspec.structs.replace(plan, max_ms=max(plan.min_ms, min(plan.max_ms, MEASURING_MS / goes)))


def final_plan_within(models: int, seconds: float, plan: TimingPlan = PUBLISH) -> TimingPlan:
    """As ``final_plan``, and for about so many seconds; where that is too short for it with three processes, a short warm-up and none
    that are added, which takes what it takes."""
    full, each_s = final_plan(models, plan), seconds / max(models, 1)
    settle_s = max(SHORT_SETTLE_S, min(plan.settle_s, seconds / 4))
    if each_s < _least_s(full):
        full = msgspec.structs.replace(full, more_processes=0, warmup_ms=min(full.warmup_ms, SHORT_WARMUP_MS))
    goes = full.processes + full.more_processes
    timed_ms = 1000 * (each_s / goes - LOADING_S) - WARMING * full.warmup_ms
    return msgspec.structs.replace(full, settle_s=settle_s, max_ms=max(full.min_ms, min(full.max_ms, timed_ms)))


def _least_s(plan: TimingPlan) -> float:
    return (plan.processes + plan.more_processes) * (LOADING_S + (WARMING * plan.warmup_ms + plan.min_ms) / 1000)


def remeasured(
    rows: Sequence[Candidate], models: Sequence[Path | bytes], device: Device, plan: TimingPlan
) -> tuple[list[Candidate], dict[str, Measurement]]:
    """The rows with latencies of their models, and those by id, all interleaved in one session, so that they can be compared.

    Raises:
        Failed: the device cannot run one of them.
    """
    found, measured = [], {}
    for row, result in zip(rows, time_each(device, models, plan), strict=True):
        if isinstance(result, Failed):
            raise result
        found.append(msgspec.structs.replace(row, latency=Latency.of(result), latency_source="measured"))
        measured[row.id] = result
    return found, measured
