"""How well does a latency table estimate networks that it has never seen? Builds the table, then measures random networks beside it.

    python benchmarks/table.py [--space mnasnet] [--sizes 32 96] [--networks 100] [--goes 6] [--device local]
                               [--out benchmarks] [--work tables]

For each input size: a table of every distinct piece of the space (as ``python -m latency.build_table`` makes it), then networks
drawn evenly from the picks' menus, none of which the table was calibrated by or judged by. Each is timed as those were, but in
``--goes`` processes that lie apart in time: a truth should be known better than what is held against it. ``as measured`` holds the
estimate against the plain median of them; ``at the table's speed`` against the same with the device's speed at the moment divided out,
as the anchors and the other networks in each batch show it: no estimate has a part in that.

All measurements go to the work folder as they come: after an interruption the same command goes on. Writes table.csv and table.md.
"""

import argparse
import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from latency.calibration import Judged
from latency.console import duration, open_console, three_digits
from latency.devices import Device, open_device
from latency.lease import Leased
from latency.plan import plan_named
from latency.table import Estimate, LatencyTable, anchor_ms, networks_ms, open_table
from latency.table_building import NETWORK_BATCH, anchor_networks, batches, build, open_record, time_networks, work_left
from latency.table_record import Conditions, Record, pieces_sha256, read
from latency.table_report import announce, show
from latency.table_sessions import seconds_spent
from latency.table_text import default_name
from search_spaces import Architecture, Head, SearchSpace, open_space

HEAD = Head(outputs=10)
DRAW_SEED = 20_000  # of the random networks: the table draws its own from seed 0
COLUMNS = (
    "input px", "pieces", "of", "minutes", "networks", "compared with", "MAPE", "within 5 %", "within 10 %", "worst", "bias", "Spearman",
    "inside the 90 % interval",
)  # fmt: skip


def main() -> None:
    """Build, measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="mnasnet")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96])
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--goes", type=int, default=6)
    parser.add_argument("--device", default="local")
    parser.add_argument("--runtime", default="")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--work", type=Path, default=Path("tables"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    device = Leased(open_device(given.device, runtime=given.runtime), given.device, say=open_console().warn)
    try:
        found = [one_size(size, given, device) for size in given.sizes]
    finally:
        device.close()
    write(found, given)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One input size: the table, and each network's estimate, plain measurement, measurement at the table's speed, and the
    coefficient of variation of its goes beside the anchors."""

    size: int
    table: LatencyTable
    networks: Sequence[tuple[Architecture, Estimate, float, float, float]]


def one_size(size: int, given: argparse.Namespace, device: Device) -> Found:
    """The table and the networks of an input size, measured as far as the work folder does not have them."""
    console = open_console()
    space = open_space(given.space, width=given.width, input_chw=(3, size, size))
    conditions = Conditions(
        space=given.space, width=given.width, input_chw=space.input_chw, head=HEAD, pieces=len(space.pieces(HEAD)),
        device_spec=given.device, runtime=given.runtime, device=device.info(), plan=plan_named("table"), fit=60, held_out=40, seed=0,
        pieces_sha256=pieces_sha256(space.pieces(HEAD)),
    )  # fmt: skip
    path = given.work / default_name(conditions, space.name)
    record = open_record(path, conditions)
    work = work_left(record, space)
    announce(record, work, console)
    with console.progress(work.timings, "timed") as tick:
        build(record, space, device, tick, console.warn)
    table = open_table(path)
    show(table, console)
    drew = drawn(space, given.networks, besides=table.record)
    measured = measure(open_record(path.with_suffix(".networks.jsonl"), conditions), space, drew, device, range(given.goes))
    archs = [arch for arch in drew if arch in measured.networks]  # the others are beyond the device
    level_ms = networks_ms(measured, anchor_ms(table.record))
    goes = {arch: list(timings.values()) for arch, (_, timings) in measured.networks.items()}
    return Found(size=size, table=table, networks=[
        (arch, estimate, statistics.median(t.ms for t in goes[arch]), level_ms[arch], variation([t.ratio for t in goes[arch]]))
        for arch, estimate in zip(archs, table.estimate_many(archs), strict=True)
    ])  # fmt: skip


def variation(values: Sequence[float]) -> float:
    """Standard deviation (n − 1) over mean; 0 of one."""
    return statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 else 0.0


