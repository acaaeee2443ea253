"""Teachers that a run trains itself: kept, told of, and trained again where they cannot be read."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import Result

from nas.distillation.own_teacher import TeacherRecord
from nas.evaluate import judge
from nas.jobs import open_config_task
from nas.models.reference import reference
from nas.store import load_run
from nas.weights import load
from tests.nas.small import ROOT, kill_at
from tests.nas.test_distill import distilled, student, taught


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def teacher_of(run: Path, *arguments: str) -> Result:
    """A lesson by a teacher that is trained here."""
    return distilled(run, "--teacher", "train:resnet20", "--teacher-epochs", "1", "--model", student(run), "--loss", "kd", *arguments)


def test_teacher_is_trained_here_once_and_kept(run: Path) -> None:
    arguments = (run, "--teacher", "train:resnet20", "--teacher-epochs", "1", "--model", student(run))
    first = distilled(*arguments, "--loss", "kd")
    assert first.exit_code == 0, first.output
    assert "training resnet20 for 1 epoch first" in first.stderr
    second = distilled(*arguments, "--loss", "nkd")
    assert "was trained here before" in second.stderr
    assert {r.lesson.teacher for r in taught(run) if r.lesson} == {"train:resnet20"}


def test_teacher_that_is_trained_here_leaves_a_record_of_its_score(run: Path) -> None:
    done = teacher_of(run)
    (weights,), (file,) = (list((run / "teachers").glob(f"resnet20-*.{kind}")) for kind in ("safetensors", "json"))
    record = msgspec.json.decode(file.read_bytes(), type=TeacherRecord)
    network = reference("resnet20", outputs=3)
    network.load_state_dict(load(weights))
    judged = judge(network, open_config_task(load_run(run).config), "valid")
    assert (record.score, record.calibration.ece) == pytest.approx((judged.score, judged.calibration.ece))
    assert f"resnet20 is trained: valid {record.score:.3f}, calibration error" in done.stderr


def test_training_of_a_teacher_says_before_it_begins_that_it_can_go_on(run: Path) -> None:
    done = teacher_of(run)
    assert "if interrupted goes on after the last epoch that was kept" in done.stderr
    assert not list((run / "teachers").glob("midway-*"))


@pytest.mark.slow
def test_killed_training_of_a_teacher_goes_on_and_ends_as_an_unbroken_one(run: Path, finished: Path, tmp_path: Path) -> None:
    arguments = ["--teacher", "train:resnet20", "--teacher-epochs", "40", "--model", student(run), "--loss", "kd", "--executor", "serial"]
    unbroken = Path(shutil.copytree(finished, tmp_path / "unbroken"))
    process = subprocess.Popen(
        [sys.executable, "-m", "nas.distill", str(run), *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    kill_at(process, lambda: bool(list((run / "teachers").glob("midway-*"))))
    assert not list((run / "teachers").glob("resnet20-*.safetensors"))
    done = distilled(run, *arguments)
    assert re.search(r"training resnet20 for 40 epochs first, [1-9]\d* of them done before", done.stderr), done.output
    distilled(unbroken, *arguments)
    (ours,), (theirs,) = (list((folder / "teachers").glob("resnet20-*.safetensors")) for folder in (run, unbroken))
    expected = load(theirs)
    assert all(torch.equal(t, expected[name]) for name, t in load(ours).items())


def midway_of(weights: Path) -> Path:
    """Where the training of these weights is kept."""
    return weights.with_name(f"midway-{weights.stem}-cpu-{torch.__version__.partition('+')[0]}.safetensors")


def test_broken_off_training_of_a_teacher_that_cannot_be_read_begins_anew_and_that_is_said(run: Path) -> None:
    teacher_of(run)
    (weights,) = (run / "teachers").glob("resnet20-*.safetensors")
    weights.rename(midway_of(weights))
    again = teacher_of(run)
    assert again.exit_code == 0, again.output
    assert "warning: the training of the teacher resnet20 that was broken off cannot go on, and begins anew" in again.stderr
    assert weights.exists()
    assert not midway_of(weights).exists()


def test_what_was_kept_of_a_finished_training_is_removed(run: Path) -> None:
    teacher_of(run)
    (weights,) = (run / "teachers").glob("resnet20-*.safetensors")
    midway_of(weights).write_bytes(b"left by a kill after the weights were written")
    (run / "teachers" / ".resnet20.abc.tmp").write_bytes(b"half written")
    teacher_of(run, "--show")
    assert midway_of(weights).exists()
    teacher_of(run)
    assert {file.name.partition("-")[0] for file in (run / "teachers").iterdir()} == {"resnet20", "logits"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_teacher_that_cannot_be_kept_on_the_way_is_trained_to_its_end(run: Path) -> None:
    """The weights of a ResNet-20 take 1.1 MB, what its training needs to go on three times as much."""
    (run / "teachers").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(run / "teachers")], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    try:
        done = teacher_of(run)
        assert done.exit_code == 0, done.output
        assert "warning: the teacher's training cannot be kept on the way, and interrupted it begins anew: [Errno 28]" in done.stderr
        assert list((run / "teachers").glob("resnet20-*.safetensors"))
    finally:
        subprocess.run(["umount", str(run / "teachers")], check=True)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_text("{"), lambda file: file.write_text("{}")])
def test_lost_or_damaged_record_of_a_teacher_is_made_again(run: Path, spoil: Callable[[Path], object]) -> None:
    teacher_of(run)
    (file,) = (run / "teachers").glob("resnet20-*.json")
    before = file.read_bytes()
    spoil(file)
    again = teacher_of(run)
    assert "was trained here before: valid" in again.stderr
    assert msgspec.json.decode(file.read_bytes())["score"] == pytest.approx(msgspec.json.decode(before)["score"])


def test_kept_teacher_that_cannot_be_read_is_trained_again_and_that_is_said(run: Path) -> None:
    teacher_of(run)
    (weights,) = (run / "teachers").glob("resnet20-*.safetensors")
    before = load(weights)
    weights.write_bytes(weights.read_bytes()[:100])
    again = teacher_of(run)
    assert again.exit_code == 0, again.output
    assert "warning: the teacher resnet20 that was trained here cannot be read, and is trained again" in again.stderr
    assert all(torch.equal(t, before[k]) for k, t in load(weights).items())


def test_kept_teacher_that_cannot_be_read_is_not_shown(run: Path) -> None:
    teacher_of(run)
    (weights,) = (run / "teachers").glob("resnet20-*.safetensors")
    weights.write_bytes(b"")
    shown = teacher_of(run, "--show")
    assert shown.exit_code == 1
    assert "leave out --show to train it again" in shown.stderr
    assert weights.read_bytes() == b""
