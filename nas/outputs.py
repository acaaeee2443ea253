"""What a run leaves behind beside its rows: front.csv, environment.json, the figure."""

import hashlib
import platform
import re
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from latency import DeviceInfo, TimingPlan
from latency.console import Console, count, ms
from latency.figures import add_legend, save_figure
from nas import pareto, versus
from nas.calibration import draw_reliability
from nas.config import RunConfig, config_from_file
from nas.cores import usable_cores
from nas.errors import RunConflict
from nas.finals import Baseline
from nas.store import Candidate, write_atomic
from nas.tasks.task import Task
from search_spaces import SearchSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "asked_of", "data_sha256", "draw_calibration", "draw_front", "earlier_places", "environment_text", "FRONT_COLUMNS", "is_complete",
    "is_of_another_device", "keep_baselines", "kept_baselines", "non_dominated", "noted_device", "refuse_changed", "refuse_other_data",
    "refuse_other_device", "row_line", "show", "write_front",
]

FRONT_COLUMNS = (
    "id", "baseline", "valid_score", "test_score", "latency_p50_ms", "latency_low_ms", "latency_high_ms", "macs", "params",
    "peak_activation_bytes", "on_front", "epochs", "train_seconds", "problems", "test_ece", "test_nll", "test_brier",
)  # fmt: skip
PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "optuna", "ray", "numpy", "scikit-image", "scikit-learn", "hardware-aware-nas")
MARKERS = "svD^P*X<"


def non_dominated(rows: Sequence[Candidate]) -> set[str]:
    """Ids of the rows that no other row, baseline or not, beats in (valid score, latency)."""
    return {rows[i].id for i in pareto.front([(r.score or 0.0, _p50(r)) for r in rows])}


def write_front(rows: Sequence[Candidate], path: Path) -> None:
    """Writes front.csv: found members by rising latency, then baselines; ``on_front`` is by valid score, over all rows."""
    import pandas as pd

    best = non_dominated(rows)
    ordered = sorted(rows, key=lambda r: (bool(r.baseline), _p50(r)))
    table = pd.DataFrame([_front_row(r, r.id in best) for r in ordered], columns=list(FRONT_COLUMNS))
    write_atomic(path, table.to_csv(index=False))


def environment_text(
    task: Task, space: SearchSpace | None, device: DeviceInfo, plan: TimingPlan, *, earlier: Sequence[Any] = (), is_moving: bool = False
) -> str:  # fmt: skip
    """JSON of versions, computer, device, timing plan, git commit, hashes of data and (if any) space: what it takes to judge a run.

    ``earlier``: the computers and devices that the run was on before (see ``earlier_places``). ``is_moving``: the latencies may be of
    any of them until this is written anew without it.
    """
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(usable_cores()),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _commit(),
        "data": {"spec": task.data, "sha256": task.data_sha256, "notes": list(task.notes)},
        **({"space": {"name": space.name, "sha256": _space_sha256(space)}} if space else {}),
        "device": {"name": device.name, "id": device.id, **msgspec.to_builtins(device)},
        "timing_plan": msgspec.to_builtins(plan),
        **({"earlier": list(earlier)} if earlier else {}),
        **({"is_moving": True} if is_moving else {}),
    }
    return msgspec.json.format(msgspec.json.encode(facts), indent=1).decode()


def earlier_places(out: Path, *, moves: bool) -> list[Any]:  # Any: JSON
    """Where the run in ``out`` was before, oldest first: computer, device and commit; with ``moves`` the place that it leaves too."""
    noted = _environment(out)
    here = {"cpu": noted.get("cpu"), "device": noted.get("device", {}).get("name"), "git_commit": noted.get("git_commit")}
    leaves = moves and not noted.get("is_moving")  # else it was killed on the way, and was never here
    return [*noted.get("earlier", []), *([here] if leaves else [])]


