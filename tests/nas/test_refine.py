"""The verb from end to end on a search of a few seconds, and what it refuses."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from torchvision.models import mobilenet_v3_small

from latency import open_device
from latency.onnx_graph import emit
from nas import export
from nas.jobs import open_config_task
from nas.refine import main
from nas.refinement.bench import STEP_PLAN
from nas.refinement.places import smallest
from nas.refinement.record import SETTINGS, open_record
from nas.refinement.seeds import seed_of_run, with_splits_of
from nas.refinement.settings import Refinement
from nas.store import Candidate, load_run, read_rows
from nas.tasks import open_task
from search_spaces import Architecture
from tests.nas.small import ROOT, command, config, ended, kill_at, saved, write_inputs
from tests.nas.tasks.samples import write_npz

# wide and short, so that the fake device's time is mostly multiply-accumulates
SPACE = """
[stem]
out_ch = 32
kernel = 3

[[stages]]
name = "a"
out_ch = 32
depth = 2
op = "mbconv4"
kernel = [3, 5]

[[stages]]
name = "b"
out_ch = 48
stride = 2
op = "mbconv3"
"""
QUICK = ("--delta", 0.1, "--steps", 2, "--held-out", 18, "--final-epochs", 1, "--members", 1, "--executor", "serial")


def refined(*arguments: object) -> Result:
    """``python -m nas.refine`` in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def started(*arguments: object, executor: str = "serial") -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "nas.refine", *map(str, arguments), "--executor", executor]
    return subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def path_of(out: Path) -> list[Candidate]:
    """The accepted steps, without the time they took."""
    return [msgspec.structs.replace(r, seconds=0.0) for r in read_rows(out / "candidates.jsonl") if r.stage == "refine"]


def scores_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "path.csv").drop(columns=["problems"])


def settings_of(out: Path) -> Refinement:
    return msgspec.json.decode((out / SETTINGS).read_bytes(), type=Refinement)


