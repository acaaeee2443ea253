"""A run on another device than before: what was trained stays, every latency is taken anew there."""

from collections.abc import Callable, Sequence

import msgspec

from latency import DeviceInfo, Failed
from latency.console import Console, three_digits
from nas import outputs
from nas.bench import Bench
from nas.config import RunConfig
from nas.errors import InvalidConfig, NothingFeasible
from nas.measuring import Latencies, Priced
from nas.objective import excess
from nas.store import Candidate, RunFolder, read_rows, write_atomic, write_config

__all__ = ["move", "must_move", "remeasured_rows"]

BY_THE_OLD_DEVICE = ("study.journal", "baselines.json", "manifest.json", "front.csv", "versus.csv", "front.png")
STEERED = ("refined", "final-manifest.json")  # what stages after the search leave
ADVICE = "name another --out, or take every latency anew here: --remeasure"


def must_move(bench: Bench, device: DeviceInfo) -> bool:
    """Whether the run has rows of another device, and is to be moved to this one.

    Raises:
        RunConflict: it has such rows, and is not to be moved.
        InvalidConfig: it is to be moved, and has or wants later stages, which the old device steered.
    """
    if not bench.config.remeasure:
        outputs.refuse_other_device(bench.out, device, advice=ADVICE)
        return False
    if not outputs.is_of_another_device(bench.out, device):
        bench.console.say(f"--remeasure: nothing to move, {bench.out} has no latencies of another device than {device.name}")
        return False
    refined = any(r.stage == "refine" for r in read_rows(bench.out / "candidates.jsonl"))
    if refined or bench.config.stages != ("search",) or any((bench.out / name).exists() for name in STEERED):
        raise InvalidConfig(
            "--remeasure moves a search alone: what stages after it made was steered by the other device; search anew with another --out "
            f"and --reuse {bench.out}, and add the stages there"
        )
    return True


def move(bench: Bench, folder: RunFolder) -> RunFolder:
    """The run with the latencies of the bench's device, all appended at once; what the old device decided is decided anew.

    Until all of it is done ``environment.json`` has a mark, and the run is taken up by another move only.

    Raises:
        NothingFeasible: the device can run none of the networks, or none that is trained within the limit; the run is as it was.
    """
    device, console, path = bench.device.info(), bench.console, bench.out / "environment.json"
    earlier = outputs.earlier_places(bench.out, moves=True)
    old = _with_figures(folder.rows)
    console.say(f"moving   {len({r.id for r in old})} networks to measure on {device.name}; what is trained stays")
    with console.progress(len({r.id for r in old}), "measured") as tick:
        rows, unable = remeasured_rows(old, bench.config, bench.meter.anew(), tick=lambda done: tick("", advance=done))
    if rows and unable == len({r.id for r in rows}):
        raise NothingFeasible(f"{device.name} can run none of the {unable} networks of {bench.out}, which is as it was: {rows[0].error}")
    trained = [r.latency.p50_ms for r in rows if r.score is not None and r.latency]
    if trained and not any(r.status == "trained" for r in rows):
        raise NothingFeasible(
            f"--max-ms {bench.config.max_ms:g} is below what any trained network of {bench.out} takes on {device.name}: the fastest takes "
            f"{three_digits(min(trained))} ms; the run is as it was, allow more"
        )
    write_atomic(path, outputs.environment_text(bench.task, bench.space, device, bench.meter.plan, earlier=earlier, is_moving=True))
    write_config(bench.out, bench.config)
    for name in BY_THE_OLD_DEVICE:
        (bench.out / name).unlink(missing_ok=True)
    folder.append(*rows)
    write_atomic(path, outputs.environment_text(bench.task, bench.space, device, bench.meter.plan, earlier=earlier))
    _tell(console, bench.config, device.name, rows, unable)
    fresh = {r.number: r for r in rows}
    return RunFolder(path=folder.path, rows=tuple(fresh.get(r.number, r) if r.number is not None else r for r in folder.rows))


def remeasured_rows(
    rows: Sequence[Candidate], config: RunConfig, meter: Latencies, *, tick: Callable[[int], object] = lambda done: None
) -> tuple[list[Candidate], int]:
    """The proposals that have a latency or a score, with new latencies, and how many of their networks the device cannot run.

    One that was trained is feasible where its new latency is, and failed where the device cannot run it; one that never was stays out,
    whatever it takes here. ``tick`` hears how many networks more are measured.
    """
    old = _with_figures(rows)
    archs = {r.id: r.arch for r in old}
    found: dict[str, Priced | Failed] = {}
    for i in range(0, len(archs), config.round_size):
        ids = list(archs)[i : i + config.round_size]
        found |= zip(ids, meter.price([archs[name] for name in ids], config.max_ms), strict=True)
        tick(len(ids))
    return [_moved(row, found[row.id], config) for row in old], sum(isinstance(result, Failed) for result in found.values())


def _with_figures(rows: Sequence[Candidate]) -> list[Candidate]:
    return [r for r in rows if r.number is not None and (r.latency is not None or r.score is not None)]


def _moved(row: Candidate, result: Priced | Failed, config: RunConfig) -> Candidate:
    if isinstance(result, Failed):
        return msgspec.structs.replace(row, status="failed", latency=None, latency_source="", error=str(result))
    is_first, is_trained = row.duplicate_of is None, row.score is not None
    moved = msgspec.structs.replace(row, latency=result.latency, latency_source=result.source if is_first else "store")
    if not is_trained:
        return moved  # too slow where it came from, or failed in training
    within = "trained" if excess(config, result.latency.p50_ms) <= 0 else "infeasible"
    return msgspec.structs.replace(moved, status=within if is_first else "duplicate", error="")


def _tell(console: Console, config: RunConfig, device: str, rows: Sequence[Candidate], unable: int) -> None:
    console.say(f"moved    {len({r.id for r in rows}) - unable} networks have latencies of {device} now; their scores are as they were")
    if unable:
        console.warn(f"{device} cannot run {unable} of them: they are failed candidates now")
    never = [r for r in rows if r.status == "infeasible" and r.score is None and r.latency and excess(config, r.latency.p50_ms) <= 0]
    if never:
        console.say(f"moved    {len({r.id for r in never})} were too slow where they came from and were never trained: they stay out")
