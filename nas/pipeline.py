"""The steps of a search, in order: open, price the floor, plan, search, train in full, export, measure, outputs."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from latency.console import Console, open_console
from latency.onnx_graph import emit
from nas import outputs, versus
from nas.announcing import announce
from nas.bench import Bench, check_floor, open_bench, samples
from nas.budget.costs import reporting_s
from nas.budget.kept import take_up
from nas.budget.planning import Prices, bank_in_time, budgeted, close_budget, open_budget, replanned, reserve, spare_s
from nas.config import RunConfig, config_from_file
from nas.ending import Ending
from nas.errors import Stopped
from nas.executors import EXECUTORS
from nas.finals import final_plan, final_plan_within, remeasured
from nas.forecast import measured_speed
from nas.jobs import Done, SourceChain
from nas.moving import move, must_move
from nas.proposals import Proposals
from nas.reuse import reusable
from nas.rounds import SearchRounds
from nas.sharing.run_bank import scored
from nas.store import BANK_FILE, Candidate, RunFolder, check_out, open_run, write_atomic

__all__ = ["search"]


def search(
    config: RunConfig, out: Path, console: Console | None = None, *, free: frozenset[str] = frozenset(), began: float | None = None
) -> RunConfig:
    """Runs or takes up the search in ``out``; gives its configuration as it is in the end. See ``python -m nas.search --help``.

    Args:
        config: what to search; of its fields, a budget replaces those in ``free``.
        out: the run folder.
        console: where the story goes.
        free: fields that the user did not set; see ``nas.budget.split.BUDGETED``.
        began: when the budget began to be used, on the clock of ``time.monotonic``; None: now.

    Raises:
        NasError: bad names, data, budget or folder (before anything is written), or three failures in a row.
    """
    console, began = console or open_console(), time.monotonic() if began is None else began
    taken = take_up(config, free, out)
    config = taken.config
    check_out(out, config)
    if outputs.is_complete(out, config) and not config.remeasure:
        return _shown(config, out, console)
    with open_bench(config, out, console, began=began, used_s=taken.used_s) as bench:
        outputs.refuse_changed(out, bench.task, bench.space)
        moves = must_move(bench, bench.device.info())
        if not moves:
            check_out(out, msgspec.structs.replace(config, remeasure=False))
            if outputs.is_complete(out, config):
                return _shown(config, out, console)
        bench = replace(bench, reuses=reusable(config, bench.task, out, taken.open_fields if config.budget_s else frozenset()))
        check_floor(bench)
        prices = _priced(bench)
        bench = budgeted(bench, prices, taken)
        there = config_from_file(out / "config.json", {}) if moves else bench.config  # a move that fails changes nothing
        with open_run(out, there, first=lambda: open_budget(bench, taken)) as folder:
            try:
                folder = _placed(bench, folder, moves=moves)
                bench, *rows = _run(bench, folder, prices)
                _finish(bench, *rows)
                return bench.config
            except BaseException:
                with contextlib.suppress(OSError):  # what went wrong is what is to be said
                    close_budget(bench)
                more = f" --reuse {config.reuse}" * (config.reuse is not None) + " --remeasure" * moves
                console.say(f"to go on: python -m nas.search --config {out}/config.json --out {out}{more}")
                raise


def _placed(bench: Bench, folder: RunFolder, *, moves: bool) -> RunFolder:
    """The run with ``environment.json`` saying where it is, moved there first if it must be."""
    if moves:
        return move(bench, folder)
    info, earlier = bench.device.info(), outputs.earlier_places(bench.out, moves=False)
    text = outputs.environment_text(bench.task, bench.space, info, bench.meter.plan, earlier=earlier)
    write_atomic(bench.out / "environment.json", text)
    return folder


def _shown(config: RunConfig, out: Path, console: Console) -> RunConfig:
    console.say(f"{out} is complete, measured on {outputs.noted_device(out)}; more --trials, --budget or other --baseline go on from there")
    outputs.show(out, console)
    return config


def _priced(bench: Bench) -> Prices:
    """What training and, where there is a budget, measuring cost now."""
    archs = samples(bench)
    speed = measured_speed(archs, bench.task, bench.config.recipe.batch)
    models = [emit(arch) for arch in archs]
    bench.meter.learn_spread(models)
    return Prices(speed=speed, price_s=0.0 if bench.deadline is None else bench.meter.wall_s(models))


def _run(bench: Bench, folder: RunFolder, prices: Prices) -> tuple[Bench, list[Candidate], list[Candidate]]:
    """Searches, then trains the front and its baselines in full; gives the search's rows and the finals'."""
    announce(bench, folder, prices.speed)
    if bench.config.evaluate == "inherited" and not bench.is_searched and (done := scored(folder.rows)) < bench.config.trials:
        if done and not (bench.out / BANK_FILE).exists():
            why = f"{done} candidates have scores by it, and another would score otherwise"
            raise Stopped(f"{bench.out / BANK_FILE} is gone: {why}; put it back, or name another --out")
        bench = bank_in_time(bench)
    bench = replanned(bench, prices)
    with contextlib.ExitStack() as lines:
        rounds = _open_search(bench, folder, prices, lines)
        ending = Ending(bench, folder, rounds, prices, lines)
        sources = SourceChain([lambda: rounds, ending.probes, ending.trainings])
        if not isinstance(sources.peek(), Done):
            EXECUTORS[bench.config.executor](sources, bench.config, workers=bench.workers, cpus=bench.cpus)
    assert ending.jobs is not None, "the last stage was opened"
    for row in ending.jobs.failed:
        bench.console.warn(f"{row.baseline or row.id} failed and is missing: {row.error.strip().splitlines()[-1]}")
    if not ending.jobs.rows:
        raise Stopped(f"every full training failed; candidates.jsonl in {bench.out} has the tracebacks")
    return ending.bench, list(rounds.rows.values()), ending.jobs.rows


def _open_search(bench: Bench, folder: RunFolder, prices: Prices, lines: contextlib.ExitStack) -> SearchRounds:
    config = bench.config
    what = "candidates trained" if config.evaluate == "alone" else "candidates scored"
    tick = lines.enter_context(bench.console.progress(None if "trials" in bench.free else config.trials, what))
    rounds = SearchRounds(
        config=config, space=bench.space, head=bench.task.head, folder=folder, meter=bench.meter,
        proposals=Proposals(config, bench.space.choices(), bench.out / "study.journal"), overlap=bench.overlap,
        deadline=bench.deadline, reserve_s=reserve(bench, prices),
        on_row=lambda row: tick(outputs.row_line(row), advance=int(row.status == "trained")),
    )  # fmt: skip
    if rounds.trained:
        tick("from before", advance=rounds.trained, earlier=True)
    return rounds


def _finish(bench: Bench, rows: list[Candidate], finals: list[Candidate]) -> None:
    from nas.export import export, write_manifest

    config, out, console = bench.config, bench.out, bench.console
    models: list[Path | bytes] = [
        export(row, out / row.weights, out / "models", bench.task)
        if (out / row.weights).exists()
        else emit(row.arch).SerializeToString()
        for row in finals
    ]
    if bare := [row.baseline or row.id for row, model in zip(finals, models, strict=True) if isinstance(model, bytes)]:
        console.warn(
            f"the weights of {', '.join(bare)} are gone from {out}/models: scores and latencies are shown, and no ONNX files; to train "
            f"them again, remove their rows of stage final from {out}/candidates.jsonl"
        )
    plan = final_plan(len(models)) if bench.deadline is None else final_plan_within(len(models), spare_s(bench) - reporting_s(0))
    plan = msgspec.structs.replace(plan, threads=config.threads, cpus=bench.meter.plan.cpus)
    console.say(f"measuring {len(models)} models side by side")
    finals, measured = remeasured(finals, models, bench.device, plan)
    device = bench.device.info()
    outputs.write_front(finals, out / "front.csv")
    versus.write(versus.versus(finals, measured), out / versus.TABLE)
    where = f"{device.name}, {device.runtime}, {config.threads} thread{'s' * (config.threads > 1)}"
    proxy_epochs = config.epochs if config.evaluate == "alone" else 0
    outputs.draw_front(rows, finals, out / "front.png", device=where, epochs=(proxy_epochs, config.final_epochs))
    outputs.draw_calibration(finals, out / "reliability.png")
    conditions = {
        "asked": outputs.asked_of(config),
        "device": msgspec.to_builtins(device),
        "timing_plan": msgspec.to_builtins(plan),
    }
    exported = [(row, model) for row, model in zip(finals, models, strict=True) if isinstance(model, Path)]
    write_manifest([row for row, _ in exported], [model for _, model in exported], out / "manifest.json", bench.task, conditions)
    close_budget(bench)
    outputs.show(out, console)