def drawn(space: SearchSpace, count: int, besides: Record) -> list[Architecture]:
    """Distinct random networks that the table has not seen as a whole; fewer where the space has no more."""
    rng, found = np.random.default_rng(DRAW_SEED), dict[Architecture, None]()
    for _ in range(100 * count):
        if len(found) == count:
            break
        arch = space.decode(space.sample(rng), HEAD)
        if arch not in besides.networks:
            found[arch] = None
    return list(found)


def measure(record: Record, space: SearchSpace, archs: Sequence[Architecture], device: Device, goes: Sequence[int]) -> Record:
    """The record with all goes of the networks."""
    console, anchors = open_console(), None
    with console.progress(len(archs) * len(goes), "networks timed") as tick:
        for go in goes:
            taken = read(record.path).networks
            lacking = [archs[i] for i in np.random.default_rng(go).permutation(len(archs)) if go not in taken.get(archs[i], ("", {}))[1]]
            tick("from before", advance=len(archs) - len(lacking))
            for group in batches(lacking, NETWORK_BATCH):
                anchors = anchors or anchor_networks(device, space, record, console.warn)
                time_networks(record, [(arch, "held out") for arch in group], go, device, anchors, tick)
    return read(record.path)


def write(found: Sequence[Found], given: argparse.Namespace) -> None:
    """Write table.csv and table.md and print the latter."""
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        figures = ("estimate_ms", "low_ms", "high_ms", "measured_ms", "measured_at_table_speed_ms", "cv_of_goes")
        writer.writerow(["input_px", "network", *figures])
        for each in found:
            for arch, estimate, *measured in each.networks:
                values = (estimate.ms, estimate.low_ms, estimate.high_ms, *measured)
                writer.writerow([each.size, arch.id, *(f"{value:.6g}" for value in values)])
    conditions = found[0].table.record.conditions
    info, plan = conditions.device, conditions.plan
    sizes, spread = " ".join(map(str, given.sizes)), statistics.median(cv for each in found for *_, cv in each.networks)
    command = f"python benchmarks/table.py --space {given.space} --sizes {sizes} --networks {given.networks} --goes {given.goes}"
    threads = f"{plan.threads} thread{'s' * (plan.threads > 1)}"
    head = (
        f"# Estimates of a latency table against measurements\n\n`{command} --device {given.device}` on {info.name} with {info.runtime}, "
        f"{threads}, graph optimisation `{plan.opt_level}`. Random networks of `{given.space}` that the table has not seen "
        f"as a whole, {low_high(found)}. Minutes are those of the whole table, its whole networks for calibration among them. "
        f"The {given.goes} goes of a network vary by {spread:.1%} beside the anchors (median)."
    )
    rows = [row for each in found for row in compared(each)]
    lines = [head, "", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS), *(f"| {' | '.join(row)} |" for row in rows)]
    (given.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def low_high(found: Sequence[Found]) -> str:
    """The range of the measured latencies in words."""
    measured = [plain for each in found for _, _, plain, *_ in each.networks]
    return f"{three_digits(min(measured))} to {three_digits(max(measured))} ms"


def compared(found: Found) -> list[list[str]]:
    """Two rows of the table: the estimates against both readings of the measurements."""
    estimates = [e for _, e, *_ in found.networks]
    record = found.table.record
    left = [str(found.size), str(len(found.table.pieces_ms)), str(record.conditions.pieces), duration(seconds_spent(record))]
    readings: dict[str, list[float]] = {
        "as measured": [plain for _, _, plain, *_ in found.networks],
        "at the table's speed": [level for _, _, _, level, _ in found.networks],
    }
    return [[*left, str(len(estimates)), name, *cells(estimates, ms)] for name, ms in readings.items()]


def cells(estimates: Sequence[Estimate], measured_ms: Sequence[float]) -> list[str]:
    """The errors as text."""
    judged = Judged.of([e.ms for e in estimates], measured_ms)
    inside = statistics.fmean(e.low_ms <= ms <= e.high_ms for e, ms in zip(estimates, measured_ms, strict=True))
    shares = [f"{share:.0%}" for share in (judged.within_5, judged.within_10)]
    rho = "–" if judged.spearman is None else f"{judged.spearman:.4f}"
    return [f"{judged.mape:.2%}", *shares, f"{judged.worst:.1%}", f"{judged.bias:+.1%}", rho, f"{inside:.0%}"]


if __name__ == "__main__":
    main()
