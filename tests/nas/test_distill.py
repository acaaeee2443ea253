"""``python -m nas.distill`` on a small finished run: rows, resume, export, faults."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from nas.distill import main
from nas.export import main as export
from nas.models import build
from nas.models.reference import reference
from nas.store import Candidate, load_run
from nas.weights import load, save
from tests.nas.small import ROOT, command, kill_at, rows


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def teacher(tmp_path: Path) -> list[str]:
    save(reference("resnet20", outputs=3, generator=torch.Generator().manual_seed(0)).state_dict(), tmp_path / "t.safetensors")
    return ["--teacher", f"file:{tmp_path / 't.safetensors'}", "--teacher-arch", "resnet20", "--teacher-norm", "task"]


def distilled(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def student(run: Path) -> str:
    return str(load_run(run).front["id"].iloc[0])


def weights_of(run: Path) -> Path:
    """The file of the student's own weights."""
    return run / next(r.weights for r in rows(run) if r.stage == "final" and r.id == student(run))


def taught(run: Path) -> list[Candidate]:
    return [r for r in rows(run) if r.stage == "distill"]


def test_front_is_taught_by_default_and_every_training_is_a_row(run: Path, teacher: list[str]) -> None:
    done = distilled(run, *teacher, "--loss", "plain", "--loss", "nkd", "--seeds", "2")
    assert done.exit_code == 0, done.output
    front = set(load_run(run).front["id"])
    found = taught(run)
    assert {r.parent_id for r in found} == {r.id for r in found} == front
    assert len(found) == len(front) * 2 * 2
    assert len({r.name for r in found}) == len(found)
    assert all(r.score is not None and r.test_score is not None and r.calibration and r.test_calibration for r in found)


def test_plain_lesson_is_the_runs_own_full_training(run: Path) -> None:
    distilled(run, "--loss", "plain", "--model", student(run))
    (plain,) = taught(run)
    final = next(r for r in rows(run) if r.stage == "final" and r.id == plain.id)
    assert (plain.score, plain.test_score, plain.seed) == (final.score, final.test_score, final.seed)
    ours, theirs = load(run / plain.weights), load(run / final.weights)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_same_command_again_trains_nothing(run: Path, teacher: list[str]) -> None:
    first = distilled(run, *teacher, "--loss", "kd", "--model", student(run))
    before = (run / "candidates.jsonl").read_bytes()
    second = distilled(run, *teacher, "--loss", "kd", "--model", student(run))
    assert second.exit_code == 0, second.output
    assert (run / "candidates.jsonl").read_bytes() == before
    assert first.stdout == second.stdout


def test_scores_count_without_their_weights_and_that_is_said(run: Path) -> None:
    distilled(run, "--loss", "uskd", "--model", student(run))
    (row,) = taught(run)
    (run / row.weights).unlink()
    again = distilled(run, "--loss", "uskd", "--model", student(run))
    assert again.exit_code == 0, again.output
    assert "1 of 1 have their scores, and weights no more" in again.stderr
    assert taught(run) == [row]
    assert not (run / row.weights).exists()


def test_weights_lost_before_they_were_tested_are_trained_again(run: Path) -> None:
    distilled(run, "--loss", "uskd", "--model", student(run), "--sweep", "mu=0.1,0.2")
    untested = next(r for r in taught(run) if r.test_score is None)
    (run / untested.weights).unlink()
    mu = dict(untested.lesson.options if untested.lesson else {})["mu"]
    done = distilled(run, "--loss", "uskd", "--model", student(run), "--set", f"mu={mu}")
    assert done.exit_code == 0, done.output
    assert (run / untested.weights).exists()
    assert next(r for r in taught(run) if r.name == untested.name).test_score is not None


def test_first_training_of_a_seed_asks_the_teacher_and_those_without_one_come_next(run: Path, teacher: list[str]) -> None:
    asked = ["--loss", "plain", "--loss", "kd", "--loss", "nkd", "--loss", "uskd", "--seeds", "2", "--model", student(run)]
    done = distilled(run, *teacher, *asked)
    assert done.exit_code == 0, done.output
    trained = [r.lesson.loss for r in taught(run) if r.lesson]
    assert trained == ["kd", "plain", "uskd", "nkd"] * 2
    shown = pd.read_csv(run / "distilled-summary.csv")["lesson"]
    assert [x for x in shown if x in trained] == ["plain", "kd", "nkd", "uskd"]


def test_teacher_whose_file_has_another_name_teaches_the_same(run: Path, teacher: list[str], tmp_path: Path) -> None:
    distilled(run, *teacher, "--loss", "kd", "--model", student(run))
    before = (run / "candidates.jsonl").read_bytes()
    renamed = (tmp_path / "t.safetensors").rename(tmp_path / "renamed.safetensors")
    done = distilled(run, "--teacher", f"file:{renamed}", *teacher[2:], "--loss", "kd", "--model", student(run))
    assert done.exit_code == 0, done.output
    assert (run / "candidates.jsonl").read_bytes() == before