def refuse_changed(out: Path, task: Task, space: SearchSpace) -> None:
    """Refuses to go on with a run whose data set or space has changed behind its name; writes nothing.

    Raises:
        RunConflict: the hashes in ``environment.json`` are not these.
    """
    noted = _environment(out) if _has_rows(out) else {}
    for what, name, sha256 in (("data", task.data, task.data_sha256), ("space", space.name, _space_sha256(space))):
        if noted.get(what, {}).get("sha256", sha256) != sha256:
            raise RunConflict(f"--out {out} was begun with another content of the {what} {name}, changed since; name another --out")


def refuse_other_data(out: Path, task: Task) -> None:
    """Refuses to go on with a run with other data than it was trained on: mean, std and classes would be those of the new.

    Raises:
        RunConflict: the hash in ``environment.json`` is not this one.
    """
    if (data_sha256(out) or task.data_sha256) != task.data_sha256:
        raise RunConflict(f"{out} was trained on another content of the data {task.data}, changed since: put that back to go on with it")


def refuse_other_device(out: Path, device: DeviceInfo, *, advice: str = "name another --out") -> None:
    """Refuses to go on with a run whose latencies were measured on another device or runtime; writes nothing.

    Raises:
        RunConflict: the device in ``environment.json`` is not this one, or the run was broken off on its way to another.
    """
    noted = _environment(out)
    if not _has_rows(out) or "id" not in noted.get("device", {}):
        return
    if noted.get("is_moving"):
        raise RunConflict(f"--out {out} was broken off on its way to {noted['device']['name']}; to move it on: --remeasure")
    if is_of_another_device(out, device):
        there, here = (f"{d['name']}, {d['runtime']}" for d in (noted["device"], {"name": device.name, "runtime": device.runtime}))
        raise RunConflict(f"--out {out} holds latencies of {there}, and this is {here}; {advice}")


def is_of_another_device(out: Path, device: DeviceInfo) -> bool:
    """Whether a run has rows that are not known to be of this device and runtime."""
    noted = _environment(out)
    return _has_rows(out) and (bool(noted.get("is_moving")) or noted.get("device", {}).get("id") != device.id)


def data_sha256(out: Path) -> str:
    """The hash of the data that a run was trained on; "" where it does not say."""
    return str(_environment(out).get("data", {}).get("sha256", ""))


def noted_device(out: Path) -> str:
    """The name of the device that a run was measured on."""
    return str(_environment(out).get("device", {}).get("name", "an unknown device"))


def _has_rows(out: Path) -> bool:
    rows = out / "candidates.jsonl"
    return rows.exists() and rows.stat().st_size > 0


def _environment(out: Path) -> dict[str, Any]:  # Any: JSON
    path = out / "environment.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.exists() else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunConflict(f"{path} is damaged ({error}): it says on which data and device the run was; put it back") from error


def is_complete(out: Path, config: RunConfig) -> bool:
    """Whether the run in ``out`` was finished for the trials, budget and baselines that ``config`` asks for."""
    manifest = out / "manifest.json"
    if not manifest.exists():
        return False
    asked = msgspec.json.decode(manifest.read_bytes()).get("asked", {})
    if asked and "baselines" not in asked:  # a run of an older version
        asked["baselines"] = list(config_from_file(out / "config.json", {}).baselines)
    return bool(asked == asked_of(config))


def asked_of(config: RunConfig) -> dict[str, Any]:  # Any: JSON
    """How far a search was asked to go, as its manifest keeps it."""
    return {"trials": config.trials, "budget_s": config.budget_s, "baselines": list(config.baselines)}


def keep_baselines(out: Path, members: Sequence[Candidate], found: Sequence[Baseline], asked: Sequence[str] = ()) -> None:
    """Notes which baselines stand beside these members of the front, of those that were ``asked`` for, in ``baselines.json``."""
    noted = {"beside": [r.id for r in members], "asked": asked, "baselines": found}
    write_atomic(out / "baselines.json", msgspec.json.encode(noted))


