"""What the parts of a run will cost, in wall seconds: from a training speed, the time of a measurement, and counts of networks."""

from collections.abc import Collection, Sequence

import msgspec

from nas import pareto
from nas.bench import Bench, samples
from nas.budget.split import Costs, FinalCost, makespan
from nas.finals import final_plan, predicted_baselines, search_front
from nas.forecast import FORWARD, Speed
from nas.sharing.run_bank import search_seconds
from nas.store import Candidate
from search_spaces.architecture import Architecture

__all__ = ["costs_of", "final_costs", "measuring_s", "probing_s", "reporting_s", "trained_in_full"]

FRONT_SIZES, BASELINE_WIDTHS = (8, 6, 4, 3, 2), (2, 1)  # what a budget chooses from
RAY_S, JOB_S = 6.0, 0.5  # Ray's own start; handing a job to a worker and storing its weights
OPENING_SHARE = 0.5  # of what opening took here: each worker loads torch and the data too
HELD_OUT = 2.5  # times the validation images are scored at the end of a full training: they and the test images
TRIED_WIDTHS = 4  # of each family of baselines that are measured, as a rule
EXPORT_S, REPORT_S = 0.6, 6.0  # a model; figures, tables and the end of the process
MEASURING_SHARE, MODEL_S = 0.10, (3.0, 15.0)  # of the budget for the last measurement, and seconds a model at least and at most
PROBES = 200  # a probe takes so small a part of the budget
PROBE_S = (0.5, 3.0)


def costs_of(bench: Bench, speed: Speed, price_s: float, *, has_bank: bool, rows: Sequence[Candidate] = ()) -> Costs:
    """The costs of a whole run; ``has_bank`` says that its bank is trained by now, ``rows`` are those of earlier starts."""
    config, task, archs = bench.config, bench.task, samples(bench)
    bank_s, each_s = search_seconds(msgspec.structs.replace(config, bank_epochs=1, epochs=1), bench.space, task, archs, speed)
    epoch_s = each_s / bench.workers if config.evaluate == "alone" else 0.0
    scoring_s = epoch_s * FORWARD * len(task.valid) / len(task.train) if epoch_s else each_s / bench.workers
    device_s = max(0.0, price_s - epoch_s) if bench.overlap else price_s
    front = [r.arch for r in search_front(rows)]
    finals = final_costs(bench, speed, front or archs, price_s, is_known=bool(front), done=trained_in_full(bench, rows))
    return Costs(
        start_s=starting_s(bench), bank_epoch_s=0.0 if has_bank else bank_s, candidate_s=scoring_s + device_s + JOB_S / bench.workers,
        epoch_s=epoch_s, finals=finals, networks=max(1.0, bench.space.size().distinct),
    )  # fmt: skip


def trained_in_full(bench: Bench, rows: Sequence[Candidate]) -> frozenset[str]:
    """Ids of the networks that earlier starts trained for as many epochs as this one will."""
    if "final_epochs" in bench.free:
        return frozenset()
    return frozenset(r.id for r in rows if r.stage == "final" and r.status == "trained")


def final_costs(
    bench: Bench, speed: Speed, front: Sequence[Architecture], price_s: float, *, is_known: bool = False, done: Collection[str] = (),
) -> tuple[FinalCost, ...]:  # fmt: skip
    """The costs of the choices of full trainings, the most models first.

    ``front``: networks that the members will be like, or the members, where it ``is_known``: then there are no more. ``done``: ids of
    those that are trained in full by now, and need no more than to be measured.
    """
    config, free = bench.config, bench.free
    sizes = FRONT_SIZES if "front_size" in free else (config.front_size,)
    widths = BASELINE_WIDTHS if "baseline_widths" in free else (config.baseline_widths,)
    networks = {size: _spread(front, size, is_known) for size in sizes}
    choices = [_final_cost(bench, speed, size, networks[size], width, price_s, done) for size in sizes for width in widths]
    return tuple(sorted(choices, key=lambda c: -c.models))


def _spread(front: Sequence[Architecture], size: int, is_known: bool) -> list[Architecture]:
    chosen = [front[i] for i in pareto.spread(range(len(front)), size)]
    return chosen if is_known else chosen + [front[i % len(front)] for i in range(size - len(chosen))]


def _final_cost(
    bench: Bench, speed: Speed, size: int, members: Sequence[Architecture], widths: int, price_s: float, done: Collection[str]
) -> FinalCost:
    config, task = bench.config, bench.task
    beside = predicted_baselines(msgspec.structs.replace(config, baseline_widths=widths), task, members)
    archs = (*members, *beside)
    each = [speed.seconds(arch, len(task.train), 1) for arch in archs if arch.id not in done]
    scored = HELD_OUT * FORWARD * len(task.valid) / len(task.train)
    tries_s = price_s * TRIED_WIDTHS * len(config.baselines)
    jobs_s = makespan((s * scored + JOB_S + probing_s(bench) for s in each), bench.workers)
    return FinalCost(
        front_size=size, baseline_widths=widths, models=len(archs), epoch_s=makespan(each, bench.workers), besides_s=tries_s + jobs_s,
        measuring_s=measuring_s(bench, len(archs)) + reporting_s(len(archs)),
    )  # fmt: skip


def measuring_s(bench: Bench, models: int) -> float:
    """The share of a budget for the last measurement of so many models."""
    if bench.device.info().kind == "fake" or not bench.config.budget_s:
        return 0.0
    least, most = (models * s for s in MODEL_S)
    plan = final_plan(models)
    return max(least, min(most, MEASURING_SHARE * bench.config.budget_s, models * plan.longest_ms / 1000))


def reporting_s(models: int) -> float:
    """Seconds for exporting so many models and for all that is written and drawn at the end."""
    return REPORT_S + EXPORT_S * models


def probing_s(bench: Bench) -> float:
    """Seconds for which training steps of a network are timed before its number of epochs is decided."""
    low, high = PROBE_S
    return max(low, min(high, (bench.config.budget_s or 0.0) / PROBES))


def starting_s(bench: Bench) -> float:
    """Seconds until workers are at work: they do again what was done here to open the run."""
    return OPENING_SHARE * bench.opened_s + (RAY_S if bench.config.executor == "ray" else 0.0)
