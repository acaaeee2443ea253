"""Measuring a table: every piece in several goes, some once more, whole networks to calibrate by; taken up where it ended."""

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from latency.console import Tick
from latency.devices.base import Device, Model, time_each
from latency.errors import Failed, InvalidTable
from latency.onnx_graph import emit, emit_piece
from latency.plan import TimingPlan
from latency.table import calibrated
from latency.table_record import (
    AGAIN,
    Calibrated,
    Conditions,
    Record,
    Row,
    TimedNetwork,
    TimedPiece,
    Timing,
    Unable,
    Use,
    Written,
    append,
    read,
)
from latency.turns import levelled_ms
from search_spaces.architecture import Architecture, Piece, pieces
from search_spaces.space import SearchSpace

__all__ = [
    "Work", "anchor_networks", "batches", "build", "go_plan", "network_plan", "open_record", "time_networks", "work_left",
]  # fmt: skip

BATCH, NETWORK_BATCH = 32, 8  # models that take turns, beside the anchor: all of them are in memory at once
AGAIN_SHARE = 0.05
DRAWN = 1000  # networks of which those to calibrate by are chosen
WAYS = ("device_spec", "runtime", "device governor", "device timer_ns")  # these may differ and the device be the same
ANCHORS, TRIED = 3, 8  # networks beside which everything is timed, and tried before a device is said to run none

_Item = TypeVar("_Item")


def go_plan(plan: TimingPlan) -> TimingPlan:
    """How one go of a table is timed, of which there are as many as the plan has processes: one process, beside the table's own anchor."""
    return msgspec.structs.replace(plan, processes=1, more_processes=0, anchor=False)


