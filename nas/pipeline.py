"""The steps of a search, in order: open, price the floor, plan, search, train in full, export, measure, outputs."""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from latency import QUICK, Failed, Measurement, TimingPlan, open_device
from latency.console import Console, count, duration, ms, open_console
from latency.cores import cpus_for
from latency.devices.facts import CoreClass, read_facts
from latency.devices.transport import LocalTransport
from latency.onnx_graph import emit
from latency.pool import DevicePool
from latency.store import open_store
from latency.table import LatencyTable, open_table
from latency.table_text import other_kernel
from nas import outputs
from nas.config import RunConfig
from nas.errors import NothingFeasible, Stopped, UnknownName
from nas.executors import EXECUTORS
from nas.finals import Baseline, FinalJobs, baselines_near, final_plan, finalists, predicted_baselines, remeasured, search_front
from nas.forecast import Speed, measured_speed, speed_of
from nas.jobs import Done, Stages, open_config_task
from nas.measuring import Meter
from nas.proposals import Proposals
from nas.rounds import SearchRounds
from nas.samplers import SAMPLERS
from nas.sharing.run_bank import scored, search_seconds, train_run_bank
from nas.store import Candidate, RunFolder, check_out, open_run, write_atomic
from nas.tasks.task import Task
from search_spaces import BASELINES, Pick, SearchSpace, open_space
from search_spaces.architecture import Architecture

__all__ = ["search"]

OVERLAP_CORES = 4  # from here on measuring has a core of its own
REMOTE = ("ssh", "android")
MEASURING_S, STARTING_S = 40.0, 12.0  # set aside of a budget: the last measurement, and starting workers

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Everything a run works with."""

    config: RunConfig
    out: Path
    console: Console
    task: Task
    space: SearchSpace
    device: DevicePool
    meter: Meter
    workers: int
    cpus: tuple[int, ...]  # of the workers; empty: any
    overlap: bool
    deadline: float | None


def search(config: RunConfig, out: Path, console: Console | None = None) -> None:
    """Runs or takes up the search in ``out``; see ``python -m nas.search --help``.

    Raises:
        NasError: bad names, data, budget or folder (before anything is written), or three failures in a row.
    """
    console = console or open_console()
    check_out(out, config)
    if outputs.is_complete(out, config):
        console.say(f"{out} is complete; more --trials or --budget go on from there")
        outputs.show(out, console)
        return
    with _bench(config, out, console) as bench:
        outputs.refuse_changed(out, bench.task, bench.space)
        outputs.refuse_other_device(out, bench.device.info())
        _check_floor(bench)
        with open_run(out, config) as folder:
            write_atomic(out / "environment.json", outputs.environment_text(bench.task, bench.space, bench.device.info(), bench.meter.plan))
            try:
                _finish(bench, *_run(bench, folder))
            except BaseException:
                console.say(f"to go on: python -m nas.search --config {out}/config.json --out {out}")
                raise


@contextlib.contextmanager
def _bench(config: RunConfig, out: Path, console: Console) -> Iterator[Bench]:
    began = time.monotonic()
    if config.sampler not in SAMPLERS:
        raise UnknownName.among("sampler", config.sampler, SAMPLERS)
    for name in config.baselines:
        if name not in BASELINES:
            raise UnknownName.among("baseline", name, BASELINES)
    open_space(config.space)
    with contextlib.ExitStack() as stack:
        open_one = partial(open_device, runtime=config.runtime)
        device = DevicePool(config.devices, wait_s=config.device_wait_s, say=console.say, open_one=open_one)
        stack.callback(device.close)
        store = open_store(warn=console.warn)
        stack.callback(store.close)
        task = open_config_task(config)
        space = open_space(config.space, width=config.width, input_chw=task.input_chw)
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
        overlap = overlaps(config, device.info().kind, len(cores))
        apart = overlap and device.info().kind == "local" and len(cores) > config.threads
        cpus, measuring = shared_out(cores, _core_classes(), config.threads) if apart else ((), ())
        plan = msgspec.structs.replace(QUICK, threads=config.threads, cpus=measuring)
        table = _table(config, device, plan, space, task, console.say)
        yield Bench(
            config=config, out=out, console=console, task=task, device=device, cpus=cpus, overlap=overlap,
            space=space,
            meter=Meter(device, plan, store=store, is_fresh=config.fresh, table=table),
            workers=1 if config.executor == "serial" else config.workers or (len(cpus) if apart else len(cores)),
            deadline=began + config.budget_s if config.budget_s else None,
        )  # fmt: skip


def _table(config: RunConfig, device: DevicePool, plan: TimingPlan, space: SearchSpace, task: Task, say: Say) -> LatencyTable | None:
    """The table that the configuration names, if any; refused where it is not of this device and plan, or of too different a space."""
    if config.table is None:
        return None
    table = open_table(config.table, predict=True)
    table.require(device.info(), plan)
    corners = [space.decode(picks, task.head) for picks in space.corners()]
    if set(table.missing(corners)) - table.record.unable.keys():
        table.estimate_many(corners)  # a table of something else, which says what
    if text := other_kernel(table.record.conditions.device, device.info()):
        say(f"table    {config.table}: {text}")
    menu = space.pieces(task.head)
    lacking = [p for p in menu if p not in table.pieces_ms]
    guessed = [p for p in lacking if table.can_guess(p)]
    if guessed and table.predictor:
        within = f"predicted to within a factor of {table.predictor.error.ratio_90:.2f} in nine of ten"
        say(f"table    {config.table} lacks {len(lacking)} of the space's {len(menu)} pieces: {len(guessed)} are {within}")
    if left := len(lacking) - len(guessed):
        say(f"table    {config.table} lacks {left} of the space's {len(menu)} pieces: candidates with one of them are measured")
    return table


def overlaps(config: RunConfig, kind: str, cores: int) -> bool:
    """Whether networks are measured while others train: on another machine always, here where a core is left over for it."""
    return config.overlap == "on" or (config.overlap == "auto" and (kind in REMOTE or cores >= OVERLAP_CORES))


def shared_out(cores: Sequence[int], classes: Sequence[CoreClass], threads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The cores for the workers and those to measure on: as many as threads, the last of the fastest class that has enough of them."""
    fast = cpus_for(msgspec.structs.replace(QUICK, threads=threads), classes, cores, name="local") or cores
    measuring = tuple(fast[-threads:])
    return tuple(cpu for cpu in cores if cpu not in measuring), measuring