def kept_baselines(out: Path, members: Sequence[Candidate], asked: Sequence[str] = ()) -> list[Baseline] | None:
    """The noted baselines, if they were chosen for these same members, of the same that are ``asked`` for."""
    path = out / "baselines.json"
    if not path.exists():
        return None
    noted = msgspec.json.decode(path.read_bytes())
    if noted["beside"] != [r.id for r in members] or noted.get("asked", []) != list(asked):
        return None
    return msgspec.convert(noted["baselines"], list[Baseline])


def show(out: Path, console: Console) -> None:
    """Prints the final table and what to do next."""
    from nas.store import load_run

    run = load_run(out)
    rows = [_shown(row) for table in (run.front, run.baselines) for row in table.to_dict("records")]
    console.table(
        f"{out}: found networks and baselines, trained alike; * = nothing here is both faster and better on valid",
        ("id", "network", "valid", "test", "latency p50", "MACs", "params", "*"),
        rows,
    )
    for sentence, times in _alike([text for table in (run.front, run.baselines) for text in table["problems"].dropna()]):
        console.warn(f"latency of {times} of {len(rows)} models: {sentence}")
    versus.show(out / versus.TABLE, console)
    beside = f"{versus.TABLE}, " if (out / versus.TABLE).exists() else ""
    exported = [i for table in (run.front, run.baselines) for i in table["id"] if (out / "models" / f"{i}.safetensors").exists()]
    models = " and models/*.onnx" if exported else "; no weights are there to export"
    console.say(f"wrote {out}/front.csv, {beside}front.png, reliability.png, manifest.json{models}")
    export = f"; python -m nas.export {out} --model {exported[0]}" if exported else ""
    console.say(f"next: look at {out}/front.png{export}")


def row_line(row: Candidate) -> str:
    """A row in a few words, for a progress line."""
    name = row.baseline or row.id
    if row.status == "failed":
        return f"{name} failed: {row.error.strip().splitlines()[-1][:100]}"
    latency = f" {'~' * (row.latency_source == 'estimate')}{row.latency.p50_ms:.3g} ms" if row.latency else ""
    latency += " (from an earlier run)" if row.latency_source == "store" and row.duplicate_of is None else ""
    macs = f" {count(row.cost.macs)} MACs" if row.cost else ""
    return f"{name}{latency}{macs}" + (f" valid {row.score:.3f}" if row.score is not None else f" {row.status}")