def network_plan(plan: TimingPlan) -> TimingPlan:
    """The same for whole networks: as few as they are, all estimates hang on them, and each is timed for a quarter of a second.

    A computer whose speed jumps from second to second would else show each of them another mix of its speeds.
    """
    go = go_plan(plan)
    limits = {name: max(value, getattr(go, name)) for name, value in (("min_ms", 200.0), ("max_ms", 250.0), ("block_ms", 6.0))}
    return msgspec.structs.replace(go, min_rounds=2 * go.min_rounds, min_samples=2 * go.min_samples, half_width=0.005, **limits)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Timings left to make: of pieces, of pieces once more, of whole networks."""

    pieces: int
    again: int
    networks: int

    @property
    def timings(self) -> int:
        """All of them; anchors are not counted."""
        return self.pieces + self.again + self.networks


def open_record(path: Path, conditions: Conditions) -> Record:
    """The table begun in a file, or a new file with its first line.

    Raises:
        InvalidTable: the file holds something else, or a table of other conditions; names what differs.
    """
    if not path.exists() or _is_torn_start(path.read_bytes(), conditions):
        append(path, [conditions])
        return read(path)
    record = read(path)
    was, now = _flat(record.conditions), _flat(conditions)
    differing = [name for name in now if was[name] != now[name]]
    if differing:
        what = "; ".join(f"{name} is {was[name]} there, {now[name]} here" for name in differing)
        raise InvalidTable(f"{path} is a table of other conditions ({what}): name another --out")
    return record


def work_left(record: Record, space: SearchSpace) -> Work:
    """How much a ``build`` would still time, if the device runs all of what it has not refused yet."""
    conditions, timed = record.conditions, record.pieces
    able = [p for p in space.pieces(conditions.head) if p not in record.unable]
    left = sum(conditions.goes - len(timed.get(p, {}).keys() - {AGAIN}) for p in able)
    again = _again_count(len(able)) if left else len(_again(record))
    if all(0 in timed.get(p, {}) for p in able):  # from then on it is settled which networks
        chosen = _chosen(record, space)
        networks = sum(len(_unsettled(record, chosen, go)) for go in range(conditions.goes))
    else:
        networks = conditions.goes * (conditions.fit + conditions.held_out)
    return Work(pieces=left, again=again, networks=networks)


def build(record: Record, space: SearchSpace, device: Device, tick: Tick) -> None:
    """Times what the record lacks and calibrates; every batch is on disk before the next begins.

    Args:
        record: from ``open_record``.
        space: the one that its conditions name.
        device: likewise.
        tick: called for every batch with the number of timings.

    Raises:
        DeviceError: the device is gone or failed; what was measured is kept.
        Failed: the device ran too few networks to calibrate by.
    """
    if not work_left(record, space).timings and record.calibration:
        return
    path, anchors = record.path, anchor_networks(device, space, record)
    for go in range(record.conditions.goes):
        for batch in batches(_lacking(record, space, go), BATCH):
            _time_pieces(record, batch, go, device, anchors, tick)
        record = read(path)
        for group in batches(_networks(record, space, go), NETWORK_BATCH):
            time_networks(record, group, go, device, anchors, tick)
        record = read(path)
    for batch in batches(_again(record), BATCH):
        _time_pieces(record, batch, AGAIN, device, anchors, tick)
    record = read(path)
    end = Calibrated(calibration=calibrated(record))
    if end not in record.of(Calibrated):
        append(path, [end])


def anchor_networks(device: Device, space: SearchSpace, record: Record) -> list[bytes]:
    """The space's smallest network and two drawn ones, those of them that the device can run; others where it can run none.

    Raises:
        Failed: it can run none of the tried ones.
    """
    head, rng = record.conditions.head, np.random.default_rng([record.conditions.seed, 2])
    tried = [space.corners()[0], *(space.sample(rng) for _ in range(TRIED - 1))]
    models = [bytes(emit(space.decode(picks, head)).SerializeToString(deterministic=True)) for picks in tried]
    outcomes = time_each(device, models[:ANCHORS], _plan(record))
    able = [m for m, o in zip(models, outcomes, strict=False) if not isinstance(o, Failed)]
    for model in models[ANCHORS:] if not able else []:
        (outcome,) = outcomes = time_each(device, [model], _plan(record))
        if not isinstance(outcome, Failed):
            return [model]
    if not able:
        raise Failed(f"{device.info().name} can run none of {TRIED} networks of {space.name}; the last: {outcomes[-1]}")
    return able


def time_networks(
    record: Record, group: Sequence[tuple[Architecture, Use]], go: int, device: Device, anchors: Sequence[bytes], tick: Tick
) -> None:
    """Times whole networks in turns with the anchors and writes the rows, with the ``network_plan`` of the record's plan."""
    outcomes = _beside(anchors, [emit(arch) for arch, _ in group], device, network_plan(record.conditions.plan))
    rows: list[Row] = [
        Unable(arch=arch, error=o) if isinstance(o, str) else TimedNetwork(arch=arch, use=use, go=go, timing=o)
        for (arch, use), o in zip(group, outcomes, strict=True)
    ]
    append(record.path, rows)
    tick(advance=len(group))


def batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """The items in their order, ``size`` at a time."""
    return (items[i : i + size] for i in range(0, len(items), size))


def spread(values: Sequence[float], count: int) -> list[int]:
    """Indices of ``count`` of the rising values (all, if there are no more), their distances as even as they get.

    >>> spread([0.0, 0.1, 0.2, 5.0, 9.0, 10.0], 3)
    [0, 3, 5]
    """
    if len(values) <= count:
        return list(range(len(values)))
    free = list(range(len(values)))
    chosen = []
    for target in np.linspace(values[0], values[-1], count):
        nearest = min(free, key=lambda i: abs(values[i] - target))
        free.remove(nearest)
        chosen.append(nearest)
    return sorted(chosen)


def _time_pieces(record: Record, batch: Sequence[Piece], go: int, device: Device, anchors: Sequence[bytes], tick: Tick) -> None:
    outcomes = _beside(anchors, [emit_piece(p) for p in batch], device, _plan(record))
    rows: list[Row] = [
        Unable(piece=Written.of(p), error=o) if isinstance(o, str) else TimedPiece(piece=Written.of(p), go=go, timing=o)
        for p, o in zip(batch, outcomes, strict=True)
    ]
    append(record.path, rows)
    tick(advance=len(batch))