def _core_classes() -> tuple[CoreClass, ...]:
    return read_facts(LocalTransport()).classes if platform.system() == "Linux" else ()


def _check_floor(bench: Bench) -> None:
    """Refuses a limit that the space's fastest network, as far as measuring the smallest ones tells, does not meet.

    The smallest network is measured with each other op in each stage by itself, then with the fastest op of every stage at once.
    """
    limit = bench.config.max_ms
    if limit is None:
        return
    bench.meter.learn_spread([emit(a) for a in _samples(bench)])
    smallest, _ = bench.space.corners()
    ops = {name: menu for name, menu in bench.space.choices().items() if name.endswith(".op")}
    singles = [(name, op) for name, menu in ops.items() for op in menu if op != smallest[name]]
    first, *others = _measured(bench, [smallest, *({**smallest, name: op} for name, op in singles)])
    best, fastest = dict(smallest), {name: first.p50_ms if first else float("inf") for name in ops}
    for (name, op), result in zip(singles, others, strict=True):
        if result and result.p50_ms < fastest[name]:
            best[name], fastest[name] = op, result.p50_ms
    found = [m for m in (first, *others, *_measured(bench, [best])) if m]
    floor = min(found, key=lambda m: m.p50_ms, default=None)
    if floor is not None and floor.ci_ms[0] > limit:
        raise NothingFeasible(
            f"--max-ms {limit:g} is below what {bench.space.name} can do at {bench.task.input_chw[1]} px on {bench.device.info().name}: "
            f"the fastest of its {len(found)} smallest networks takes {ms(floor.p50_ms, *floor.ci_ms)}; allow more, or lower --width "
            "or --image-size"
        )


def _samples(bench: Bench) -> list[Architecture]:
    """Three random networks of the space, the same at every start."""
    import numpy as np

    rng = np.random.default_rng(bench.config.seed)
    return [bench.space.decode(bench.space.sample(rng), bench.task.head) for _ in range(3)]


def _measured(bench: Bench, tried: list[dict[str, Pick]]) -> list[Measurement | None]:
    """A measurement of each of the picks; None where the device cannot run the network."""
    models = [emit(bench.space.decode(picks, bench.task.head)) for picks in tried]
    return [None if isinstance(m, Failed) else m.measurement for m in bench.meter.time(models)]


