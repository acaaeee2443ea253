"""VERB  python -m nas.export results/RUN: writes finished candidates as ONNX files, each checked against torch on real inputs."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.verbs import Exits

if TYPE_CHECKING:
    from nas.store import Candidate
    from nas.tasks.task import Task

__all__ = ["export", "write_manifest"]

CHECK_IMAGES = 16
PROBABILITIES = "softmax(logits / temperature), with the temperature of the model, which fits the validation images; without one by 1"
TOLERANCE = 1e-4  # of the largest output: what folding BN and another convolution order may move


def export(row: "Candidate", weights: Path, out: Path, task: "Task", *, batch: int | None = 1) -> Path:
    """Writes ``out``/NAME.onnx with the trained weights and metadata on input and classes; gives its path.

    Raises:
        Stopped: the graph and torch disagree by more than 1e-4 of the largest output on real validation images.
    """
    from latency.onnx_graph import emit
    from nas.models import build
    from nas.store import write_atomic
    from nas.weights import load, numpy_weights

    network = build(row.arch)
    network.load_state_dict(load(weights))
    model = emit(row.arch, numpy_weights(network), batch=batch, metadata=_metadata(row, task))
    _check(network, model.SerializeToString(), task, row.name, batch or 1)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{row.name}.onnx"
    write_atomic(path, model.SerializeToString(deterministic=True))
    return path


def write_manifest(
    rows: "Sequence[Candidate]", models: Sequence[Path], out: Path, task: "Task", conditions: dict[str, Any],  # Any: JSON
    *, batch: int | None = 1,
) -> Path:  # fmt: skip
    """Writes ``out``: what each ONNX file is, how to feed it, what it scored, how fast it ran, and under which conditions."""
    import msgspec

    from nas.store import write_atomic

    shape = [batch or "N", *task.input_chw]
    shared = {
        "input": {"name": "input", "shape": shape, "layout": "NCHW", "dtype": "float32", "preprocess": _preprocess(task)},
        "output": {"name": "logits", "classes": list(task.classes), "probabilities": PROBABILITIES},
        "data": {"spec": task.data, "sha256": task.data_sha256},
    }
    entries = [_entry(row, file, out.parent) for row, file in zip(rows, models, strict=True)]
    write_atomic(out, msgspec.json.format(msgspec.json.encode({**shared, **conditions, "models": entries}), indent=1))
    return out


def _with_latencies(rows: "list[Candidate]", run: Path) -> "list[Candidate]":
    """The rows with the latencies that the run's manifest gives for fully trained models (their rows are older than those)."""
    import msgspec

    from nas.store import Latency

    path = run / "manifest.json"
    entries = msgspec.json.decode(path.read_bytes())["models"] if path.exists() else []
    known = {e["id"]: msgspec.convert(e["latency"], Latency) for e in entries}
    return [r if r.latency else msgspec.structs.replace(r, latency=known.get(r.id)) for r in rows]


def _conditions(run: Path) -> dict[str, Any]:  # Any: JSON
    """On what and how the run's latencies were measured, batch 1; a candidate of the search alone under ``search_timing_plan``."""
    known = {name: _json_of(run / name) for name in ("manifest.json", "environment.json")}
    device = known["environment.json"].get("device")
    plans = {"timing_plan": known["manifest.json"].get("timing_plan"), "search_timing_plan": known["environment.json"].get("timing_plan")}
    return {"latency_batch": 1, "device": device, **plans}


def _json_of(path: Path) -> dict[str, Any]:  # Any: JSON
    """The parsed JSON file; {} where there is none."""
    import msgspec

    return dict(msgspec.json.decode(path.read_bytes())) if path.exists() else {}


