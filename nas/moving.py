"""A run on another device than before: what was trained stays, every latency is taken anew there."""

from collections.abc import Callable

import msgspec

from latency import Device, DeviceInfo, Failed
from latency.console import Console
from nas import outputs
from nas.bench import Bench
from nas.config import RunConfig
from nas.errors import InvalidConfig
from nas.measuring import Latencies, Priced
from nas.objective import excess
from nas.store import Candidate, RunFolder

__all__ = ["move", "must_move", "remeasured_rows"]

OF_THE_OLD_DEVICE = ("study.journal", "baselines.json", "manifest.json")  # what was chosen by the latencies there


def must_move(bench: Bench, device: DeviceInfo) -> bool:
    """Whether the run has rows of another device, and is to be moved to this one.

    Raises:
        RunConflict: it has such rows, and is not to be moved.
        InvalidConfig: it is to be moved, and has later stages, which the old device steered.
    """
    if not bench.config.remeasure:
        outputs.refuse_other_device(bench.out, device)
        return False
    if not outputs.is_of_another_device(bench.out, device):
        return False
    if bench.config.stages != ("search",):
        raise InvalidConfig(
            f"--remeasure moves a search; what --stages {','.join(bench.config.stages)} made after it was steered by the other device: "
            "move a copy of the run with --stages search, and add the stages afterwards"
        )
    return True


def move(bench: Bench, folder: RunFolder) -> RunFolder:
    """The run with the latencies of the bench's device, all of them appended at once; killed before that, nothing has changed.

    Proposals of the old study are told anew with these; which baselines stand beside the front is decided anew.
    """
    rows, unable = remeasured_rows(folder.rows, bench.config, bench.meter)
    folder.append(*rows)
    for name in OF_THE_OLD_DEVICE:
        (bench.out / name).unlink(missing_ok=True)
    _tell(bench.console, bench.device, rows, unable)
    fresh = {r.number: r for r in rows}
    return RunFolder(path=folder.path, rows=tuple(fresh.get(r.number, r) if r.number is not None else r for r in folder.rows))


def remeasured_rows(rows: tuple[Candidate, ...], config: RunConfig, meter: Latencies) -> tuple[list[Candidate], int]:
    """The proposals that had a latency, with new ones, and how many of their networks the device cannot run (their rows are failed ones).

    One that was trained is feasible where its new latency is; one that never was stays out, whatever it takes here.
    """
    old = [r for r in rows if r.number is not None and r.latency is not None]
    archs = {r.id: r.arch for r in old}
    groups = [list(archs)[i : i + config.round_size] for i in range(0, len(archs), config.round_size)]
    found = {i: r for ids in groups for i, r in zip(ids, meter.price([archs[i] for i in ids], config.max_ms), strict=True)}
    moved = [_moved(row, found[row.id], lambda p50_ms: excess(config, p50_ms)) for row in old]
    return moved, sum(isinstance(result, Failed) for result in found.values())


def _moved(row: Candidate, result: Priced | Failed, over: Callable[[float], float]) -> Candidate:
    if isinstance(result, Failed):
        return msgspec.structs.replace(row, status="failed", latency=None, latency_source="", error=str(result))
    source = "store" if row.duplicate_of is not None else result.source
    status = row.status
    if status in ("trained", "infeasible"):
        status = "trained" if row.score is not None and over(result.latency.p50_ms) <= 0 else "infeasible"
    return msgspec.structs.replace(row, status=status, latency=result.latency, latency_source=source)


def _tell(console: Console, device: Device, rows: list[Candidate], unable: int) -> None:
    name = device.info().name
    console.say(f"moved    {len({r.id for r in rows})} networks have latencies of {name} now; their scores are as they were")
    if unable:
        console.warn(f"{name} cannot run {unable} of them: they are failed candidates now")
    if out := len({r.id for r in rows if r.status == "infeasible" and r.score is None}):
        console.say(f"moved    {out} were too slow where they came from and were never trained: they stay out")
