"""The stages of one command, in order: search, refine members of its front, distil what was found, and show what came of all of it."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from latency import open_device
from latency.console import Console, open_console
from latency.pool import DevicePool
from nas import outputs
from nas.budget.kept import take_up
from nas.chosen import chosen
from nas.config import RunConfig
from nas.distillation.lesson import lesson_key
from nas.distillation.run import Request, distill, refuse_unteachable
from nas.errors import InvalidConfig, InvalidTeacher, NothingFeasible, UnknownName
from nas.export import export, write_manifest
from nas.finals import final_plan, remeasured
from nas.jobs import open_config_task
from nas.losses import LOSSES
from nas.pipeline import search
from nas.refinement.run import refine
from nas.refinement.seeds import seed_of_run
from nas.refinement.settings import Refinement, held_out_count, refined_folder
from nas.stages.forecast import say_stages
from nas.stages.report import MANIFEST, Entry, draw, draw_calibration, show, write_csv
from nas.stages.rules import STAGE_FIELDS, USUAL_RATIO
from nas.store import Candidate, check_out, load_run, open_run
from nas.tasks.task import Task

__all__ = ["run_stages"]


def run_stages(
    config: RunConfig, out: Path, console: Console | None = None, *, free: frozenset[str] = frozenset(), began: float | None = None
) -> None:
    """Runs or takes up the configuration's stages in ``out``; with the stage search alone it is ``nas.pipeline.search``.

    What can be refused of later stages is refused before the search. Refinements go to ``out``/refined, as those of nas.refine; the
    networks they end with and all distilled ones are rows of ``out``, so that nas.export and nas.distill take them by id. ``free`` and
    ``began`` are as of the search; what a budget chose for it holds for the stages too.

    Raises:
        NasError: bad names, values, data, teacher, device or folder; three failures in a row.
    """
    console = console or open_console()
    if config.stages == ("search",):
        search(config, out, console, free=free, began=began)
        return
    opened, asked = time.monotonic(), config
    config = take_up(config, free, out).config
    check_out(out, config)
    if _is_complete(out, config):
        console.say(f"{out} is complete, {_named(config)}; other flags of a stage, or more --trials, go on from there")
        show(out, console)
        return
    task = open_config_task(config)
    _refuse_impossible(config, task, console)
    say_stages(config, task, console.say, is_new=not (out / "candidates.jsonl").exists(), is_sized=not free or not config.budget_s)
    config = search(asked, out, console, free=free, began=began and began + time.monotonic() - opened)
    try:
        with open_run(out, config):
            pass  # keeps the stages with the run: its config.json replays them
        refined = _refine(config, out, task, console) if "refine" in config.stages else []
        distilled = _distill(config, out, refined, console) if "distill" in config.stages else []
        with open_run(out, config):
            _finish(config, out, refined, distilled, task, console)
    except BaseException:
        console.say(f"to go on: python -m nas.search --config {out}/config.json --out {out}")
        raise


def _named(config: RunConfig) -> str:
    return ", ".join(config.stages)


def _refuse_impossible(config: RunConfig, task: Task, console: Console) -> None:
    """Refuses what no search can mend: a loss, an option, a teacher, a target.

    Raises:
        NasError: says which.
    """
    if "refine" in config.stages:
        _refinement(config, "", "")
        held_out_count(None, len(task.train), len(task.classes))
    if "distill" not in config.stages:
        return
    if config.loss not in LOSSES:
        raise UnknownName.among("loss", config.loss, LOSSES)
    if not config.teacher and LOSSES[config.loss].needs in ("teacher", "online"):
        raise InvalidTeacher(
            f"--stages {','.join(config.stages)} distils with --loss {config.loss}, which needs --teacher: train:resnet56 (trained here "
            "first), file:WEIGHTS with --teacher-arch, run:RUN/ID or torchvision:NAME; or learn without one: --loss uskd"
        )
    if LOSSES[config.loss].needs == "online" and not config.teacher.startswith("train:"):
        raise InvalidTeacher(f"--loss {config.loss} trains its teacher along: name it with --teacher train:NAME, such as train:resnet20")
    refuse_unteachable(_request(config, ()), task, console)


def _refinement(config: RunConfig, seed_id: str, origin: str) -> Refinement:
    ratio = config.refine_ratio if config.refine_ms or config.refine_ratio else USUAL_RATIO
    return Refinement(
        seed_id=seed_id, origin=origin, target_ms=config.refine_ms, target_ratio=ratio, steps=config.refine_steps,
        delta=config.refine_delta, members=1,
    )  # fmt: skip


def _request(config: RunConfig, models: Sequence[str]) -> Request:
    return Request(
        losses=(config.loss,), models=tuple(models), teacher=config.teacher, teacher_arch=config.teacher_arch,
        teacher_norm=config.teacher_norm, teacher_epochs=config.teacher_epochs, settings=config.loss_options, sweep={},
        epochs=config.distill_epochs,
    )  # fmt: skip


def _refine(config: RunConfig, out: Path, task: Task, console: Console) -> list[Candidate]:
    """Refines the most accurate found networks, each in a folder of its own below ``out``; gives the rows that ``out`` has of them."""
    run = load_run(out)
    seeds = sorted(chosen(run, []), key=lambda r: -(r.score or 0.0))[: config.refine_members]
    # a search's limits say nothing here, and its table goes along: the device is the same
    own = msgspec.structs.replace(config, stages=("search",), budget_s=None, max_ms=None)
    found: dict[str, Candidate] = {}
    for row in seeds:
        seed = seed_of_run(run, row.id, task)
        settings = _refinement(config, seed.arch.id, seed.origin)
        plain = refined_folder(out, settings)  # which nas.refine may have taken with other settings
        folder = plain.with_name(f"{plain.name}-{lesson_key(msgspec.structs.replace(settings, origin=''))}")
        try:
            refine(own, settings, seed, folder, task=task, console=console)
        except (NothingFeasible, InvalidConfig) as error:  # of this seed: another may go further
            console.warn(f"{row.id} is not refined: {error}")
            continue
        adopted = _adopted(config, out, folder, row.id)
        found.setdefault(adopted.id, adopted)
    return list(found.values())


def _adopted(config: RunConfig, out: Path, folder: Path, seed_id: str) -> Candidate:
    """The network that a refinement ends with, as a row of the run in ``out``; its weights stay where they are."""
    refined = load_run(folder)
    path = [r for r in refined.rows if r.stage == "refine"]
    (best,) = chosen(refined, [path[-1].id])
    row = msgspec.structs.replace(best, stage="refine", parent_id=seed_id, weights=(folder / best.weights).relative_to(out).as_posix())
    with open_run(out, config) as run:
        if not any(r.stage == "refine" and (r.id, r.weights, r.score) == (row.id, row.weights, row.score) for r in run.rows):
            run.append(row)
    return row


def _distill(config: RunConfig, out: Path, refined: Sequence[Candidate], console: Console) -> list[Candidate]:
    """Distils the found and the refined networks, and the baselines where that is asked for."""
    run = load_run(out)
    ids = [*run.front["id"], *(r.id for r in refined), *(run.baselines["id"] if config.distill_baselines else ())]
    return distill(out, _request(config, list(dict.fromkeys(ids))), console)


def _finish(
    config: RunConfig, out: Path, refined: Sequence[Candidate], distilled: Sequence[Candidate], task: Task, console: Console
) -> None:
    """Exports every network, measures each architecture in one session, writes the table, the figure and, last, the manifest."""
    run = load_run(out)
    found, baselines = chosen(run, []), chosen(run, list(run.baselines["id"])) if len(run.baselines) else []
    refined = [r for r in refined if r.id not in {f.id for f in found}]  # a search may have found it too
    groups = {"found": found, "refined": refined, "distilled": distilled, "baseline": baselines}
    drafts = [Entry(series=series, row=row) for series, rows in groups.items() for row in rows]
    models = [export(e.row, out / e.row.weights, out / "models", task) for e in drafts]
    files = {e.row.id: file for e, file in zip(drafts, models, strict=True)}  # weights do not change the time: one file each
    rows = {e.row.id: e.row for e in drafts}
    open_one = partial(open_device, runtime=config.runtime)
    plan = msgspec.structs.replace(final_plan(len(files)), threads=config.threads)
    console.say(f"measuring {len(files)} architectures of {len(drafts)} exported models side by side")
    device = DevicePool(config.devices, wait_s=config.device_wait_s, say=console.say, open_one=open_one)
    try:
        outputs.refuse_other_device(out, device.info())
        timed = {r.id: r.latency for r in remeasured([rows[i] for i in files], list(files.values()), device, plan)[0]}
        info = device.info()
    finally:
        device.close()
    entries = [Entry(series=e.series, row=msgspec.structs.replace(e.row, latency=timed[e.row.id])) for e in drafts]
    write_csv(entries, out)
    draw(entries, out, device=f"{info.name}, {info.runtime}, {config.threads} thread{'s' * (config.threads > 1)}")
    draw_calibration(entries, out)
    conditions = {"asked": _asked(config), "device": msgspec.to_builtins(info), "timing_plan": msgspec.to_builtins(plan)}
    write_manifest([e.row for e in entries], models, out / MANIFEST, task, conditions)
    show(out, console)


def _asked(config: RunConfig) -> dict[str, object]:
    """All that says how far the stages go, as JSON holds it."""
    fields = ("trials", "budget_s", *sorted(STAGE_FIELDS))
    return {name: msgspec.to_builtins(getattr(config, name)) for name in fields}


def _is_complete(out: Path, config: RunConfig) -> bool:
    path = out / MANIFEST
    if config.remeasure or not path.exists() or not outputs.is_complete(out, config):
        return False
    noted = msgspec.json.decode(path.read_bytes()).get("asked")
    return bool(noted == msgspec.json.decode(msgspec.json.encode(_asked(config))))