def fake_ms(arch: Architecture) -> float:
    device = open_device("fake")
    (found,) = device.time([emit(arch)], STEP_PLAN)
    device.close()
    return found.p50_ms


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of two candidates."""
    folder = tmp_path_factory.mktemp("wide")
    small = config(folder, SPACE, trials=2, round_size=2, front_size=2, baselines=("mobilenet_v3_small_minimal",))
    done = command("--config", saved(small, folder), "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture(scope="module")
def result(run: Path) -> Result:
    return refined(run, "--target-ratio", 0.8, *QUICK)


@pytest.fixture(scope="module")
def out(run: Path, result: Result) -> Path:
    assert result.exit_code == 0, result.output
    (found,) = (run / "refined").iterdir()
    return found


def test_refined_network_is_measured_below_the_target(out: Path) -> None:
    path = path_of(out)
    seed, last = (r.latency.p50_ms for r in (path[0], path[-1]) if r.latency)
    assert last <= 0.8 * seed
    assert fake_ms(path[-1].arch) == pytest.approx(last, rel=1e-3)


def test_folder_is_named_by_seed_and_target(out: Path) -> None:
    assert out.name == f"{path_of(out)[0].id}-0.8x"


def test_seed_is_the_most_accurate_of_the_front_with_its_weights(run: Path, out: Path) -> None:
    front = load_run(run).front
    best = front["id"].iloc[int(front["valid_score"].to_numpy().argmax())]
    assert path_of(out)[0].id == best
    assert (out / "weights" / "seed.safetensors").exists()


def test_plan_is_said_with_the_time_of_a_step_before_it_is_taken(result: Result) -> None:
    lines = result.stderr.splitlines()
    time = next(i for i, line in enumerate(lines) if line.startswith("time "))
    assert "for the first step, 1 at a time" in lines[time]
    assert time < next(i for i, line in enumerate(lines) if line.startswith("step 1: "))
    assert "poor guide" in result.stderr


def test_figures_compare_refining_with_scaling(out: Path) -> None:
    table = pd.read_csv(out / "path.csv")
    assert set(table["series"]) == {"path", "scaled", "refined", "tuned"}
    assert "seed x1" in set(table["label"])
    finals = table[table["series"] != "path"]
    assert finals[["valid_score", "test_score", "latency_p50_ms", "epochs"]].notna().all(axis=None)
    assert (finals["epochs"] == 1).all()
    assert table[table["series"] == "path"]["change"].notna().sum() == len(path_of(out)) - 1
    assert (out / "path.png").read_bytes().startswith(b"\x89PNG")


def test_better_of_fine_tuned_and_trained_from_scratch_is_what_is_exported(out: Path, tmp_path: Path) -> None:
    last = path_of(out)[-1].id
    finals = [r for r in read_rows(out / "candidates.jsonl") if r.stage == "final" and r.id == last]
    assert {r.score_source for r in finals} == {"tuned", "full"}
    assert finals[-1].score == max(r.score or 0.0 for r in finals)
    done = CliRunner().invoke(export.main, [str(out), "--model", last, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"valid {finals[-1].score:.4f}" in done.stdout


def test_network_of_the_middle_of_the_path_is_exported_too(out: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(export.main, [str(out), "--model", path_of(out)[0].id, "--model", path_of(out)[1].id, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output


def test_complete_refinement_is_shown_and_nothing_is_done(run: Path, out: Path) -> None:
    before = (out / "candidates.jsonl").read_bytes()
    done = refined(run, "--target-ratio", 0.8, *QUICK)
    assert done.exit_code == 0, done.output
    assert "is complete" in done.stderr
    assert "seed x1" in done.stdout
    assert (out / "candidates.jsonl").read_bytes() == before


def refused(done: Result, code: int = 2) -> str:
    """The one line of a refusal."""
    assert done.exit_code == code, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def refused_once_measured(done: Result) -> str:
    """The refusal after the line that says what is measured."""
    assert done.exit_code == 2, done.output
    first, line = done.stderr.splitlines()
    assert first.startswith("measuring ")
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_other_settings_in_the_same_folder_are_refused(run: Path, out: Path) -> None:
    said = refused(refined(run, "--target-ratio", 0.8, *QUICK, "--kinds", "expansion", "--out", out))
    assert "holds another refinement (kinds is ('expansion', 'bottleneck') there, ('expansion',) here)" in said


def test_folder_of_a_search_is_refused(run: Path) -> None:
    assert "holds a run that is no refinement" in refused(refined(run, "--target-ratio", 0.8, *QUICK[:-2], "--out", run))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "name a RUN of nas.search to take a model from, or a --seed-model"),
        (["--model", "ab"], "--model names a model of RUN: name RUN too"),
        (["--seed-model", "mobilenet_v2"], "a refinement needs one of --target-ms and --target-ratio"),
        (["--seed-model", "mobilenet_v2", "--target-ratio", 1.5], "--target-ratio must lie between 0 and 1, got 1.5"),
        (["--seed-model", "mobilenet_v2", "--target-ratio", 0.5], "--out must name a folder where there is no RUN"),
        (["--seed-model", "mobilenet_v2", "--target-ratio", 0.5, "--kinds", "expansion,depht"], "did you mean 'depth'?"),
        (["--seed-model", "mobilenet_v2", "--target-ratio", 0.5, "--delta", 0], "--delta must lie between 0 and 1, got 0.0"),
        (["no/such/run", "--target-ratio", 0.5], "no/such/run is no run folder"),
    ],
)
def test_mistake_in_the_flags_is_one_line(flags: list[object], said: str) -> None:
    assert said in refused(refined(*flags))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mobilenet_v4", "unknown published network (or torchvision:NAME) 'mobilenet_v4'; did you mean 'mobilenet_v2'?"),
        ("mobilenet_v2@half", "behind mobilenet_v2@ stands the width multiplier, such as mobilenet_v2@0.5; got 'half'"),
        ("torchvision:resnet18", "unknown torchvision network 'resnet18'"),
        ("torchvision:mobilenet_v2:none.pth", "none.pth: there is no such file"),
    ],
)
def test_seed_that_is_none_is_one_line(tmp_path: Path, spec: str, said: str) -> None:
    flags = ("--data", write_inputs(tmp_path)["data"], "--seed-model", spec, "--target-ratio", 0.5, "--out", tmp_path / "run")
    assert said in refused(refined(*flags))
    assert not (tmp_path / "run").exists()


def test_model_that_the_run_has_not_is_one_line(run: Path) -> None:
    assert "unknown model in" in refused(refined(run, "--model", "zzz", "--target-ratio", 0.8, *QUICK))


def test_seed_without_weights_is_one_line(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("refined", "*.safetensors"))
    said = refused(refined(tmp_path / "run", "--target-ratio", 0.8, *QUICK))
    assert "has no weights to begin with" in said
    assert "python -m nas.search --config" in said
    assert not (tmp_path / "run" / "refined").exists()


def test_another_seed_leaves_the_data_split_as_the_run_has_them(run: Path, tmp_path: Path) -> None:
    """A validation set that is drawn anew would be of images that the run's networks were trained on."""
    done = refined(run, "--target-ratio", 0.9, *QUICK, "--seed", 1, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert noted_data(tmp_path / "out") == noted_data(run)
    begun, ours = load_run(run).config, load_run(tmp_path / "out").config
    assert (ours.seed, ours.data_seed, begun.seed) == (1, begun.seed, 0)
    assert open_config_task(ours).data_sha256 == noted_data(run)  # as nas.export opens them


def noted_data(folder: Path) -> str:
    found: str = msgspec.json.decode((folder / "environment.json").read_bytes())["data"]["sha256"]
    return found


def test_splits_of_a_refined_network_stay_those_of_its_first_run(run: Path) -> None:
    begun = load_run(run)
    second = dataclasses.replace(begun, config=msgspec.structs.replace(begun.config, seed=1, data_seed=0))
    third = with_splits_of(second, msgspec.structs.replace(begun.config, seed=2))
    assert (third.seed, third.data_seed) == (2, 0)
    assert with_splits_of(second, begun.config) == begun.config
    elsewhere = msgspec.structs.replace(begun.config, seed=2, data="digits")
    assert with_splits_of(second, elsewhere) == elsewhere


def test_network_of_a_run_has_yet_to_learn_other_data_with_as_many_classes(run: Path, tmp_path: Path) -> None:
    begun = load_run(run)
    other = open_task("classify", f"npz:{write_npz(tmp_path / 'other.npz', train=90)}")
    seed = seed_of_run(begun, None, other)
    assert not seed.is_trained
    assert seed.origin.endswith(f", which was trained on {begun.config.data},")
    assert seed.state is not None
    assert "head.out.weight" not in seed.state


def test_same_data_under_another_name_are_no_other_data(run: Path, tmp_path: Path) -> None:
    begun = load_run(run)
    shutil.copy(begun.config.data.removeprefix("npz:"), tmp_path / "copy.npz")
    assert seed_of_run(begun, None, open_task("classify", f"npz:{tmp_path}/copy.npz")).is_trained


def test_data_that_changed_since_the_run_are_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("refined"))
    changed = msgspec.structs.replace(load_run(run).config, data=f"npz:{write_npz(tmp_path / 'changed.npz', train=90)}")
    (tmp_path / "run" / "config.json").write_bytes(msgspec.json.encode(changed))
    said = refused(refined(tmp_path / "run", "--target-ratio", 0.8, *QUICK))
    assert said.endswith("changed since: put that back to go on with it")


