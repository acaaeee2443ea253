"""What the stages leave: final-front.csv, final-front.png, final-reliability.png and the table that is printed, of all found, refined and
distilled networks side by side."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.console import Console, count, ms
from latency.figures import add_legend, save_figure
from nas import pareto
from nas.calibration import Calibration, draw_reliability
from nas.distillation.lessons import label
from nas.store import Candidate, write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLUMNS", "MANIFEST", "TABLE", "Entry", "calibrations", "draw", "draw_calibration", "show", "write_csv"]

TABLE, FIGURE, MANIFEST = "final-front.csv", "final-front.png", "final-manifest.json"
RELIABILITY = "final-reliability.png"
COLUMNS = (
    "series", "name", "id", "baseline", "parent_id", "score_source", "lesson", "teacher", "valid_score", "test_score", "test_gain",
    "latency_p50_ms", "latency_low_ms", "latency_high_ms", "on_front", "macs", "params", "peak_activation_bytes", "epochs",
    "train_seconds", "test_ece", "test_nll", "test_brier", "problems", "file",
)  # fmt: skip
STYLES = {  # label, colour, marker, line
    "found": ("found", "C0", "o", "-"),
    "refined": ("refined", "C2", "D", ""),
    "distilled": ("distilled", "C3", "^", "-"),
    "baseline": ("baselines", "0.4", "s", ""),
    "taught baseline": ("baselines, distilled", "C1", "v", ""),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A trained network and where it comes from: found, refined, distilled or baseline."""

    series: str
    row: Candidate

    @property
    def p50_ms(self) -> float:
        """The measured latency."""
        assert self.row.latency is not None, "entries are measured before they are shown"
        return self.row.latency.p50_ms


def write_csv(entries: Sequence[Entry], out: Path) -> None:
    """Writes final-front.csv, a row for each network by rising latency, baselines last; ``on_front`` is by valid score over all of them.

    ``test_gain`` of a distilled network is its test score less that of the same network trained as long, with the same seed, alone;
    empty where there is no such training.
    """
    import pandas as pd

    best = {entries[i].row.name for i in pareto.front([(e.row.score or 0.0, e.p50_ms) for e in entries])}
    alone = {(e.row.id, e.row.epochs, e.row.seed): e.row.test_score for e in entries if e.row.score_source == "full" and not e.row.lesson}
    ordered = sorted(entries, key=_place)
    cells = [_cells(e, best, alone.get((e.row.id, e.row.epochs, e.row.seed))) for e in ordered]
    write_atomic(out / TABLE, pd.DataFrame(cells, columns=list(COLUMNS)).to_csv(index=False))


def _place(entry: Entry) -> tuple[bool, float, str]:
    return bool(entry.row.baseline), entry.p50_ms, entry.row.name


def _cells(entry: Entry, best: set[str], alone: float | None) -> dict[str, Any]:  # Any: a frame's cells
    row = entry.row
    latency, cost, tested = row.latency, row.cost, row.test_calibration
    assert latency is not None, "entries are measured before they are shown"
    assert cost is not None, "trained networks are counted"
    gain = row.test_score - alone if row.lesson and row.test_score is not None and alone is not None else None
    figures = {f"test_{k}": round(getattr(tested, k), 6) for k in ("ece", "nll", "brier")} if tested else {}
    taught = {"lesson": label(row.lesson), "teacher": row.lesson.teacher or row.lesson.online} if row.lesson else {}
    return figures | taught | {
        "series": entry.series, "name": row.name, "id": row.id, "baseline": row.baseline, "parent_id": row.parent_id,
        "score_source": row.score_source,
        "valid_score": row.score, "test_score": row.test_score, "test_gain": None if gain is None else round(gain, 6),
        **{f"latency_{k}": round(getattr(latency, k), 5) for k in ("p50_ms", "low_ms", "high_ms")},
        "on_front": row.name in best, "macs": cost.macs, "params": cost.params, "peak_activation_bytes": cost.peak_activation_bytes,
        "epochs": row.epochs, "train_seconds": round(row.seconds, 1), "problems": "; ".join(latency.problems),
        "file": f"models/{row.name}.onnx",
    }  # fmt: skip


