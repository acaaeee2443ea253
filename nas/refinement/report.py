"""What a refinement leaves: path.csv, path.png, and the table that is printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from latency.console import Console, ms
from latency.figures import add_legend, save_figure
from nas.refinement.aimed import SEARCHED
from nas.refinement.choice import standard_error
from nas.refinement.places import described, size_at
from nas.refinement.record import Tried
from nas.store import Candidate, write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLUMNS", "Report", "draw", "show", "write_csv"]

COLUMNS = (
    "series", "step", "id", "parent_id", "label", "change", "latency_p50_ms", "latency_low_ms", "latency_high_ms", "held_out_score",
    "held_out_se", "valid_score", "test_score", "test_se", "macs", "params", "epochs", "problems",
)  # fmt: skip
SERIES = {  # of the rows with a full training: label, colour, marker, line
    "scaled": ("seed, all widths scaled, trained from scratch", "C0", "s", "--"),
    "refined": ("path, trained from scratch", "C3", "o", "-"),
    "tuned": ("path, fine-tuned long", "C1", "D", ":"),
    "searched": ("best of a search for the last latency, trained from scratch", "C2", "^", "none"),
}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to show: the path with the seed first, and the full trainings, all latencies measured side by side."""

    path: tuple[Candidate, ...]
    finals: tuple[Candidate, ...]
    tried: tuple[Tried, ...]
    held_out: int
    test_images: int
    targets_ms: tuple[float, ...]  # those passed on the way, then the last
    device: str


def write_csv(report: Report, file: Path) -> None:
    """Writes the path's steps (series ``path``), then the full trainings (series of ``SERIES``), each by falling latency."""
    import pandas as pd

    steps = [_step_cells(report, i) for i in range(len(report.path))]
    finals = sorted(report.finals, key=lambda r: (list(SERIES).index(_series(r)), -_p50(r)))
    table = pd.DataFrame([*steps, *(_final_cells(report, r) for r in finals)], columns=list(COLUMNS))
    write_atomic(file, table.to_csv(index=False))


def draw(report: Report, file: Path) -> None:
    """Draws accuracy over latency: the path with its short trainings, and what full trainings give beside uniform scaling."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.2), dpi=130)
    steps = [(r, standard_error(r.score or 0.0, report.held_out)) for r in report.path[1:]]
    _points(axes, [(r, r.score, se) for r, se in steps], "path, after each step's short training (held-out part of train)", "0.6", ".", "-")
    for series, (label, colour, marker, line) in SERIES.items():
        rows = sorted((r for r in report.finals if _series(r) == series), key=_p50)
        scored = [(r, r.test_score, standard_error(r.test_score or 0.0, report.test_images)) for r in rows]
        _points(axes, scored, f"{label} (test)", colour, marker, line)
    for target_ms in report.targets_ms:
        axes.axvline(target_ms, color="0.8", zorder=0)
    lines = "the line is the target" if len(report.targets_ms) == 1 else "the lines are the targets"
    axes.set_xlabel(f"latency in ms, batch 1, p50 and 95 % interval of its ratio to the seed; {lines}\n{report.device}")
    axes.set_ylabel("accuracy in %, one training each,\n± one standard error of the images")
    axes.grid(visible=True, alpha=0.25)
    add_legend(axes)
    figure.tight_layout()
    save_figure(figure, file)


def show(out: Path, console: Console) -> None:
    """Prints the full trainings of a finished refinement, and what to do next."""
    import pandas as pd

    table = pd.read_csv(out / "path.csv", keep_default_na=False, na_values=[""], dtype={"id": str, "parent_id": str})
    finals = table[table["series"] != "path"]
    rows = [
        (
            str(r["id"]), str(r["label"]) if isinstance(r["label"], str) else str(r["series"]), f"{r['valid_score']:.3f}",
            f"{r['test_score']:.3f} ±{r['test_se']:.3f}", ms(r["latency_p50_ms"], r["latency_low_ms"], r["latency_high_ms"]),
        )
        for r in finals.to_dict("records")
    ]  # fmt: skip
    console.table(f"{out}: refined networks beside scaled ones, trained alike", ("id", "network", "valid", "test", "latency p50"), rows)
    last = table[table["series"] == "path"]["id"].iloc[-1]
    console.say(f"wrote {out}/path.csv, path.png, candidates.jsonl and models/*.safetensors")
    console.say(f"next: look at {out}/path.png; python -m nas.export {out} --model {last}")


def _series(row: Candidate) -> str:
    if row.score_source == "tuned":
        return "tuned"
    if row.baseline.startswith(SEARCHED):
        return "searched"
    return "scaled" if row.baseline else "refined"


def _step_cells(report: Report, step: int) -> dict[str, Any]:  # Any: a frame's cells
    row = report.path[step]
    if not step:  # the seed's score is of images that it was trained on
        return _cells(row) | {"series": "path", "step": step, "change": ""}
    se = round(standard_error(row.score or 0.0, report.held_out), 5)
    return _cells(row) | {
        "series": "path", "step": step, "change": _change(report, step), "held_out_score": row.score, "held_out_se": se,
    }  # fmt: skip


def _final_cells(report: Report, row: Candidate) -> dict[str, Any]:  # Any: a frame's cells
    step = next((i for i, r in enumerate(report.path) if r.id == row.id), None)
    return _cells(row) | {
        "series": _series(row), "step": step, "valid_score": row.score, "test_score": row.test_score,
        "test_se": round(standard_error(row.test_score or 0.0, report.test_images), 5), "epochs": row.epochs,
    }  # fmt: skip


def _cells(row: Candidate) -> dict[str, Any]:  # Any: a frame's cells
    latency: Mapping[str, Any] = msgspec.structs.asdict(row.latency) if row.latency else {}
    figures = {f"latency_{k}": round(latency[k], 5) for k in ("p50_ms", "low_ms", "high_ms") if latency}
    cost = {"macs": row.cost.macs, "params": row.cost.params} if row.cost else {}
    own = {"id": row.id, "parent_id": row.parent_id, "label": row.baseline, "problems": "; ".join(latency.get("problems", ()))}
    return own | figures | cost


def _change(report: Report, step: int) -> str:
    row, parent = report.path[step], report.path[step - 1]
    found = next((t for t in report.tried if t.step == step and t.arch.id == row.id), None)
    if found is None or found.place is None:
        return ""
    return f"{described(parent.arch, found.place)} {size_at(parent.arch, found.place)} -> {found.size}"


def _points(
    axes: "Axes", scored: Sequence[tuple[Candidate, float | None, float]], label: str, colour: str, marker: str, line: str
) -> None:
    if not scored:
        return
    x = [_p50(r) for r, _, _ in scored]
    around = [(r.latency.low_ms, r.latency.high_ms) if r.latency else (0.0, 0.0) for r, _, _ in scored]
    axes.errorbar(
        x, [100 * (score or 0.0) for _, score, _ in scored], yerr=[100 * se for _, _, se in scored],
        xerr=[[p50 - low for p50, (low, _) in zip(x, around, strict=True)], [high - p50 for p50, (_, high) in zip(x, around, strict=True)]],
        label=label, color=colour, marker=marker, linestyle=line, capsize=2, markersize=6, linewidth=1.2,
    )  # fmt: skip


def _p50(row: Candidate) -> float:
    return row.latency.p50_ms if row.latency else float("nan")