def _run(bench: Bench, folder: RunFolder) -> tuple[list[Candidate], list[Candidate]]:
    """Searches, then trains the front and its baselines in full; gives the search's rows and the finals'."""
    speed = _announce(bench, folder)
    if bench.config.evaluate == "inherited" and scored(folder.rows) < bench.config.trials:
        train_run_bank(bench.config, bench.out, bench.space, bench.task, bench.console)
    with contextlib.ExitStack() as lines:
        rounds = _open_search(bench, folder, speed, lines)
        opened: list[FinalJobs] = []

        def open_finals() -> FinalJobs:
            lines.close()
            opened.append(_open_finals(bench, folder, rounds, speed, lines))
            return opened[0]

        stages = Stages([lambda: rounds, open_finals])
        if not isinstance(stages.peek(), Done):
            EXECUTORS[bench.config.executor](stages, bench.config, workers=bench.workers, cpus=bench.cpus)
    finals = opened[0]
    for row in finals.failed:
        bench.console.warn(f"{row.baseline or row.id} failed and is missing: {row.error.strip().splitlines()[-1]}")
    if not finals.rows:
        raise Stopped(f"every full training failed; candidates.jsonl in {bench.out} has the tracebacks")
    return list(rounds.rows.values()), finals.rows


def _open_search(bench: Bench, folder: RunFolder, speed: Speed, lines: contextlib.ExitStack) -> SearchRounds:
    config = bench.config
    what = "candidates trained" if config.evaluate == "alone" else "candidates scored"
    tick = lines.enter_context(bench.console.progress(config.trials, what))
    images = len(bench.task.train)

    def reserve_s(rounds: SearchRounds) -> float:
        rows = list(rounds.rows.values())
        return _final_seconds(bench, rows, speed_of(rows, images, speed))

    rounds = SearchRounds(
        config=config, space=bench.space, head=bench.task.head, folder=folder, meter=bench.meter,
        proposals=Proposals(config, bench.space.choices(), bench.out / "study.journal"), overlap=bench.overlap,
        deadline=bench.deadline, reserve_s=reserve_s, on_row=lambda row: tick(_row_line(row), advance=int(row.status == "trained")),
    )  # fmt: skip
    if rounds.trained:
        tick("from before", advance=rounds.trained)
    return rounds


def _announce(bench: Bench, folder: RunFolder) -> Speed:
    """States what will be done and how long it should take, from a speed measured now."""
    config, task, say = bench.config, bench.task, bench.console.say
    for note in task.notes:
        bench.console.warn(note)
    samples = _samples(bench)
    speed = measured_speed(samples, task, config.recipe.batch)
    bank_s, each = search_seconds(config, bench.space, task, samples, speed)
    size = bench.space.size()
    bench.meter.learn_spread([emit(a) for a in samples])
    done = scored(folder.rows)
    if folder.rows:
        say(f"taking up {bench.out}: {done} of {config.trials} candidates are {'trained' if config.evaluate == 'alone' else 'scored'}")
    say(f"space    {bench.space.name} x{config.width:g} at {task.input_chw[1]} px: {size.distinct:.3g} networks ({size.raw:.3g} raw picks)")
    say(f"data     {task.data}: {len(task.classes)} classes, {len(task.train):,} training and {len(task.valid):,} validation images")
    say(f"device   {bench.device.info().name}, {config.threads} thread{'s' * (config.threads > 1)}, batch 1")
    left = max(0, config.trials - done)
    if config.evaluate == "inherited":
        say(f"plan     train one bank of weights for {config.bank_epochs} epochs (~{duration(bank_s)} from the beginning),")
        say(f"         score {left} candidates with weights from it (~{duration(each)} each, {bench.workers} at a time),")
    else:
        say(f"plan     train {left} candidates for {config.epochs} epochs (~{duration(each)} each, {bench.workers} at a time),")
    say(f"         then up to {config.front_size} of the front, and baselines beside it, for {config.final_epochs} epochs")
    total = bank_s * bool(left) + left * each / bench.workers + _final_seconds(bench, _stand_ins(samples), speed) + STARTING_S
    limit = f", stopped in time for {duration(config.budget_s)}" if config.budget_s else ""
    say(f"time     ~{duration(total)} in all{limit}; Ctrl-C keeps what is finished")
    return speed


def _stand_ins(archs: list[Architecture]) -> list[Candidate]:
    from nas.cost import count as cost
    from nas.store import Latency

    return [
        Candidate(stage="search", status="trained", arch=a, seed=0, cost=cost(a), score=float(cost(a).macs),
                  latency=Latency(p50_ms=cost(a).macs / 1e6, low_ms=0.0, high_ms=0.0))
        for a in archs
    ]  # fmt: skip