def draw_front(search: Sequence[Candidate], finals: Sequence[Candidate], path: Path, *, device: str, epochs: tuple[int, int]) -> None:
    """Draws score over latency: the search's candidates, the trained front with its intervals, each baseline family."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.2), dpi=130)
    tried = [r for r in search if r.status == "trained" and r.latency]
    axes.scatter([_p50(r) for r in tried], [_percent(r) for r in tried], s=14, c="0.7", label=f"candidates ({_epochs(epochs[0])}, valid)")
    found = sorted((r for r in finals if not r.baseline), key=_p50)
    _series(axes, found, f"found ({_epochs(epochs[1])}, test)", color="C3", marker="o", linestyle="-")
    families = list(dict.fromkeys(r.baseline.split(" x")[0] for r in finals if r.baseline))
    for i, family in enumerate(families):
        members = sorted((r for r in finals if r.baseline.split(" x")[0] == family), key=_p50)
        _series(axes, members, family, color=f"C{(0, 1, 2, 4, 5, 6, 7, 8)[i % 8]}", marker=MARKERS[i % len(MARKERS)], linestyle="--")
        for row in members:
            width = "×" + row.baseline.split(" x")[1]
            axes.annotate(width, (_p50(row), _test(row)), fontsize=7, xytext=(4, -9), textcoords="offset points")
    axes.set_xlabel(f"latency in ms, batch 1, p50 and 95 % interval\n{device}")
    axes.set_ylabel("accuracy in %")
    axes.set_xscale("log")
    _plain_ticks(axes, [_p50(r) for r in [*tried, *finals]])
    axes.grid(visible=True, which="both", alpha=0.25)
    add_legend(axes)
    figure.tight_layout()
    save_figure(figure, path)


def draw_calibration(finals: Sequence[Candidate], path: Path) -> None:
    """Draws a reliability diagram of each trained network on the test split; nothing where no row has the figures."""
    rows = sorted((r for r in finals if r.test_calibration), key=lambda r: (bool(r.baseline), _p50(r)))
    if found := {r.baseline or r.name: r.test_calibration for r in rows if r.test_calibration}:
        draw_reliability(found, path, title="reliability on the test images")


def _alike(problems: Sequence[str]) -> list[tuple[str, int]]:
    """One sentence for those that differ in their figures alone, and how many there are."""
    kinds: dict[str, list[str]] = {}
    for text in (sentence for entry in problems for sentence in entry.split("; ")):
        kinds.setdefault(re.sub(r"[-+]?[\d.]+", "0", text), []).append(text)
    return [(texts[0] if len(texts) == 1 else f"for example: {texts[0]}", len(texts)) for texts in kinds.values()]


def _shown(row: Mapping[Hashable, Any]) -> tuple[str, ...]:  # Any: a frame's cells
    baseline = row["baseline"] if isinstance(row["baseline"], str) else "found"
    latency = ms(row["latency_p50_ms"], row["latency_low_ms"], row["latency_high_ms"])
    scores = (f"{row['valid_score']:.3f}", f"{row['test_score']:.3f}")
    return row["id"], baseline, *scores, latency, count(row["macs"]), count(row["params"]), "*" if row["on_front"] else ""


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' * (number != 1)}" if number else "weights inherited"


def _series(axes: "Axes", rows: Sequence[Candidate], label: str, **style: str) -> None:
    if not rows:
        return
    x = [_p50(r) for r in rows]
    left = [_p50(r) - r.latency.low_ms if r.latency else 0.0 for r in rows]
    right = [r.latency.high_ms - _p50(r) if r.latency else 0.0 for r in rows]
    axes.errorbar(x, [_test(r) for r in rows], xerr=[left, right], label=label, capsize=2, markersize=6, linewidth=1.2, **style)  # type: ignore[arg-type]  # the stub wants each keyword by itself


def _plain_ticks(axes: "Axes", x: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if x:
        axes.set_xlim(min(x) * 0.85, max(x) * 1.18)


def _front_row(row: Candidate, best: bool) -> dict[str, Any]:  # Any: a frame's cells
    latency, cost, tested = row.latency, row.cost, row.test_calibration
    assert latency is not None, "finals are measured"
    assert cost is not None, "finals are counted"
    return {
        "id": row.id, "baseline": row.baseline, "valid_score": row.score, "test_score": row.test_score,
        "latency_p50_ms": round(latency.p50_ms, 5),
        "latency_low_ms": round(latency.low_ms, 5), "latency_high_ms": round(latency.high_ms, 5),
        "macs": cost.macs, "params": cost.params, "peak_activation_bytes": cost.peak_activation_bytes, "on_front": best,
        "epochs": row.epochs, "train_seconds": round(row.seconds, 1), "problems": "; ".join(latency.problems),
        "test_ece": tested and round(tested.ece, 6), "test_nll": tested and round(tested.nll, 6),
        "test_brier": tested and round(tested.brier, 6),
    }  # fmt: skip


def _p50(row: Candidate) -> float:
    return row.latency.p50_ms if row.latency else float("nan")


def _percent(row: Candidate) -> float:
    return 100 * (row.score or 0.0)


def _test(row: Candidate) -> float:
    return 100 * (row.test_score or 0.0)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())



def _space_sha256(space: SearchSpace) -> str:
    return hashlib.sha256(msgspec.json.encode(space, order="sorted")).hexdigest()


def _commit() -> str:
    here = Path(__file__).resolve().parent
    ask = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(ask, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
