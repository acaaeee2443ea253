"""A refinement from end to end: the seed, the path, the full trainings, the report."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from latency import PUBLISH, Failed
from latency.console import Console, ms, open_console, three_digits
from latency.devices.base import time_each
from latency.onnx_graph import emit
from nas import outputs, pareto
from nas.config import RunConfig
from nas.cost import count
from nas.errors import NothingFeasible, Stopped
from nas.evaluate import evaluate
from nas.executors import EXECUTORS
from nas.finals import Baseline, final_plan
from nas.jobs import Done, JobSource, SourceChain, open_config_task
from nas.models import Network, build
from nas.refinement.aimed import found_best, open_search
from nas.refinement.bench import RefineBench, open_refine_bench, refuse_impossible
from nas.refinement.beside import beside, timed_beside
from nas.refinement.carry import matched
from nas.refinement.longer import Full, FullTrainings
from nas.refinement.part import parted
from nas.refinement.planning import say_plan, say_seed_training
from nas.refinement.record import Record, check_settings, is_finished, keep_scale, open_record
from nas.refinement.report import Report, draw, show, write_csv
from nas.refinement.scaling import scaled_to
from nas.refinement.seeds import Seed
from nas.refinement.settings import Refinement
from nas.refinement.steps import Steps
from nas.rounds import SearchRounds
from nas.store import Candidate, Latency, RunFolder, check_out, open_run, read_rows, write_atomic
from nas.tasks.task import Task
from nas.weights import load, save
from search_spaces.architecture import Architecture

__all__ = ["refine"]

SEED_LABEL = "seed x1"
REPORT_PROCESSES = 9  # enough to draw from, for the intervals of ratios
SEED_WEIGHTS = "weights/seed.safetensors"


def refine(
    config: RunConfig, settings: Refinement, seed: Seed, out: Path, *, task: Task | None = None, console: Console | None = None
) -> None:
    """Runs or takes up the refinement in ``out``; see ``python -m nas.refine --help``.

    Args:
        config: the data, the recipe, the device and the workers; of a search's fields those for searching are not read.
        settings: of this seed.
        seed: where the path begins.
        out: the run folder.
        task: that of the configuration, where it is open by now.
        console: where the story goes.

    Raises:
        NasError: bad names, data, folder or target (before anything is trained), or three failures in a row.
    """
    console = console or open_console()
    check_out(out, config)
    check_settings(out, settings)
    if is_finished(out, settings):
        console.say(f"{out} is complete")
        show(out, console)
        return
    with open_refine_bench(config, settings, seed, out, task or open_config_task(config), console) as bench:
        refuse_impossible(bench)
        with open_run(out, config) as folder:
            (out / "path.csv").unlink(missing_ok=True)  # a finished run that is to search more is finished no longer
            record = open_record(out, settings)
            write_atomic(out / "environment.json", outputs.environment_text(bench.task, None, bench.device.info(), bench.meter.plan))
            _clear_leftovers(folder)
            _keep_seed(bench)
            console.say(f"refining {seed.origin} in {out}")
            try:
                _finish(bench, record, *_run(bench, folder, record))
            except NothingFeasible:
                record.reopen()
                raise
            except BaseException:
                console.say(f"what is done is kept in {out}: the same command goes on from there")
                raise


def _clear_leftovers(folder: RunFolder) -> None:
    """Removes what a kill left of proposals: weights to begin with, and those of steps that are decided."""
    kept = {Path(r.weights).name for r in folder.rows if r.weights}
    decided = sum(r.stage == "refine" for r in folder.rows)
    for file in (folder.path / "weights").glob("*.safetensors"):
        step = file.name.partition("-")[0]
        if step == "init" or (step.isdigit() and int(step) < decided and file.name not in kept):
            file.unlink()


def _keep_seed(bench: RefineBench) -> None:
    """Writes the seed's weights into the run folder, so that it needs no other; what is not known of them is drawn by the run's seed."""
    path = bench.out / SEED_WEIGHTS
    if bench.seed.state is not None and not path.exists():
        network, _ = matched(bench.seed.arch, bench.seed.state, generator=torch.Generator().manual_seed(bench.config.seed))
        save(network.state_dict(), path, metadata={"arch": bench.seed.arch.id})


def _run(bench: RefineBench, folder: RunFolder, record: Record) -> tuple[Steps, FullTrainings]:
    """Trains the seed where that is to be done, goes along the path, trains in full."""
    opened: list[Steps] = []
    searched: list[SearchRounds] = []
    full: list[FullTrainings] = []

    def open_full(wanted: Sequence[Full]) -> JobSource:
        lines.close()
        full.append(_full(bench, folder, wanted, lines))
        return full[-1]

    def open_steps() -> JobSource:
        opened.append(_open_steps(bench, folder, record, lines))
        return opened[-1]

    def open_searched() -> JobSource:
        lines.close()
        _members(bench, opened[-1])  # where there is no path, there is no latency to search for
        searched.append(open_search(bench, folder.path, opened[-1].path, lines))
        return searched[-1]

    with contextlib.ExitStack() as lines:
        untrained = [] if bench.seed.is_trained else [_seed_training(bench)]
        if untrained and not any(r.id == bench.seed.arch.id and r.status == "trained" for r in folder.rows):
            say_seed_training(bench)
        found = [open_searched] if bench.settings.search else []
        sources = SourceChain([lambda: open_full(untrained), open_steps, *found, lambda: open_full(_wanted(bench, opened[-1], searched))])
        if not isinstance(sources.peek(), Done):
            EXECUTORS[bench.config.executor](sources, bench.config, workers=bench.workers)
    return opened[-1], full[-1]


def _full(bench: RefineBench, folder: RunFolder, wanted: Sequence[Full], lines: contextlib.ExitStack) -> FullTrainings:
    kept = read_rows(folder.path / "candidates.jsonl")
    found = FullTrainings(wanted, config=bench.config, folder=folder, kept=kept, tune_lr=bench.settings.tune_lr)
    if len(found):
        tick = lines.enter_context(bench.console.progress(len(found), f"trained for {bench.config.final_epochs} epochs"))
        found.on_row = lambda row: tick(f"{_named(row)} " + (f"valid {row.score:.3f}" if row.score is not None else "failed"))
    return found


def _named(row: Candidate) -> str:
    return f"{row.baseline or row.id}{' fine-tuned' * (row.score_source == 'tuned')}"


def _seed_training(bench: RefineBench) -> Full:
    """The seed's training, from the weights of another task or from none."""
    return Full(arch=bench.seed.arch, label=SEED_LABEL, init=bench.out / SEED_WEIGHTS if bench.seed.state is not None else None)