def _final_seconds(bench: Bench, rows: list[Candidate], speed: Speed) -> float:
    """Expected wall time from the end of the search to the end of the run."""
    members = [r.arch for r in finalists(bench.config, rows)]
    archs = members + predicted_baselines(bench.config, bench.task, members)
    times = [speed.seconds(a, len(bench.task.train), bench.config.final_epochs) for a in archs]
    return max(sum(times) / bench.workers, max(times, default=0.0)) + MEASURING_S + STARTING_S


def _open_finals(bench: Bench, folder: RunFolder, rounds: SearchRounds, speed: Speed, lines: contextlib.ExitStack) -> FinalJobs:
    config, console, rows = bench.config, bench.console, list(rounds.rows.values())
    if rounds.stopped:
        console.say(f"search ended: {rounds.stopped}")
    if story := bench.meter.story():
        console.say(f"latencies so far: {story}")
    if late := sum(r.status == "infeasible" and r.score is not None and r.duplicate_of is None for r in rows):
        console.say(f"{late} of the trained candidates turned out to be over --max-ms once measured")
    if not search_front(rows):
        raise Stopped(f"none of {len(rows)} candidates was trained; candidates.jsonl in {bench.out} says why")
    members = finalists(config, rows)
    baselines = _baselines(bench, members)
    jobs = FinalJobs(config=config, folder=folder, members=members, baselines=baselines)
    images = len(bench.task.train)
    seconds = partial(speed_of(rows, images, speed).seconds, images=images, epochs=config.final_epochs)
    jobs.sort(seconds)
    wait = max(sum(map(seconds, jobs.archs)) / bench.workers, max(map(seconds, jobs.archs), default=0.0))
    console.say(f"training {len(members)} of the front and {len(baselines)} baselines for {config.final_epochs} epochs (~{duration(wait)})")
    if len(jobs):
        tick = lines.enter_context(console.progress(len(jobs), "trained in full"))
        jobs.on_row = lambda row: tick(_row_line(row))
    return jobs


def _baselines(bench: Bench, members: list[Candidate]) -> list[Baseline]:
    """The baselines beside these members; chosen once and kept, so that a resumed run trains the same ones."""
    latencies = [r.latency.p50_ms for r in members if r.latency]
    kept = outputs.kept_baselines(bench.out, members)
    if kept is not None:
        return kept
    found = baselines_near(bench.config, bench.task, bench.meter, min(latencies), max(latencies))
    for baseline in found:
        if not baseline.inside:
            bench.console.say(f"{baseline.label} is outside the front's latencies, and the nearest of its family")
    outputs.keep_baselines(bench.out, members, found)
    return found


def _finish(bench: Bench, rows: list[Candidate], finals: list[Candidate]) -> None:
    from nas.export import export, write_manifest

    config, out, console = bench.config, bench.out, bench.console
    models = [export(row, out / row.weights, out / "models", bench.task) for row in finals]
    plan = msgspec.structs.replace(final_plan(len(models)), threads=config.threads, cpus=bench.meter.plan.cpus)
    console.say(f"measuring {len(models)} exported models side by side")
    finals = remeasured(finals, models, bench.device, plan)
    device = bench.device.info()
    outputs.write_front(finals, out / "front.csv")
    where = f"{device.name}, {device.runtime}, {config.threads} thread{'s' * (config.threads > 1)}"
    proxy_epochs = config.epochs if config.evaluate == "alone" else 0
    outputs.draw_front(rows, finals, out / "front.png", device=where, epochs=(proxy_epochs, config.final_epochs))
    outputs.draw_calibration(finals, out / "reliability.png")
    conditions = {
        "asked": {"trials": config.trials, "budget_s": config.budget_s},
        "device": msgspec.to_builtins(device),
        "timing_plan": msgspec.to_builtins(plan),
    }
    write_manifest(finals, models, out / "manifest.json", bench.task, conditions)
    outputs.show(out, console)


def _row_line(row: Candidate) -> str:
    name = row.baseline or row.id
    if row.status == "failed":
        return f"{name} failed: {row.error.strip().splitlines()[-1][:100]}"
    latency = f" {'~' * (row.latency_source == 'estimate')}{row.latency.p50_ms:.3g} ms" if row.latency else ""
    latency += " (from an earlier run)" if row.latency_source == "store" and row.duplicate_of is None else ""
    macs = f" {count(row.cost.macs)} MACs" if row.cost else ""
    return f"{name}{latency}{macs}" + (f" valid {row.score:.3f}" if row.score is not None else f" {row.status}")