def test_distilled_student_is_exported_by_its_name(run: Path, tmp_path: Path) -> None:
    distilled(run, "--loss", "uskd", "--model", student(run))
    (row,) = taught(run)
    done = CliRunner().invoke(export, [str(run), "--model", row.name[:15], "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    model = onnx.load(tmp_path / "out" / f"{row.name}.onnx")
    plain = onnx.load(run / "models" / f"{row.id}.onnx")
    assert [n.op_type for n in model.graph.node] == [n.op_type for n in plain.graph.node]
    assert row.name in (tmp_path / "out" / "manifest.json").read_text()


def test_search_of_a_distilled_run_is_still_complete(run: Path) -> None:
    distilled(run, "--loss", "uskd", "--model", student(run))
    again = command("--config", run / "config.json", "--out", run)
    assert again.exit_code == 0, again.output
    assert "is complete" in again.stderr


def test_sweep_scores_only_the_best_on_test(run: Path, teacher: list[str]) -> None:
    done = distilled(run, *teacher, "--loss", "kd", "--model", student(run), "--sweep", "temperature=1,8", "--sweep", "weight=0.5,1")
    assert done.exit_code == 0, done.output
    found = taught(run)
    assert len(found) == 4
    tested = [r for r in found if r.test_score is not None]
    assert len(tested) == 1
    assert tested[0].score == max(r.score or 0.0 for r in found)


def test_online_teacher_takes_its_network_from_the_teachers_name(run: Path) -> None:
    done = distilled(run, "--teacher", "train:resnet20", "--loss", "bdkd", "--model", student(run))
    assert done.exit_code == 0, done.output
    (row,) = taught(run)
    assert row.lesson is not None
    assert (row.lesson.online, row.lesson.teacher) == ("resnet20", "")
    assert not (run / "teachers").exists()
    assert f"{row.id}: its online teacher scores 0." in done.stderr


def test_row_names_no_path_of_the_teachers_file(run: Path, teacher: list[str], tmp_path: Path) -> None:
    distilled(run, *teacher, "--loss", "kd", "--model", student(run))
    assert str(tmp_path) not in (run / "candidates.jsonl").read_text().splitlines()[-1]


def test_student_can_go_on_from_the_runs_weights(run: Path) -> None:
    done = distilled(run, "--loss", "plain", "--model", student(run), "--start", "run", "--lr", "1e-30")
    assert done.exit_code == 0, done.output
    (row,) = taught(run)
    final = next(r for r in rows(run) if r.stage == "final" and r.id == row.id)
    names = [n for n, _ in build(row.arch, device="meta").named_parameters()]
    ours, theirs = load(run / row.weights), load(run / final.weights)
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-6) for n in names)


def test_teacher_is_held_against_the_student_before_training(run: Path, teacher: list[str]) -> None:
    done = distilled(run, *teacher, "--loss", "kd", "--model", student(run))
    assert "parameters, normalisation task, " in done.stderr
    assert "warning: teacher" in done.stderr


def test_teacher_fed_otherwise_is_another_lesson(run: Path, teacher: list[str]) -> None:
    for norm in ("imagenet", "task"):
        done = distilled(run, *teacher[:-1], norm, "--loss", "kd", "--model", student(run))
        assert done.exit_code == 0, done.output
        assert "1 training to do, 0 done before" in done.stderr
        assert f"normalisation {norm}" in done.stderr
    assert len({r.name for r in taught(run)}) == 2


def test_students_that_began_with_other_weights_are_trained_again(run: Path) -> None:
    arguments = (run, "--loss", "plain", "--model", student(run), "--start", "run")
    assert "1 training to do" in distilled(*arguments).stderr
    assert "0 trainings to do, 1 done before" in distilled(*arguments).stderr
    path = weights_of(run)
    save({k: t * 1.5 if t.is_floating_point() else t for k, t in load(path).items()}, path)
    assert "1 training to do, 0 done before" in distilled(*arguments).stderr


def test_weights_to_start_from_that_are_gone_are_an_error(run: Path) -> None:
    weights_of(run).unlink()
    done = distilled(run, "--loss", "plain", "--model", student(run), "--start", "run")
    assert done.exit_code == 2
    assert f"the weights of {student(run)} are gone" in done.stderr