def test_target_above_the_seed_is_refused_before_work(run: Path, tmp_path: Path) -> None:
    said = refused_once_measured(refined(run, "--target-ms", 100, *QUICK, "--out", tmp_path / "out"))
    assert said.startswith("--target-ms 100 is no less than what ")
    assert "nothing to refine" in said
    assert not (tmp_path / "out").exists()


def test_impossible_target_is_refused_before_work_with_the_floor(run: Path, tmp_path: Path, out: Path) -> None:
    said = refused_once_measured(refined(run, "--target-ms", 0.001, *QUICK, "--out", tmp_path / "out"))
    floor = fake_ms(smallest(path_of(out)[0].arch, ("expansion", "bottleneck")))
    (stated,) = re.findall(r"with everything as small as it gets it takes ([\d.]+) ms", said)
    assert float(stated) == pytest.approx(floor, rel=1e-2)
    assert "ask for more" in said
    assert not (tmp_path / "out").exists()


def test_device_too_restless_for_the_target_is_refused_before_work(run: Path, tmp_path: Path) -> None:
    said = refused_once_measured(refined(run, "--target-ratio", 0.995, *QUICK, "--device", "fake:noise=0.3", "--out", tmp_path / "out"))
    assert "is too restless to tell " in said
    assert "let nothing else run there" in said
    assert not (tmp_path / "out").exists()