def _check(network: Any, model: bytes, task: "Task", name: str, batch: int) -> None:  # Any: the torch module
    import numpy as np
    import torch

    from nas.errors import Stopped
    from nas.evaluate import logits_of_onnx, predict

    images = task.load("valid").x
    # whole batches; where there are fewer images than a batch takes, some come again
    x = images[torch.arange(-(-CHECK_IMAGES // batch) * batch) % len(images)]
    ours = predict(network, x, task).numpy()
    theirs = logits_of_onnx(model, task.normaliser()(torch.as_tensor(x)).numpy())
    worst = float(np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-12))
    if not worst <= TOLERANCE:
        raise Stopped(f"{name}: ONNX and torch differ by {worst:.1e} of the largest output on real images, more than {TOLERANCE:g}")


def _preprocess(task: "Task") -> dict[str, Any]:  # Any: JSON
    scale = 1 / 255 if task.train.x.dtype.name == "uint8" else 1.0
    formula = "input[c] = (image[c] * scale - mean[c]) / std[c]"
    return {"image": task.preprocess, "formula": formula, "scale": scale, "mean": list(task.mean), "std": list(task.std)}


def _metadata(row: "Candidate", task: "Task") -> dict[str, str]:
    import msgspec

    values = {"id": row.id, "classes": list(task.classes), "preprocess": _preprocess(task), "data": task.data}
    temperature = {} if _temperature(row) is None else {"temperature": _temperature(row)}
    return {k: v if isinstance(v, str) else msgspec.json.encode(v).decode() for k, v in (values | temperature).items()}


def _temperature(row: "Candidate") -> float | None:
    return row.calibration.temperature if row.calibration else None


def _entry(row: "Candidate", file: Path, folder: Path) -> dict[str, Any]:  # Any: JSON
    import msgspec

    return {
        "id": row.id, "baseline": row.baseline, "file": file.relative_to(folder).as_posix(),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "valid_score": row.score, "test_score": row.test_score, "epochs": row.epochs, "temperature": _temperature(row), **_taught(row),
        "latency": msgspec.to_builtins(row.latency), "cost": msgspec.to_builtins(row.cost), "architecture": msgspec.to_builtins(row.arch),
    }  # fmt: skip


def _taught(row: "Candidate") -> dict[str, Any]:  # Any: JSON
    """How far the model's confidence can be believed, and what it was taught by; left out where a row does not say."""
    import msgspec

    known = {"calibration": row.test_calibration, "valid_calibration": row.calibration, "lesson": row.lesson}
    return {name: msgspec.to_builtins(value) for name, value in known.items() if value is not None}


@click.command(cls=Exits)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--model", "ids", multiple=True, metavar="ID", help="A candidate's id or its beginning; may be given again.  [the front]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to.  [RUN/export]")
@click.option("--batch", default="1", show_default=True, help="Images the graph takes at a time; 'any' leaves it open.")
def main(run: Path, ids: tuple[str, ...], out: Path | None, batch: str) -> None:
    """Write finished candidates of RUN as ONNX files, each checked against torch on real inputs."""
    from latency.console import open_console
    from nas.chosen import chosen
    from nas.errors import InvalidConfig
    from nas.jobs import open_config_task
    from nas.outputs import refuse_other_data
    from nas.store import load_run

    if batch != "any" and not (batch.isdigit() and int(batch) > 0):
        raise InvalidConfig(f"--batch must be a positive number or 'any', got {batch!r}")
    console, found, images = open_console(), load_run(run), None if batch == "any" else int(batch)
    rows, folder = _with_latencies(chosen(found, ids), run), out or run / "export"
    task = open_config_task(found.config)
    refuse_other_data(run, task)
    files = []
    for row in rows:
        files.append(export(row, run / row.weights, folder, task, batch=images))
        what = f"{row.baseline or row.name}, valid {row.score:.4f} after {row.epochs} epochs"
        console.result(f"{files[-1]}  {what}, equal to torch within {TOLERANCE:g} of the largest output")
    manifest = write_manifest(rows, files, folder / "manifest.json", task, _conditions(run), batch=images)
    console.say(f"wrote {len(rows)} models and {manifest}, which says how to feed them")


if __name__ == "__main__":
    main()