def draw(entries: Sequence[Entry], out: Path, *, device: str) -> None:
    """Draws test accuracy over latency for each series; a thin line joins a distilled network to itself without a teacher."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.2), dpi=130)
    for series, style in STYLES.items():
        _series(axes, sorted((e for e in entries if _drawn_as(e) == series), key=lambda e: e.p50_ms), *style)
    plain = {e.row.id: e for e in entries if not e.row.lesson}
    for e in entries:
        if e.row.lesson and (before := plain.get(e.row.id)):
            axes.plot([before.p50_ms, e.p50_ms], [_test(before), _test(e)], color="C3", linewidth=0.7, linestyle=":", zorder=0)
    middle = sum(axes.get_xlim()) / 2
    for e in entries:
        if e.series == "baseline":
            offset, side = ((4, -9), "left") if e.p50_ms < middle else ((-4, -9), "right")  # inwards
            axes.annotate(e.row.baseline, (e.p50_ms, _test(e)), fontsize=6.5, xytext=offset, textcoords="offset points", ha=side)
    axes.set_xlabel(f"latency in ms, batch 1, p50 and 95 % interval\n{device}")
    axes.set_ylabel("test accuracy in %")
    axes.grid(visible=True, alpha=0.25)
    add_legend(axes)
    figure.tight_layout()
    save_figure(figure, out / FIGURE)


def draw_calibration(entries: Sequence[Entry], out: Path) -> None:
    """Draws how far each network's confidence on the test images can be believed."""
    if figures := calibrations(entries):
        draw_reliability(figures, out / RELIABILITY, title="reliability on the test images")


def calibrations(entries: Sequence[Entry]) -> dict[str, Calibration]:
    """The test figures of the networks that have some, each under a name of its own, by rising latency, baselines last."""
    tested = [(e, e.row.test_calibration) for e in sorted(entries, key=_place)]
    return {f"{e.row.baseline or e.series}\n{e.row.name}": found for e, found in tested if found and found.bins}


def _drawn_as(entry: Entry) -> str:
    return "taught baseline" if entry.row.baseline and entry.row.lesson else entry.series


def _series(axes: "Axes", entries: Sequence[Entry], name: str, colour: str, marker: str, line: str) -> None:
    if not entries:
        return
    around = [(e.p50_ms - e.row.latency.low_ms, e.row.latency.high_ms - e.p50_ms) for e in entries if e.row.latency]
    axes.errorbar(
        [e.p50_ms for e in entries], [_test(e) for e in entries], xerr=[list(side) for side in zip(*around, strict=True)], label=name,
        color=colour, marker=marker, linestyle=line or "none", capsize=2, markersize=6, linewidth=1.2,
    )  # fmt: skip


def _test(entry: Entry) -> float:
    return 100 * (entry.row.test_score or 0.0)


def show(out: Path, console: Console) -> None:
    """Prints the table of a finished run of stages, how to read it, and what to do next."""
    import pandas as pd

    table = pd.read_csv(out / TABLE, keep_default_na=False, na_values=[""], dtype={"id": str, "name": str, "parent_id": str})
    rows = [
        (
            str(r["name"]), _network(r),
            r["lesson"] if isinstance(r["lesson"], str) else "", f"{r['valid_score']:.3f}", f"{r['test_score']:.3f}",
            "" if pd.isna(r["test_gain"]) else f"{100 * r['test_gain']:+.2f}",
            ms(r["latency_p50_ms"], r["latency_low_ms"], r["latency_high_ms"]), count(r["macs"]), "*" if r["on_front"] else "",
        )
        for r in table.to_dict("records")
    ]  # fmt: skip
    console.table(
        f"{out}: after all stages; gain: test points over the same network without a teacher; * = nothing here is both faster and better "
        "on valid",
        ("name", "network", "taught by", "valid", "test", "gain", "latency p50", "MACs", "*"), rows,
    )  # fmt: skip
    if (table["score_source"] == "tuned").any():
        console.say("a fine-tuned network began with the weights of the one it was refined from, and so was trained longer in all")
    taught = table["lesson"].notna()
    if taught.any() and not (taught & table["baseline"].notna()).any():
        console.say("baselines have no teacher here; --distill-baselines gives them one, for a comparison of networks alone")
    if taught.any():
        console.say(f"each is one training, so a gain may be noise: python -m nas.distill {out} with --loss plain and --seeds 5 tells more")
    figures = [name for name in (FIGURE, RELIABILITY) if (out / name).exists()]
    console.say(f"wrote {', '.join([f'{out}/{TABLE}', *figures, MANIFEST])} and models/*.onnx")
    best = table[table["on_front"]].sort_values("valid_score")["name"].iloc[-1]
    console.say(f"next: look at {out}/{FIGURE}; python -m nas.export {out} --model {best}")


def _network(cells: Mapping[Hashable, Any]) -> str:  # Any: a frame's cells
    name = cells["baseline"] if isinstance(cells["baseline"], str) else cells["series"]
    return f"{name}, fine-tuned" if cells["score_source"] == "tuned" else str(name)
