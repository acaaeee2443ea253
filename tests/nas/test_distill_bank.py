"""``python -m nas.distill --start bank``: students that begin with what they inherit."""

import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import CliRunner, Result

from nas.distill import main
from nas.models import build
from nas.sharing.bank import inherit
from nas.sharing.bank_file import load_bank, save_bank
from nas.sharing.inherited import kept_bank
from nas.store import load_run
from nas.weights import load
from tests.nas.small import rows


@pytest.fixture
def run(inherited: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(inherited, tmp_path / "run"))


def distilled(run: Path, *arguments: object) -> Result:
    plain = (run, "--loss", "plain", "--start", "bank", "--lr", "1e-30", *arguments)
    return CliRunner().invoke(main, [str(a) for a in plain])


def stamped(run: Path, **changed: str) -> None:
    """Gives the run's bank another stamp."""
    path = run / "bank.safetensors"
    stamp, notes, groups = load_bank(path)
    save_bank(path, msgspec.structs.replace(stamp, **changed), notes, groups)


def student(run: Path) -> str:
    return str(load_run(run).front["id"].iloc[0])


def test_student_with_fresh_weights_needs_no_space(run: Path, tmp_path: Path) -> None:
    config = run / "config.json"
    config.write_text(config.read_text().replace(load_run(run).config.space, str(tmp_path / "gone.toml")))
    done = CliRunner().invoke(main, [str(a) for a in (run, "--loss", "plain", "--model", student(run))])
    assert done.exit_code == 0, done.output


def test_student_begins_with_what_it_inherits(run: Path) -> None:
    done = distilled(run, "--model", student(run))
    assert done.exit_code == 0, done.output
    (row,) = (r for r in rows(run) if r.stage == "distill")
    assert row.lesson is not None
    assert row.lesson.start == "bank"
    begun = inherit(kept_bank(str(run / "bank.safetensors"), "cpu"), row.arch).state_dict()
    ours = load(run / row.weights)
    # a rate of 1e-30 moves nothing but the statistics of BatchNorm
    assert all(torch.allclose(ours[name], begun[name], atol=1e-6) for name, _ in build(row.arch, device="meta").named_parameters())


def test_candidate_that_was_never_trained_by_itself_can_begin_so(run: Path) -> None:
    trained = {r.id for r in rows(run) if r.stage == "final"}
    bare = next(r.id for r in rows(run) if r.status == "trained" and r.id not in trained)
    assert distilled(run, "--model", bare).exit_code == 0


def test_another_bank_is_another_beginning(run: Path) -> None:
    distilled(run, "--model", student(run))
    assert "0 trainings to do, 1 done before" in distilled(run, "--model", student(run)).stderr
    path = run / "bank.safetensors"
    stamp, notes, groups = load_bank(path)
    save_bank(path, stamp, notes, {group: {name: t * 1.5 for name, t in bank.items()} for group, bank in groups.items()})
    assert "1 training to do, 0 done before" in distilled(run, "--model", student(run)).stderr


def test_bank_of_renamed_data_is_the_same(run: Path) -> None:
    stamped(run, data="npz:elsewhere.npz")
    assert distilled(run, "--model", student(run)).exit_code == 0


@pytest.mark.parametrize(("changed", "said"), [
    ({"data": "npz:other.npz", "data_sha256": "0" * 64}, "of the data set npz:other.npz, not"),
    ({"space": "tiny x1 at 3x8x8", "space_sha256": "0" * 64}, "of the space tiny x1 at 3x8x8, not"),
])  # fmt: skip
def test_bank_of_another_run_is_refused_by_name(run: Path, changed: dict[str, str], said: str) -> None:
    stamped(run, **changed)
    done = distilled(run, "--model", student(run))
    assert done.exit_code == 2
    assert said in done.stderr


def test_run_without_a_bank_is_an_error(run: Path) -> None:
    (run / "bank.safetensors").unlink()
    done = distilled(run, "--model", student(run))
    assert done.exit_code == 2
    assert "has no bank.safetensors; runs with --evaluate inherited have one" in done.stderr


def test_missing_bank_is_said_before_a_teacher_is_trained(run: Path) -> None:
    (run / "bank.safetensors").unlink()
    arguments = (run, "--loss", "kd", "--teacher", "train:resnet20", "--start", "bank", "--model", student(run))
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 2
    assert "has no bank.safetensors" in done.stderr
    assert not (run / "teachers").exists()


def test_showing_makes_no_weights(run: Path) -> None:
    distilled(run, "--model", student(run))
    shutil.rmtree(run / "weights")
    done = distilled(run, "--model", student(run), "--loss", "uskd", "--show")
    assert "1 of 2 trainings are done" in done.stderr
    assert not (run / "weights").exists()


def test_half_trained_bank_is_an_error(run: Path) -> None:
    path = run / "bank.safetensors"
    stamp, notes, groups = load_bank(path)
    save_bank(path, stamp, msgspec.structs.replace(notes, step=1), groups)
    done = distilled(run, "--model", student(run))
    assert done.exit_code == 2
    assert f"trained for 1 of {notes.steps} steps" in done.stderr


def test_published_network_has_nothing_to_inherit(run: Path) -> None:
    done = distilled(run, "--model", "mobilenet_v2@0.1")
    assert done.exit_code == 2
    assert "--start bank wants weights of the run" in done.stderr
    assert "name its id" not in done.stderr  # the bank has nothing for it either


def test_network_of_another_space_cannot_inherit(run: Path) -> None:
    other = next(r for r in rows(run) if r.stage == "final" and r.baseline)
    done = distilled(run, "--model", other.id)
    assert done.exit_code == 2
    assert "it is no member of the bank's space" in done.stderr
    assert not any(r.stage == "distill" for r in rows(run))