def _open_steps(bench: RefineBench, folder: RunFolder, record: Record, lines: contextlib.ExitStack) -> Steps:
    """The path's steps, its first row the seed's; says the plan."""
    rows = read_rows(folder.path / "candidates.jsonl")
    if not any(r.stage == "refine" for r in rows):
        row = _seed_row(bench, rows)
        keep_scale(bench.out, bench.scale)
        folder.append(row)
        rows = (*rows, row)
    seed = next(r for r in rows if r.stage == "refine")
    say_plan(bench, rows, _loaded(seed.arch, bench.out / seed.weights))
    tick = lines.enter_context(bench.console.progress(None, "proposals fine-tuned"))
    return Steps(
        config=bench.config, settings=bench.settings, folder=RunFolder(path=folder.path, rows=rows), record=record, task=bench.task,
        meter=bench.meter, pricing=bench.pricing, part=bench.part, target_ms=bench.target_ms, delta_ms=bench.delta_ms,
        least_ms=bench.least_ms, say=bench.console.say, on_row=lambda row: tick(f"step {row.step}"),
    )  # fmt: skip


def _seed_row(bench: RefineBench, rows: Sequence[Candidate]) -> Candidate:
    """The path's first row: the seed's weights and their score on the held-out images."""
    weights = SEED_WEIGHTS
    if not bench.seed.is_trained:
        trained = [r for r in rows if r.stage == "final" and r.status == "trained" and r.id == bench.seed.arch.id]
        if not trained:
            raise Stopped(f"the training of {bench.seed.origin} failed; candidates.jsonl in {bench.out} has the traceback")
        weights = trained[-1].weights
    judged, _ = parted(bench.task, bench.config.recipe, msgspec.structs.replace(bench.part, steps=1))
    score = evaluate(_loaded(bench.seed.arch, bench.out / weights), judged, "valid")
    return Candidate(
        stage="refine", status="trained", arch=bench.seed.arch, seed=bench.config.seed, cost=count(bench.seed.arch),
        latency=bench.seed_latency, latency_source="measured", score=score, score_source="short", weights=weights,
    )  # fmt: skip


def _loaded(arch: Architecture, weights: Path) -> Network:
    network = build(arch, generator=torch.Generator().manual_seed(0))
    network.load_state_dict(load(weights))
    return network


def _members(bench: RefineBench, steps: Steps) -> list[Candidate]:
    """The path's networks that are trained from scratch, the last among them: those at the targets, or evenly spread ones.

    Raises:
        NothingFeasible: there is no path.
    """
    seed, *taken = steps.path
    if not taken:
        raise NothingFeasible(
            f"no step was possible, so there is nothing to train in full: {steps.stopped}; the same command tries again, as on a device "
            "that is less busy, and another --out begins anew with other settings"
        )
    if not bench.settings.passing:
        return [steps.path[i] for i in pareto.spread(range(len(steps.path)), bench.settings.members + 1)[1:]]
    at = [next((r for r in taken if _p50(r) <= target), taken[-1]) for target in bench.targets_ms(_p50(seed))]
    return list({r.id: r for r in at}.values())


