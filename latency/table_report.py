"""What is said of a table: before it is measured how much there is to do, afterwards how far it can be trusted."""

import statistics

import msgspec

from latency.calibration import TERMS, Judged
from latency.console import Console, duration
from latency.table import LatencyTable
from latency.table_building import ANCHORS, BATCH, NETWORK_BATCH, Work, go_plan, network_plan
from latency.table_record import AGAIN, Record
from latency.table_sessions import changes, seconds_spent
from latency.table_text import size

__all__ = ["announce", "as_json", "show"]

SHOWN = 3
DOUBTED = 0.1  # share of doubtful measurements worth a warning


def announce(record: Record, work: Work, console: Console) -> None:
    """Says what will be measured, and for how long at most."""
    c = record.conditions
    where = f"{c.device.name} with {c.device.runtime}, {c.plan.threads} thread{'s' * (c.plan.threads != 1)}"
    console.say(f"table of {c.space} x{c.width:g} at {size(c.input_chw)}: {c.pieces} pieces in {c.goes} goes, on {where}")
    if work.timings:
        pieces = (work.pieces + work.again) * (1 + ANCHORS / BATCH) * go_plan(c.plan).longest_ms
        networks = work.networks * (1 + ANCHORS / NETWORK_BATCH) * network_plan(c.plan).longest_ms
        longest_s = (pieces + networks) / 1000
        left = f"{work.pieces} of pieces, {work.again} of pieces once more and {work.networks} of whole networks"
        console.say(f"timings left: {left}; at most about {duration(longest_s)}, half of it where the device is quiet")


def show(table: LatencyTable, console: Console) -> None:
    """Prints what was measured, how good estimates are on networks that were not fitted to, and what speaks against it."""
    record, calibration = table.record, table.calibration
    spent_s = seconds_spent(record)
    took = f", in {duration(spent_s)}" if spent_s else ""
    console.result(f"pieces measured: {len(table.pieces_ms)} of {record.conditions.pieces}{took}")
    others = calibration.held_out.networks
    console.result(f"estimates, calibrated on {calibration.fitted - others} whole networks and held against {others} others:")
    rows = {"calibrated": calibration.held_out, "a + b · sum": calibration.line, "sum alone": calibration.sum_alone}
    columns = ("estimate", "MAPE", "within 5 %", "within 10 %", "worst", "Spearman", "bias")
    console.table("", columns, [_row(name, judged) for name, judged in rows.items()])
    ratio = calibration.ratio_90
    console.result(f"{calibration.covered:.0%} prediction interval: from {1 / ratio - 1:+.1%} to {ratio - 1:+.1%} of the estimate")
    if table.drift is not None:
        change = f"{table.drift.size:.1%} (median), {table.drift.change:+.1%} on the whole"
        many = "1 piece" if table.drift.pieces == 1 else f"{table.drift.pieces} pieces"
        console.result(f"drift: {many} timed once more at the end differ by {change}")
    if sessions := changes(record):
        furthest = max((change.speed for change in sessions), key=abs)
        console.result(f"sessions: {1 + len(sessions)}; the device was {furthest:+.1%} off the first one's latency at most, divided out")
    if table.predictor is not None:
        error = table.predictor.error
        within = f"to within a factor of {error.ratio_90:.2f} in nine cases of ten, MAPE {error.mape:.1%}"
        console.result(f"pieces that it lacks can be predicted {within}, as those of its own widths and map sizes show when left out")
    _warn(table, console)
    console.say(f"wrote {record.path}; use it with latency.table.open_table({str(record.path)!r})")


def as_json(table: LatencyTable) -> bytes:
    """The same for machines."""
    record = table.record
    document = {
        "path": str(record.path), "conditions": msgspec.to_builtins(record.conditions), "device_id": record.conditions.device.id,
        "pieces": len(table.pieces_ms), "failed": [{"piece": str(p), "error": e} for p, e in record.unable.items()],
        "calibration": msgspec.to_builtins(table.calibration), "terms": TERMS,
        "seconds": seconds_spent(record), "sessions": [msgspec.structs.asdict(change) for change in changes(record)],
        "drift": None if table.drift is None else msgspec.structs.asdict(table.drift), "between_goes": between_goes(record),
        "predictor": None if table.predictor is None else msgspec.structs.asdict(table.predictor.error),
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def between_goes(record: Record) -> float | None:
    """How far a piece's goes differ: the median over pieces of (largest − smallest) / median, each beside its anchors."""
    found = []
    for goes in record.pieces.values():
        ratios = [t.ratio for go, t in goes.items() if go != AGAIN]
        if len(ratios) > 1:
            found.append((max(ratios) - min(ratios)) / statistics.median(ratios))
    return statistics.median(found) if found else None


def _row(name: str, judged: Judged) -> tuple[str, ...]:
    rho = "–" if judged.spearman is None else f"{judged.spearman:.3f}"
    shares = (f"{judged.within_5:.0%}", f"{judged.within_10:.0%}", f"{judged.worst:.1%}")
    return (name, f"{judged.mape:.1%}", *shares, rho, f"{judged.bias:+.1%}")


def _warn(table: LatencyTable, console: Console) -> None:
    record = table.record
    for text in dict.fromkeys(change.text for change in changes(record) if change.is_uneven):
        console.warn(text)
    if table.drift is not None and table.drift.is_large:
        console.warn("the device drifted by more than 3 % while it was measured: let it cool, stop other work on it, build the table anew")
    timings = [t for goes in record.pieces.values() for t in goes.values()]
    doubtful = [t for t in timings if t.doubts]
    if len(doubtful) > DOUBTED * len(timings):
        most = statistics.mode(t.doubts[0] for t in doubtful)
        console.warn(f"{len(doubtful) / len(timings):.0%} of the timings are doubtful by themselves, such as: {most}")
    for piece, error in list(record.unable.items())[:SHOWN]:
        console.warn(f"the device cannot run {piece.layer} at {piece.in_chw}: {error}")
    if len(record.unable) > SHOWN:
        console.warn(f"nor {len(record.unable) - SHOWN} other pieces; the rows with \"failed\" in {record.path} name them")