def test_training_of_a_sweep_is_tested_where_it_is_asked_for_by_itself(run: Path, teacher: list[str]) -> None:
    swept = distilled(run, *teacher, "--loss", "plain", "--loss", "kd", "--model", student(run), "--sweep", "temperature=1,8")
    assert swept.exit_code == 0, swept.output
    (untested,) = [r.lesson for r in taught(run) if r.test_score is None and r.lesson]
    setting = f"temperature={untested.options['temperature']}"
    again = distilled(run, *teacher, "--loss", "plain", "--loss", "kd", "--model", student(run), "--set", setting)
    assert again.exit_code == 0, again.output
    assert all(r.test_score is not None for r in taught(run))
    assert set(pd.read_csv(run / "distilled-summary.csv")["gain_on"].dropna()) == {"test"}
    assert "(valid)" not in again.stdout


def test_table_holds_every_training_of_the_run(run: Path, teacher: list[str]) -> None:
    distilled(run, "--loss", "plain", "--model", student(run))
    second = distilled(run, *teacher, "--loss", "kd", "--model", student(run))
    table, summary = pd.read_csv(run / "distilled.csv"), pd.read_csv(run / "distilled-summary.csv")
    assert set(table["loss"]) == set(summary["lesson"]) == {"plain", "kd"}
    assert summary.set_index("lesson")["gain_pairs"]["kd"] == 1
    assert "plain" not in second.stdout.partition("network")[2]


def test_trainings_with_another_recipe_are_not_compared(run: Path) -> None:
    for flags in (("plain", "--lr", "0.01"), ("plain", "--epochs", "2"), ("uskd", "--lr", "0.02")):
        done = distilled(run, "--loss", *flags, "--model", student(run))
        assert done.exit_code == 0, done.output
    summary = pd.read_csv(run / "distilled-summary.csv")
    assert len(summary) == 3
    assert summary["gain"].isna().all()
    assert "uskd, " not in done.stdout  # nothing to tell it from in what was asked for


def test_done_trainings_are_shown_without_their_weights(run: Path) -> None:
    distilled(run, "--loss", "uskd", "--model", student(run))
    (row,) = taught(run)
    (run / row.weights).unlink()
    shown = distilled(run, "--loss", "uskd", "--model", student(run), "--show")
    assert shown.exit_code == 0, shown.output
    assert "1 of 1 trainings are done" in shown.stderr
    assert "nas.export" not in shown.stderr


def test_table_holds_every_training(run: Path, teacher: list[str]) -> None:
    distilled(run, *teacher, "--loss", "plain", "--loss", "kd", "--loss", "bdkd", "--model", student(run))
    table = pd.read_csv(run / "distilled.csv")
    assert list(table["loss"]) == ["plain", "kd", "bdkd"]
    assert (run / "distilled-reliability.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--loss", "kd"], "error: --loss kd needs --teacher"),
        (["--loss", "kdd", "--teacher", "train:resnet20"], "did you mean 'kd'"),
        (["--loss", "kd", "--teacher", "train:resnet_20"], "did you mean 'resnet20'"),
        (["--loss", "bdkd", "--online-teacher", "resnet_20"], "did you mean 'resnet20'"),
        (["--loss", "kd", "--teacher", "torchvision:resnet18"], "knows 1000 classes"),
        (["--loss", "uskd", "--set", "mu=-1"], "mu must be at least 0"),
        (["--loss", "uskd", "--seeds", "0"], "--seeds must be at least 1"),
        (["--loss", "uskd", "--model", "zzz"], "unknown model"),
        (["--loss", "uskd", "--lr", "-1"], "lr must be above 0"),
    ],
)
def test_mistake_is_one_line_and_changes_nothing(run: Path, arguments: list[str], says: str) -> None:
    before = (run / "candidates.jsonl").read_bytes()
    done = distilled(run, *arguments)
    assert done.exit_code == 2, done.output
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert "Traceback" not in done.stderr
    assert (run / "candidates.jsonl").read_bytes() == before


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = distilled(tmp_path, "--loss", "uskd")
    assert done.exit_code == 2
    assert "is no run folder" in done.stderr


def test_pickled_teacher_is_refused(run: Path, tmp_path: Path) -> None:
    torch.save(reference("resnet20", outputs=3), tmp_path / "t.pth")
    done = distilled(run, "--loss", "kd", "--teacher", f"file:{tmp_path / 't.pth'}", "--teacher-arch", "resnet20")
    assert done.exit_code == 2
    assert "could run code" in done.stderr


def test_training_that_diverges_says_what_to_lower_and_leaves_a_failed_row(run: Path) -> None:
    done = distilled(run, "--loss", "uskd", "--model", student(run), "--set", "weight=1e38", "--lr", "1e20")
    assert done.exit_code == 1
    assert "lower the weight of the distillation" in done.stderr
    assert [r.status for r in taught(run)] == ["failed"]


