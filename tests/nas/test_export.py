import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner, Result

from nas.chosen import chosen
from nas.errors import NasError, Stopped, UnknownName
from nas.evaluate import logits_of_onnx, predict
from nas.export import export, main
from nas.jobs import open_config_task
from nas.models import build
from nas.store import load_run
from nas.weights import load, save
from tests.nas.small import TRAINED, rows


def exported(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def models(folder: Path) -> set[str]:
    return {p.stem for p in folder.glob("*.onnx")}


def test_whole_front_by_default(finished: Path, tmp_path: Path) -> None:
    done = exported(finished, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert models(tmp_path / "out") == set(load_run(finished).front["id"])
    assert len(done.stdout.splitlines()) == len(models(tmp_path / "out"))


def test_candidate_that_is_not_in_the_front_by_the_beginning_of_its_id(finished: Path, tmp_path: Path) -> None:
    run = load_run(finished)
    finals = {r.id for r in run.rows if r.stage == "final"}
    other = next(r for r in run.rows if (r.stage, r.status) == TRAINED and r.id not in finals)
    done = exported(finished, "--model", other.id[:8], "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert models(tmp_path / "out") == {other.id}


def test_several_models_in_the_order_asked_for(finished: Path, tmp_path: Path) -> None:
    ids = [r.id for r in rows(finished) if (r.stage, r.status) == TRAINED][2:0:-1]
    done = exported(finished, "--model", ids[0], "--model", ids[1], "--out", tmp_path / "out")
    assert [line.split()[0].rpartition("/")[2] for line in done.stdout.splitlines()] == [f"{i}.onnx" for i in ids]


@pytest.mark.parametrize(("batch", "expected"), [("1", 1), ("4", 4), ("64", 64), ("any", "N")])
def test_batch_is_fixed_or_open_and_the_manifest_says_so(finished: Path, tmp_path: Path, batch: str, expected: object) -> None:
    wanted = load_run(finished).front["id"].iloc[0]
    done = exported(finished, "--model", wanted, "--batch", batch, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    entry = onnx.load(tmp_path / "out" / f"{wanted}.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert (entry.dim_value or entry.dim_param) == expected
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["input"]["shape"] == [expected, 3, 16, 16]


def test_exported_file_equals_torch_on_real_images(finished: Path, tmp_path: Path) -> None:
    run = load_run(finished)
    row = chosen(run, [])[0]
    path = export(row, finished / row.weights, tmp_path, open_config_task(run.config), batch=None)
    task = open_config_task(run.config)
    network, x = build(row.arch), task.load("valid").x
    network.load_state_dict(load(finished / row.weights))
    ours, theirs = predict(network, x, task).numpy(), logits_of_onnx(path, task.normaliser()(x).numpy())
    assert float(np.abs(ours - theirs).max()) <= 1e-4 * float(np.abs(ours).max())


def test_weights_of_another_training_do_not_pass_as_this_one(finished: Path, tmp_path: Path) -> None:
    run = load_run(finished)
    row = chosen(run, [])[0]
    state = load(finished / row.weights)
    broken = {k: torch.full_like(v, torch.nan) if k == "head.out.weight" else v for k, v in state.items()}
    save(broken, tmp_path / "broken.safetensors")
    with pytest.raises(Stopped, match="ONNX and torch differ"):
        export(row, tmp_path / "broken.safetensors", tmp_path, open_config_task(run.config))
    assert not list(tmp_path.glob("*.onnx"))


def test_metadata_tells_id_and_classes(finished: Path) -> None:
    row = chosen(load_run(finished), [])[0]
    model = onnx.load(finished / "models" / f"{row.id}.onnx")
    kept = {p.key: p.value for p in model.metadata_props}
    assert kept["id"] == row.id
    assert msgspec.json.decode(kept["classes"]) == ["0", "1", "2"]


def test_manifest_hashes_match(finished: Path, tmp_path: Path) -> None:
    exported(finished, "--out", tmp_path / "out")
    for entry in json.loads((tmp_path / "out" / "manifest.json").read_text())["models"]:
        assert entry["sha256"] == hashlib.sha256((tmp_path / "out" / entry["file"]).read_bytes()).hexdigest()


def test_fully_trained_row_wins_over_the_searchs(finished: Path) -> None:
    run = load_run(finished)
    assert {r.stage for r in chosen(run, list(run.front["id"]))} == {"final"}


def test_unknown_id_is_refused_with_a_suggestion(finished: Path) -> None:
    known = load_run(finished).front["id"].iloc[0]
    done = exported(finished, "--model", known[:-1] + "z")
    assert done.exit_code == 2
    assert f"did you mean '{known}'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_beginning_of_several_ids_is_refused(finished: Path) -> None:
    with pytest.raises(NasError, match=r"begins \d+ ids; say more of it"):
        chosen(load_run(finished), [""])


def test_run_without_a_front_says_how_to_finish_it(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "front.csv").unlink()
    with pytest.raises(NasError, match=r"has no front yet; finish it with: python -m nas\.search --config"):
        chosen(load_run(tmp_path / "run"), [])


def test_infeasible_or_unknown_networks_cannot_be_exported(finished: Path) -> None:
    with pytest.raises(UnknownName):
        chosen(load_run(finished), ["ffffffffffff"])


@pytest.mark.parametrize("batch", ["0", "-1", "many", "1.5", ""])
def test_batch_must_be_a_positive_number_or_any(finished: Path, batch: str) -> None:
    done = exported(finished, "--batch", batch)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --batch must be a positive number or 'any'")


def test_missing_weights_are_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    row = chosen(load_run(tmp_path / "run"), [])[0]
    (tmp_path / "run" / row.weights).unlink()
    done = exported(tmp_path / "run")
    assert done.exit_code != 0
    assert row.id in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_exported_front_carries_the_latencies_that_the_run_measured(finished: Path, tmp_path: Path) -> None:
    exported(finished, "--out", tmp_path / "out")
    front = load_run(finished).front.set_index("id")["latency_p50_ms"]
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["models"]
    assert {e["id"]: round(e["latency"]["p50_ms"], 5) for e in entries} == dict(front)


def test_manifest_alone_says_how_to_feed_a_model(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    how, run = manifest["input"]["preprocess"], load_run(finished)
    with np.load(run.config.data.removeprefix("npz:")) as file:
        image = file["x_train"][:4].astype(np.float64)
    mean, std = np.array(how["mean"]), np.array(how["std"])
    fed = ((image * how["scale"] - mean) / std).transpose(0, 3, 1, 2)
    task = open_config_task(run.config)
    ours = task.normaliser()(torch.from_numpy(image.astype(np.uint8)).permute(0, 3, 1, 2)).numpy()
    assert np.abs(fed - ours).max() < 1e-5


def test_probabilities_by_the_manifests_temperature_are_as_calibrated_as_it_says(finished: Path) -> None:
    """The error in 15 bins of softmax(logits / temperature) on the test images, worked out here."""
    task = open_config_task(load_run(finished).config)
    split = task.load("test")
    x, y = task.normaliser()(split.x).numpy(), split.y.numpy()
    for entry in json.loads((finished / "manifest.json").read_text())["models"]:
        session = ort.InferenceSession(finished / entry["file"])
        logits = np.concatenate([session.run(None, {"input": x[i : i + 1]})[0] for i in range(len(x))]).astype(np.float64)
        assert entry["temperature"] == entry["valid_calibration"]["temperature"]
        scaled = np.exp((logits - logits.max(1, keepdims=True)) / entry["temperature"])
        probabilities = scaled / scaled.sum(1, keepdims=True)
        confidence, is_right = probabilities.max(1), probabilities.argmax(1) == y
        places = np.minimum((confidence * 15).astype(int), 14)
        error = sum(abs((is_right[places == i] - confidence[places == i]).sum()) for i in range(15)) / len(y)
        assert error == pytest.approx(entry["calibration"]["ece_scaled"], abs=0.01)  # an image may change its bin
        kept = {p.key: p.value for p in onnx.load(finished / entry["file"]).metadata_props}
        assert float(kept["temperature"]) == entry["temperature"]


def test_data_that_changed_since_the_run_is_not_exported_with(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    facts = json.loads((out / "environment.json").read_text())
    facts["data"]["sha256"] = "0" * 64
    (out / "environment.json").write_text(json.dumps(facts))
    done = exported(out)
    assert done.exit_code == 2
    assert "changed since" in done.stderr
