"""``nas.search --stages search,refine,distill`` on a search of two networks: whole, broken off, and refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from nas.config import RunConfig, config_from_file
from nas.distill import main as distill
from nas.export import main as export
from nas.models.reference import reference
from nas.store import load_run
from nas.weights import save
from tests.nas.small import ROOT, command, config, kill, kill_at, line_count, rows, saved, wait_until
from tests.nas.test_refine import SPACE

ALL = ("search", "refine", "distill")
LONG_S = 240.0  # for what takes seconds on an idle computer


def chain(folder: Path, **changed: Any) -> RunConfig:  # Any: values of any field
    fields: dict[str, Any] = {
        "trials": 2, "round_size": 2, "baselines": ("mobilenet_v3_small_minimal",), "stages": ALL, "refine_ratio": 0.8, "refine_steps": 2,
        "refine_delta": 0.1, "teacher": "train:resnet20", "loss": "kd", "loss_options": {"temperature": 2.0}, "distill_baselines": True,
    }  # fmt: skip
    return config(folder, SPACE, **(fields | changed))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(chain(folder := tmp_path_factory.mktemp("chain")), folder)


@pytest.fixture(scope="module")
def whole(inputs: Path) -> Result:
    done = command("--config", inputs, "--out", inputs.parent / "run")
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def out(inputs: Path, whole: Result) -> Path:
    return inputs.parent / "run"


def final(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "final-front.csv", dtype={"id": str, "name": str, "parent_id": str}).drop(columns="train_seconds")


@pytest.mark.slow
def test_every_stage_is_said_with_its_time_before_the_search(whole: Result) -> None:
    lines = whole.stderr.splitlines()
    assert lines[0] == "stages   search, refine, distill"
    assert lines[1].startswith("refine   the most accurate of the front to 0.8 of its latency (up to ~")
    assert "with kd from train:resnet20, 1 epoch each (~" in lines[2]


@pytest.mark.slow
def test_table_holds_found_refined_distilled_and_baselines_by_latency(out: Path) -> None:
    table = final(out)
    found = table[table["series"] == "found"]
    assert set(table["series"]) == {"found", "refined", "distilled", "baseline"}
    assert set(table[table["lesson"].notna()]["id"]) == set(table["id"])
    assert list(table["lesson"].dropna().unique()) == ["kd temperature=2"]
    (refined,) = table[table["series"] == "refined"].to_dict("records")
    seed = found[found["id"] == refined["parent_id"]].iloc[0]
    assert refined["latency_p50_ms"] <= 0.8 * seed["latency_p50_ms"]


@pytest.mark.slow
def test_front_is_what_no_other_row_beats(out: Path) -> None:
    table = final(out)
    points = list(zip(table["valid_score"], table["latency_p50_ms"], strict=True))
    beaten = [any(s >= score and t <= ms and (s, t) != (score, ms) for s, t in points) for score, ms in points]
    assert not any(b and f for b, f in zip(beaten, table["on_front"], strict=True))
    assert {p for p, b in zip(points, beaten, strict=True) if not b} == {p for p, f in zip(points, table["on_front"], strict=True) if f}


@pytest.mark.slow
def test_gain_is_over_the_same_network_trained_as_long_without_a_teacher(out: Path) -> None:
    table = final(out).set_index("name")
    for name, row in table[table["test_gain"].notna()].iterrows():
        plain = table.loc[row["id"]]
        assert plain["score_source"] == "full"
        assert row["test_gain"] == pytest.approx(row["test_score"] - plain["test_score"], abs=1e-6), name
    tuned = table[table["score_source"] == "tuned"]["id"]
    assert table[table["id"].isin(tuned)]["test_gain"].isna().all()


@pytest.mark.slow
def test_every_network_is_an_onnx_file_that_runs_and_is_in_the_manifest(out: Path) -> None:
    manifest = msgspec.json.decode((out / "final-manifest.json").read_bytes())
    assert [Path(m["file"]).stem for m in manifest["models"]] != []
    assert {m["file"] for m in manifest["models"]} == set(final(out)["file"])
    for model in manifest["models"]:
        onnxruntime.InferenceSession(out / model["file"], providers=["CPUExecutionProvider"])
        assert model["latency"]["p50_ms"] > 0


@pytest.mark.slow
def test_reliability_of_all_networks_is_drawn_and_told_of(out: Path, whole: Result) -> None:
    assert (out / "final-reliability.png").read_bytes().startswith(b"\x89PNG")
    assert "final-front.png, final-reliability.png, final-manifest.json" in whole.stderr


@pytest.mark.slow
def test_same_command_again_shows_the_table_and_does_nothing(out: Path, whole: Result) -> None:
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    again = command("--config", out / "config.json", "--out", out)
    assert again.exit_code == 0, again.output
    assert f"{out} is complete, search, refine, distill" in again.stderr
    assert again.stdout in whole.stdout
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.slow
def test_refined_network_is_the_runs_for_other_verbs(out: Path, tmp_path: Path) -> None:
    (refined,) = final(out)[final(out)["series"] == "refined"]["id"]
    done = CliRunner().invoke(export, [str(out), "--model", refined, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    before = len(rows(out))
    lesson = ("--loss", "kd", "--set", "temperature=2", "--teacher", "train:resnet20")
    again = CliRunner().invoke(distill, [str(out), "--model", refined, *lesson])
    assert again.exit_code == 0, again.output
    assert "0 trainings to do, 1 done before" in again.stderr
    assert len(rows(out)) == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_chain_killed_between_and_inside_stages_ends_as_an_unbroken_one(inputs: Path, out: Path) -> None:
    parts = inputs.parent / "parts"

    def process() -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "nas.search", "--config", str(inputs), "--out", str(parts)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                                env=one_thread)  # fmt: skip

    kill_at(process(), lambda: (parts / "manifest.json").exists(), LONG_S)  # between search and refine
    kill_at(process(), lambda: any(p.read_bytes().count(b"\n") >= 2 for p in parts.glob("refined/*/refine.jsonl")), LONG_S)
    kill_at(process(), lambda: any(parts.glob("refined/*/path.csv")), LONG_S)  # between refine and distill
    lines = line_count(parts)
    kill_at(process(), lambda: line_count(parts) >= lines + 2, LONG_S)  # with a distilled network, and more to come
    kept = rows(parts)
    assert 1 <= sum(r.stage == "distill" for r in kept) < 3
    done = command("--config", parts / "config.json", "--out", parts)
    assert done.exit_code == 0, done.output
    pd.testing.assert_frame_equal(final(parts), final(out))
    names = [(r.stage, r.name, r.score_source) for r in rows(parts) if r.stage != "search"]
    assert len(set(names)) == len(names)
    assert rows(parts)[: len(kept)] == kept


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_chain_with_a_budget_is_taken_up_by_its_configuration_and_is_complete(inputs: Path, tmp_path: Path) -> None:
    given = config_from_file(inputs, {"stages": ("search", "distill"), "loss": "uskd", "teacher": "", "teacher_arch": None})
    named = {name: getattr(given, name) for name in ("space", "data", "devices", "baselines", "executor", "recipe", "train_images")}
    file, out = tmp_path / "chain.json", tmp_path / "run"
    file.write_bytes(msgspec.json.encode({**named, "stages": given.stages, "loss": "uskd", "budget_s": 30.0}))
    line = [sys.executable, "-m", "nas.search", "--out", str(out), "--config", str(file)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: line_count(out) >= 3 or process.poll() is not None, process, 240)
    _, story = kill(process)
    if "is too short for" in story:
        pytest.skip(story)
    for says in ("distilled", "is complete, search, distill"):
        done = command("--config", out / "config.json", "--out", out)
        assert done.exit_code == 0, done.output
        assert says in done.output


@pytest.mark.slow
def test_finished_search_goes_on_with_a_stage_that_is_added(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    searched = list(rows(run))
    done = command("--config", run / "config.json", "--out", run, "--stages", "search,distill", "--loss", "uskd")
    assert done.exit_code == 0, done.output
    assert rows(run)[: len(searched)] == searched
    assert set(final(run)["series"]) == {"found", "distilled", "baseline"}
    assert "baselines have no teacher here" in done.stderr
    assert config_from_file(run / "config.json", {}).stages == ("search", "distill")
    assert load_run(run).front.equals(load_run(finished).front)


def test_option_of_a_loss_has_a_flag(tmp_path: Path) -> None:
    inputs = saved(chain(tmp_path, loss="skd", loss_options={}), tmp_path)
    done = command("--config", inputs, "--out", tmp_path / "run", "--loss-set", "temperature=0", "--loss-set", "alpha=0.5")
    assert done.exit_code == 2, done.output
    assert done.stderr == "error: temperature must be above 0 and finite, got 0.0\n"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"teacher": ""}, "needs --teacher: train:resnet56"),
        ({"loss": "ndk"}, "unknown loss 'ndk'; did you mean 'nkd'"),
        ({"loss": "plain"}, "unknown loss 'plain'"),
        ({"loss": "landmark", "loss_options": {}}, "is for landmarks"),
        ({"teacher": "train:resnet_20"}, "did you mean 'resnet20'"),
        ({"teacher": "torchvision:resnet18"}, "knows 1000 classes"),
        ({"teacher": "file:none.safetensors", "teacher_arch": "resnet20"}, "there is no such file"),
        ({"loss": "skd", "loss_options": {}}, "say alpha=... with --set (nas.distill) or --loss-set (nas.search)"),
        ({"loss_options": {"temprature": 2.0}}, "did you mean 'temperature'"),
        ({"loss": "bdkd", "teacher": "run:a/b"}, "name it with --teacher train:NAME"),
        ({"loss": "bdkd", "teacher": "file:a", "teacher_arch": "resnet20", "loss_options": {}}, "name it with --teacher train:NAME"),
        ({"loss": "uskd", "loss_options": {}}, "--teacher belongs to --loss kd"),
    ],
)
def test_what_no_search_can_mend_is_refused_before_it(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    done = command("--config", saved(chain(tmp_path, **changed), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not (tmp_path / "run").exists()


def test_teacher_whose_outputs_are_not_finite_is_refused_before_the_search(tmp_path: Path) -> None:
    state = reference("resnet20", outputs=3, generator=torch.Generator().manual_seed(0)).state_dict()
    save({k: torch.full_like(t, -1.0) if k == "bn1.running_var" else t for k, t in state.items()}, tmp_path / "t.safetensors")
    changed = {"teacher": f"file:{tmp_path / 't.safetensors'}", "teacher_arch": "resnet20"}
    done = command("--config", saved(chain(tmp_path, **changed), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert "not finite" in line
    assert not (tmp_path / "run").exists()