def test_failed_training_is_tried_again(run: Path) -> None:
    distilled(run, "--loss", "uskd", "--model", student(run), "--set", "weight=1e38", "--lr", "1e20")
    again = distilled(run, "--loss", "uskd", "--model", student(run), "--set", "weight=1e38", "--lr", "1e20")
    assert "1 training to do" in again.stderr


@pytest.mark.slow
def test_killed_distillation_goes_on_where_it_was(run: Path) -> None:
    line = [sys.executable, "-m", "nas.distill", str(run), "--loss", "plain", "--loss", "uskd", "--seeds", "3", "--executor", "serial"]

    def process() -> subprocess.Popen[str]:
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=one_thread
        )

    kill_at(process(), lambda: len(taught(run)) >= 2, 240.0)
    kept = {r.name: r for r in taught(run)}
    assert len(kept) < 2 * 3 * len(load_run(run).front)
    done = distilled(*line[3:])
    assert done.exit_code == 0, done.output
    found = {r.name: r for r in taught(run)}
    assert len(found) == 2 * 3 * len(load_run(run).front)
    assert all(found[name] == row for name, row in kept.items())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_is_said_in_one_line_and_the_distillation_goes_on_when_there_is_room(run: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        parts = Path(shutil.copytree(run, small / "run"))
        weights_bytes = weights_of(parts).stat().st_size
        room = os.statvfs(small)
        (small / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - weights_bytes // 2))  # room for rows, but for no network
        line = ("--loss", "plain", "--loss", "uskd", "--model", student(run))
        full = distilled(parts, *line)
        assert full.exit_code == 1, full.output
        assert [line for line in full.stderr.splitlines() if "No space left on device" in line and line.startswith("error:")]
        assert "Traceback" not in full.stderr
        assert taught(parts) == []
        (small / "filler").unlink()
        again = distilled(parts, *line)
        assert again.exit_code == 0, again.output
        assert len(taught(parts)) == 2
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.slow
def test_ray_teaches_as_one_process_does(run: Path, teacher: list[str], tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    for out, executor in ((run, "serial"), (other, "ray")):
        done = distilled(out, *teacher, "--loss", "kd", "--loss", "bdkd", "--model", student(out), "--executor", executor, "--workers", "2")
        assert done.exit_code == 0, done.output
    assert {r.name: r.score for r in taught(run)} == {r.name: r.score for r in taught(other)}


def test_published_network_can_be_a_student_that_the_run_has_not(run: Path) -> None:
    done = distilled(run, "--loss", "uskd", "--model", "mobilenet_v2@0.1", "--model", student(run))
    assert done.exit_code == 0, done.output
    assert [r.baseline for r in taught(run)] == ["", "mobilenet_v2 x0.1"]


def test_published_network_has_no_weights_to_start_from(run: Path) -> None:
    done = distilled(run, "--loss", "plain", "--model", "mobilenet_v2@0.1", "--start", "run")
    assert done.exit_code == 2
    assert "--start run wants weights of the run" in done.stderr


def test_what_is_done_so_far_is_shown_with_partial_rows_and_nothing_is_trained(run: Path) -> None:
    one = (run, "--loss", "plain", "--loss", "uskd", "--model", student(run))
    distilled(*one, "--seeds", "2")
    before = (run / "candidates.jsonl").read_bytes()
    shown = distilled(*one, "--model", "mobilenet_v2@0.1", "--seeds", "3", "--show")
    assert shown.exit_code == 0, shown.output
    assert "4 of 12 trainings are done" in shown.stderr
    assert list(pd.read_csv(run / "distilled-summary.csv")["seeds"]) == [2, 2]
    assert (run / "candidates.jsonl").read_bytes() == before


def test_nothing_done_is_nothing_to_show(run: Path) -> None:
    for arguments in (("--loss", "uskd"), ("--loss", "kd", "--teacher", "train:resnet20")):
        done = distilled(run, *arguments, "--show")
        assert done.exit_code == 1
        assert "leave out --show" in done.stderr
    assert not (run / "teachers").exists()


def test_teacher_whose_outputs_are_not_finite_is_refused_before_training(run: Path, tmp_path: Path) -> None:
    network = reference("resnet20", outputs=3, generator=torch.Generator().manual_seed(0))
    network.load_state_dict({k: torch.full_like(t, -1.0) if k == "bn1.running_var" else t for k, t in network.state_dict().items()})
    save(network.state_dict(), tmp_path / "n.safetensors")
    done = distilled(run, "--loss", "kd", "--teacher", f"file:{tmp_path / 'n.safetensors'}", "--teacher-arch", "resnet20")
    assert done.exit_code == 2, done.output
    assert "not finite" in done.stderr
    assert not taught(run)