def test_too_many_held_out_images_are_refused(run: Path, tmp_path: Path) -> None:
    flags = ("--target-ratio", 0.8, *QUICK, "--held-out", 5000, "--out", tmp_path / "out")
    assert "--held-out must be 3 (one image of each class) to" in refused(refined(run, *flags))


def test_path_without_a_step_is_one_line(run: Path, out: Path, tmp_path: Path) -> None:
    """A run whose first step found nothing faster, as a device that is busy leaves it behind."""
    ended = tmp_path / "ended"
    shutil.copytree(out, ended)
    for file in ("path.csv", "front.csv", "refine.jsonl"):
        (ended / file).unlink()
    (ended / "candidates.jsonl").write_bytes((out / "candidates.jsonl").read_bytes().splitlines(keepends=True)[0])
    open_record(ended, settings_of(out)).end(1, "none of its proposals measures faster")
    done = refined(run, "--target-ratio", 0.8, *QUICK, "--out", ended)
    said = "error: no step was possible, so there is nothing to train in full: none of its proposals measures faster; the same command"
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith(said)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "lines"), [("refine.jsonl", 4), ("candidates.jsonl", 4)])
def test_killed_refinement_goes_on_as_an_unbroken_one(run: Path, out: Path, tmp_path: Path, file: str, lines: int) -> None:
    again = tmp_path / "again"
    flags = (run, "--target-ratio", 0.8, *QUICK[:-2], "--out", again)
    kill_at(started(*flags), lambda: (again / file).exists() and (again / file).read_bytes().count(b"\n") >= lines)
    kept = (again / file).read_bytes()
    done = refined(*flags, "--executor", "serial")
    assert done.exit_code == 0, done.output
    assert (again / file).read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert path_of(again) == path_of(out)
    assert scores_of(again).equals(scores_of(out))
    assert {p.name for p in (again / "weights").iterdir()} == {p.name for p in (out / "weights").iterdir()}


@pytest.mark.slow
def test_refinement_on_ray_gives_the_rows_of_the_serial_one(run: Path, out: Path, tmp_path: Path) -> None:
    flags = (run, "--target-ratio", 0.8, *QUICK[:-2], "--out", tmp_path / "ray", "--workers", 2)
    code, story = ended(started(*flags, executor="ray"), 300)
    assert code == 0, story
    assert path_of(tmp_path / "ray") == path_of(out)
    assert scores_of(tmp_path / "ray").equals(scores_of(out))


@pytest.mark.slow
def test_published_network_is_trained_first(tmp_path: Path) -> None:
    data = write_inputs(tmp_path)["data"]
    flags = ("--data", data, "--device", "fake", "--seed-model", "mnasnet_small@0.5", "--target-ratio", 0.97, *QUICK, "--delta", 0.02)
    done = refined(*flags, "--kinds", "depth", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    rows = read_rows(tmp_path / "run" / "candidates.jsonl")
    assert (rows[0].stage, rows[0].baseline, rows[0].score_source) == ("final", "seed x1", "full")
    assert rows[1].weights == rows[0].weights
    assert sum(r.id == rows[0].id and r.stage == "final" for r in rows) == 1


@pytest.mark.slow
def test_torchvision_network_begins_with_its_weights_and_learns_the_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(mobilenet_v3_small(weights=None, width_mult=0.25).state_dict(), tmp_path / "v3.pth")
    data, spec = write_inputs(tmp_path)["data"], f"torchvision:mobilenet_v3_small:{tmp_path}/v3.pth"
    flags = ("--data", data, "--device", "fake", "--seed-model", spec, "--target-ratio", 0.97, *QUICK, "--delta", 0.02)
    done = refined(*flags, "--kinds", "depth,se", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    rows = read_rows(tmp_path / "run" / "candidates.jsonl")
    assert (rows[0].stage, rows[0].baseline, rows[0].score_source) == ("final", "seed x1", "tuned")
    assert rows[1].arch.head.outputs == 3