def _wanted(bench: RefineBench, steps: Steps, searched: Sequence[SearchRounds]) -> list[Full]:
    """The full trainings: the last network both ways, members of the path, the seed and its scaled relatives at their latencies, and
    the best that a search found."""
    members, path, last = _members(bench, steps), steps.path, steps.path[-1]
    if steps.stopped:
        bench.console.warn(steps.stopped)
    relatives = _relatives(bench, path[0], members)
    return [
        Full(arch=last.arch, parent_id=last.parent_id, init=bench.out / last.weights),
        Full(arch=bench.seed.arch, label=SEED_LABEL),
        *(Full(arch=r.arch, parent_id=r.parent_id) for r in members),
        *(Full(arch=b.arch, label=b.label) for b in relatives),
        *(full for rounds in searched for full in found_best(rounds, bench.console.say)),
    ]


def _relatives(bench: RefineBench, seed: Candidate, members: Sequence[Candidate]) -> list[Baseline]:
    """The seed at widths that take as long as the members; chosen once and kept, so that a resumed run trains the same ones."""
    kept = outputs.kept_baselines(bench.out, members)
    if kept is not None:
        return kept

    def measure(archs: Sequence[Architecture]) -> list[float]:
        bench.console.say(f"measuring {len(archs)} widths of the seed, to train those beside the path that take as long")
        found = timed_beside(seed.arch, seed.latency, archs, bench.meter, bench.console.say)
        return [math.inf if isinstance(latency, Failed) else latency.p50_ms for latency in found]

    chosen = scaled_to(seed.arch, [r.latency.p50_ms for r in members if r.latency], measure)
    relatives = [Baseline(label=f"seed x{factor:g}", arch=arch, inside=True) for factor, arch in chosen]
    outputs.keep_baselines(bench.out, members, relatives)
    return relatives


def _finish(bench: RefineBench, record: Record, steps: Steps, full: FullTrainings) -> None:
    """Measures the path and all networks that were trained in full side by side and writes what is left to write."""
    for row in full.failed:
        bench.console.warn(f"{_named(row)} failed and is missing: {row.error.strip().splitlines()[-1]}")
    if not full.rows:
        raise Stopped(f"every full training failed; candidates.jsonl in {bench.out} has the tracebacks")
    measured = _measured(bench, [*steps.path, *full.rows])
    path, rows = measured[: len(steps.path)], measured[len(steps.path) :]
    seed, best = path[0], max((r for r in rows if r.id == path[-1].id), key=lambda r: r.score or 0.0, default=None)
    targets_ms = bench.targets_ms(_p50(seed))  # at the device's speed of now
    if best:
        RunFolder(path=bench.out, rows=()).append(best)  # of several rows of an architecture the last is exported
        bench.console.say(f"{_named(best)} is the better of fine-tuned and trained from scratch on valid, and is kept")
        _say_how_it_ended(bench, seed, best, targets_ms[-1])
    by_id = {r.id: r for r in sorted(rows, key=lambda r: r.score or 0.0)}
    outputs.write_front(list(by_id.values()), bench.out / "front.csv")
    report = Report(
        path=tuple(path), finals=tuple(rows), tried=tuple(record.rows), held_out=bench.part.held_out,
        test_images=len(bench.task.test()), targets_ms=targets_ms, device=bench.device.info().name,
    )  # fmt: skip
    draw(report, bench.out / "path.png")
    write_csv(report, bench.out / "path.csv")
    show(bench.out, bench.console)


def _measured(bench: RefineBench, rows: Sequence[Candidate]) -> list[Candidate]:
    """The rows with latencies of one session, each by its ratio to the first row's, the seed's, so that they can be compared."""
    archs = {r.id: r.arch for r in rows}
    usual = msgspec.structs.replace(PUBLISH, threads=bench.config.threads, processes=REPORT_PROCESSES, more_processes=0)
    plan = final_plan(len(archs), usual)
    bench.console.say(f"measuring {len(archs)} networks side by side")
    taken = []
    for result in time_each(bench.device, [emit(a) for a in archs.values()], plan):
        if isinstance(result, Failed):
            raise result
        taken.append(result)
    seed, *others = taken
    latencies = (Latency.of(seed), *(beside(m, seed, seed.p50_ms) for m in others))
    found = dict(zip(archs, latencies, strict=True))
    return [msgspec.structs.replace(r, latency=found[r.id], latency_source="measured") for r in rows]


def _p50(row: Candidate) -> float:
    assert row.latency is not None, "finals are measured"
    return row.latency.p50_ms


def _say_how_it_ended(bench: RefineBench, seed: Candidate, best: Candidate, target_ms: float) -> None:
    """What was promised and what was measured; a last network that is above the target after all."""
    own, last = bench.pricing.ms([seed.arch, best.arch])
    promised, saved = 100 * (1 - last / own), 100 * (1 - _p50(best) / _p50(seed))
    bench.console.say(f"{bench.pricing.name} promised {promised:.0f} % less latency than the seed's, and {saved:.0f} % less is measured")
    if best.latency and _p50(best) > target_ms:
        figure = ms(best.latency.p50_ms, best.latency.low_ms, best.latency.high_ms)
        bench.console.warn(f"measured longer, beside the others, it takes {figure}, above the target of {three_digits(target_ms)} ms")