def _beside(anchors: Sequence[bytes], models: Sequence[Model], device: Device, plan: TimingPlan) -> list[Timing | str]:
    """What each model took in turns with the anchors, or the reason why it cannot run.

    Raises:
        Failed: an anchor did not run.
    """
    outcomes = time_each(device, [*anchors, *models], plan)
    for outcome in outcomes[: len(anchors)]:
        if isinstance(outcome, Failed):
            raise outcome
    levels = iter(levelled_ms([o for o in outcomes if not isinstance(o, Failed)]))
    anchor_ms = math.exp(statistics.fmean(math.log(next(levels)) for _ in anchors))
    return [
        str(o) if isinstance(o, Failed) else Timing.of(o, ratio=next(levels) / anchor_ms, anchor_ms=anchor_ms)
        for o in outcomes[len(anchors) :]
    ]


def _plan(record: Record) -> TimingPlan:
    return go_plan(record.conditions.plan)


def _lacking(record: Record, space: SearchSpace, go: int) -> list[Piece]:
    """The pieces that a go still has to time, in an order of its own."""
    menu = space.pieces(record.conditions.head)
    order = np.random.default_rng([record.conditions.seed, go]).permutation(len(menu))
    return [p for p in (menu[i] for i in order) if p not in record.unable and go not in record.pieces.get(p, {})]


def _again_count(count: int) -> int:
    return math.ceil(AGAIN_SHARE * count)


def _again(record: Record) -> list[Piece]:
    """The pieces still to be timed once more: every so many of them, in the order in which they were timed first."""
    timed = list(record.pieces)
    chosen = timed[:: max(1, len(timed) // _again_count(len(timed)))][: _again_count(len(timed))] if timed else []
    return [p for p in chosen if AGAIN not in record.pieces[p] and p not in record.unable]


def _networks(record: Record, space: SearchSpace, go: int) -> list[tuple[Architecture, Use]]:
    """The networks that a go still has to time, in an order of its own."""
    chosen = _chosen(record, space)
    order = np.random.default_rng([record.conditions.seed, go]).permutation(len(chosen))
    return _unsettled(record, [chosen[i] for i in order], go)


def _unsettled(record: Record, chosen: Sequence[tuple[Architecture, Use]], go: int) -> list[tuple[Architecture, Use]]:
    settled = {row.arch for row in record.of(Unable) if row.arch} | {a for a, (_, goes) in record.networks.items() if go in goes}
    return [(arch, use) for arch, use in chosen if arch not in settled]


def _chosen(record: Record, space: SearchSpace) -> list[tuple[Architecture, Use]]:
    """Networks drawn from the space, evenly over the range of what their pieces took in the first go; the two uses take turns."""
    conditions = record.conditions
    known = {piece: goes[0].ratio for piece, goes in record.pieces.items()}
    rng = np.random.default_rng(conditions.seed)
    sums: dict[Architecture, float] = {}
    for _ in range(DRAWN):
        arch = space.decode(space.sample(rng), conditions.head)
        if all(p in known for p in pieces(arch)):
            sums[arch] = sum(known[p] for p in pieces(arch))
    drawn = sorted(sums, key=lambda arch: sums[arch])
    chosen = spread([math.log(sums[arch]) for arch in drawn], conditions.fit + conditions.held_out)
    return [(drawn[i], use) for i, use in zip(chosen, _uses(len(chosen), conditions.fit, conditions.held_out), strict=True)]


def _uses(count: int, fit: int, held_out: int) -> list[Use]:
    """What each of ``count`` networks is for, evenly mixed; of fewer than were asked for, as many of each as the ratio gives."""
    share = fit / (fit + held_out)
    return ["fit" if math.ceil((i + 1) * share) > math.ceil(i * share) else "held out" for i in range(count)]


def _flat(conditions: Conditions) -> dict[str, object]:
    """Whatever must be the same to go on with a table, by name."""
    table = msgspec.to_builtins(conditions)
    parts = {f"{part} {name}": value for part in ("device", "plan", "head") for name, value in table.pop(part).items()}
    return {name: value for name, value in (table | parts).items() if name not in WAYS}


def _is_torn_start(content: bytes, conditions: Conditions) -> bool:
    """Whether a file holds nothing but the beginning of its first line: a kill came first."""
    return b"\n" not in content and (not content or msgspec.json.encode(conditions).startswith(content))
