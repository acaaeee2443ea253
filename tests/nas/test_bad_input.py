"""Mistakes end in one line that begins with "error:", exit code 2, no traceback, and nothing written."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image

from tests.nas.small import ROOT, command, config, rows, saved, write_inputs
from tests.nas.tasks.samples import pixels, write_classes


def refused(done: Result, out: Path, code: int = 2) -> str:
    """The one line of a refusal; checks what all refusals share."""
    assert done.exit_code == code, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert done.stdout == ""
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert not out.exists()
    return lines[0].removeprefix("error: ")


def tried(folder: Path, **changed: object) -> str:
    """The refusal of a sound command in which single flags were changed."""
    flags: dict[str, object] = {**write_inputs(folder), "device": "fake", "executor": "serial", "trials": 2, "epochs": 1} | changed
    line = [part for name, value in flags.items() for part in ("--" + name.replace("_", "-"), value)]
    return refused(command(*line, "--out", folder / "run"), folder / "run")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"space": "mnasnett"}, "unknown search space 'mnasnett'; did you mean 'mnasnet'?"),
        ({"data": "cifar11"}, "unknown data set 'cifar11'; did you mean 'cifar10'?"),
        ({"task": "clasify"}, "unknown task 'clasify'; did you mean 'classify'?"),
        ({"device": "fak"}, "unknown device 'fak'; did you mean 'fake'?"),
        ({"device": "fake:slep=3"}, "did you mean"),
        ({"device": "fake:ms=-3"}, "ms and sleep_ms take 0 to 1e6"),
        ({"sampler": "tep"}, "unknown sampler 'tep'; did you mean 'tpe'?"),
        ({"baseline": "mobilenet_v4"}, "unknown baseline 'mobilenet_v4'; did you mean 'mobilenet_v"),
        ({"trials": -3}, "--trials must be a positive number, got -3"),
        ({"epochs": 0}, "--epochs must be a positive number, got 0"),
        ({"width": -1}, "--width must be a positive number, got -1"),
        ({"width": "nan"}, "--width must be a positive number, got nan"),
        ({"width": "inf"}, "--width must be a positive number, got inf"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
        ({"workers": 0}, "--workers must be a positive number, got 0"),
        ({"threads": 0}, "--threads must be a positive number, got 0"),
        ({"max_ms": 0}, "--max-ms must be a positive number, got 0"),
        ({"image_size": 4}, "image_size must be"),
        ({"image_size": 999}, "image_size must be 16"),
        ({"train_images": 1}, "train_images"),
        ({"budget": "soon"}, "not a duration: 'soon'; write for example 45s, 10m or 1h30m"),
        ({"reward": "soft"}, "--reward soft needs --target-ms"),
        ({"w": -0.1}, "--w belongs to --reward soft or abs, not to pareto"),
        ({"space": "nowhere.toml"}, "nowhere.toml: cannot be read"),
        ({"data": "npz:/nowhere/a.npz"}, "no file /nowhere/a.npz"),
        ({"data": "folder:/nowhere"}, "no folder /nowhere"),
        ({"data": "npz:"}, "needs a path"),
        ({"config": "nowhere.toml"}, "cannot read nowhere.toml: No such file or directory"),
    ],
    ids=str,
)
def test_mistake_in_a_flag(tmp_path: Path, flags: Mapping[str, object], said: str) -> None:
    assert said in tried(tmp_path, **flags)


def test_limit_below_the_floor_is_refused_with_the_measured_floor(tmp_path: Path) -> None:
    said = tried(tmp_path, max_ms=0.001)
    assert said.startswith("--max-ms 0.001 is below what small can do at 16 px on fake")
    assert "the fastest of its 6 smallest networks takes 0.0" in said


def test_budget_for_nothing_is_refused_with_the_least_that_will_do(tmp_path: Path) -> None:
    said = tried(tmp_path, budget="1s")
    assert said.startswith("--budget 1.0 s is too short for small on 90 images here: at the speed just measured, 8 candidates and")
    assert "; allow that, or lower --train-images" in said


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert "no sub-folders" in tried(tmp_path, data=f"folder:{tmp_path / 'images'}")


def test_one_class_folder(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "cat" / "a.png")
    assert "at least two class sub-folders, got cat" in tried(tmp_path, data=f"folder:{tmp_path / 'images'}")


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    top = write_classes(tmp_path / "images", 30, seed=0)
    (top / "red" / "002.png").write_bytes(b"no picture")
    assert "002.png" in tried(tmp_path, data=f"folder:{top}")


def npz(folder: Path, **changed: NDArray[Any]) -> str:
    (x, y), (x_test, y_test) = pixels(60, seed=1), pixels(30, seed=2)
    arrays: dict[str, Any] = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test} | changed
    np.savez(folder / "own.npz", **arrays)
    return f"npz:{folder / 'own.npz'}"


def test_nan_in_an_npz_is_named_with_its_image(tmp_path: Path) -> None:
    x = pixels(60, seed=1)[0].astype(np.float32)
    x[7, 0, 0, 0] = np.nan
    assert "x_train" in tried(tmp_path, data=npz(tmp_path, x_train=x))
    assert "NaN or infinity in image 7" in tried(tmp_path, data=npz(tmp_path, x_train=x))


def test_label_count_that_does_not_match(tmp_path: Path) -> None:
    assert "60 images in x_train but 59 labels" in tried(tmp_path, data=npz(tmp_path, y_train=pixels(60)[1][:-1]))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("kernle = [3, 5]", "small.toml: stages row 1 ('a'): unknown field 'kernle'; did you mean 'kernel'?"),
        ("kernel = [3, 4]", "kernel"),
        ('kernel = "big"', "kernel"),
        ("kernel = [", "small.toml: not TOML"),
    ],
)
def test_mistake_in_a_space_names_file_row_and_field(tmp_path: Path, wrong: str, said: str) -> None:
    space = (Path(write_inputs(tmp_path)["space"])).read_text().replace("kernel = [3, 5]", wrong)
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "small.toml").write_text(space)
    text = tried(tmp_path, space=tmp_path / "wrong" / "small.toml")
    assert "small.toml" in text
    assert said in text


def test_typo_in_a_configuration_names_file_and_field(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("trails = 4\n")
    assert "c.toml: " in tried(tmp_path, config=tmp_path / "c.toml")
    assert "did you mean 'trials'" in tried(tmp_path, config=tmp_path / "c.toml")


def test_out_that_is_a_file_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    done = command("--config", saved(config(tmp_path), tmp_path), "--out", tmp_path / "run")
    assert (done.exit_code, (tmp_path / "run").read_text()) == (2, "mine")
    assert done.stderr.startswith("error: ")


def test_out_that_is_no_run_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    done = command("--config", saved(config(tmp_path), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_out_that_holds_another_configuration_is_refused_and_kept(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    done = command("--config", finished / "config.json", "--seed", 9, "--out", finished)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0].startswith(f"error: --out {finished} holds another configuration (seed is 0 there, 9 here)")
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_out_with_a_damaged_configuration_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{")
    done = command("--config", saved(config(tmp_path), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "run/config.json" in done.stderr


def test_unknown_flag_and_wrong_type_are_clicks_own_usage_errors() -> None:
    assert command("--out", "x", "--trails", 3).exit_code == 2
    assert command("--out", "x", "--trials", "many").exit_code == 2
    assert command("--trials", 3).exit_code == 2


@pytest.mark.parametrize("verb", ["search", "export"])
def test_refusal_of_the_real_process_has_no_traceback(tmp_path: Path, verb: str) -> None:
    arguments = {"search": ["--out", str(tmp_path / "run"), "--space", "mnasnett"], "export": [str(tmp_path / "run")]}[verb]
    done = subprocess.run([sys.executable, "-m", f"nas.{verb}", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_refused_run_that_exists_keeps_its_rows(finished: Path) -> None:
    before = rows(finished)
    command("--config", finished / "config.json", "--max-ms", 0.0001, "--out", finished)
    assert rows(finished) == before
