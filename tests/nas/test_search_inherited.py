"""``python -m nas.search --evaluate inherited`` from flags to files."""

import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from nas.export import main as export
from nas.jobs import plan_for
from nas.recipe import BankPlan
from nas.sharing.bank_file import load_bank
from nas.sharing.inherited import inherited_score, kept_bank
from tests.nas.small import RECIPE, command, ended, front, inheriting, kill_at, line_count, opened, proposals, rows, saved, start


@pytest.fixture
def run(inherited: Path) -> Path:
    return inherited


def test_every_candidates_score_is_the_one_it_inherits_from_the_runs_bank(run: Path) -> None:
    task, _ = opened(inheriting(run.parent))
    bank = kept_bank(str(run / "bank.safetensors"), "cpu")
    found = [r for r in rows(run) if r.stage == "search" and r.status == "trained"]
    assert len(found) == 8
    for row in found:
        assert (row.score_source, row.epochs, row.weights) == ("inherited", 0, "")
        assert row.score == inherited_score(bank, row.arch, task)


def test_front_and_baselines_are_trained_for_real(run: Path) -> None:
    finals = [r for r in rows(run) if r.stage == "final"]
    assert len(finals) == len(front(run)) >= 3
    assert {(r.score_source, r.epochs) for r in finals} == {("full", 1)}
    assert all((run / r.weights).is_file() and r.test_score is not None for r in finals)


def test_candidate_without_weights_of_its_own_cannot_be_exported(run: Path) -> None:
    trained = {r.id for r in rows(run) if r.stage == "final"}
    bare = next(r.id for r in rows(run) if r.status == "trained" and r.id not in trained)
    done = CliRunner().invoke(export, [str(run), "--model", bare])
    assert done.exit_code == 2
    assert f"{bare} has no weights of its own: it was scored with inherited ones" in done.stderr


@pytest.mark.parametrize(("flag", "value"), [("--bank-epochs", 4), ("--evaluate", "alone")])
def test_run_does_not_go_on_with_another_bank_or_none(run: Path, flag: str, value: object) -> None:
    done = command("--config", run / "config.json", "--out", run, "--trials", 9, flag, value)
    assert done.exit_code == 2
    assert f"{flag.removeprefix('--').replace('-', '_')} is" in done.stderr


def test_more_trials_go_on_with_the_same_bank(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    before = (tmp_path / "run" / "bank.safetensors").read_bytes()
    done = command("--config", run / "config.json", "--out", tmp_path / "run", "--trials", 10)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "bank.safetensors").read_bytes() == before
    assert sum(r.score_source == "inherited" for r in rows(tmp_path / "run")) == 10


def test_bank_that_is_gone_is_said_where_another_would_score_otherwise(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "bank.safetensors").unlink()
    before = (tmp_path / "run" / "candidates.jsonl").read_bytes()
    done = command("--config", run / "config.json", "--out", tmp_path / "run", "--trials", 9)
    assert done.exit_code == 1
    assert "bank.safetensors is gone: 8 candidates have scores by it" in done.stderr
    assert not (tmp_path / "run" / "bank.safetensors").exists()
    assert (tmp_path / "run" / "candidates.jsonl").read_bytes() == before


def test_finished_search_wants_no_bank(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "bank.safetensors").unlink()
    done = command("--config", run / "config.json", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "run" / "bank.safetensors").exists()


def test_bank_that_diverges_ends_the_run_with_advice(tmp_path: Path) -> None:
    hot = msgspec.structs.replace(RECIPE, lr=1e30, clip_norm=0.0)
    done = command("--config", saved(inheriting(tmp_path, bank=BankPlan(recipe=hot)), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 1
    assert "error: the bank diverged at step" in done.stderr
    assert "lower lr of its recipe (1e+30)" in done.stderr
    assert rows(tmp_path / "run") == []


def test_banks_recipe_takes_bank_epochs_and_warms_up_for_at_most_half_of_them(tmp_path: Path) -> None:
    given = inheriting(tmp_path, bank=BankPlan(recipe=msgspec.structs.replace(RECIPE, epochs=9, warmup_epochs=4.0)), bank_epochs=2)
    assert (plan_for(given).recipe.epochs, plan_for(given).recipe.warmup_epochs) == (2, 1.0)


@pytest.mark.slow
def test_search_killed_while_it_scores_goes_on_as_an_unbroken_one_with_the_same_bank(tmp_path: Path) -> None:
    # sleep_ms gives a kill something to hit
    file = saved(inheriting(tmp_path, devices=("fake:sleep_ms=5",)), tmp_path)
    kill_at(start("--config", file, "--out", tmp_path / "parts"), lambda: line_count(tmp_path / "parts") >= 3)
    bank = (tmp_path / "parts" / "bank.safetensors").read_bytes()
    for out in ("parts", "whole"):
        done = command("--config", file, "--out", tmp_path / out)
        assert done.exit_code == 0, done.output
    assert (tmp_path / "parts" / "bank.safetensors").read_bytes() == bank
    assert proposals(rows(tmp_path / "parts")) == proposals(rows(tmp_path / "whole"))
    assert front(tmp_path / "parts").equals(front(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_search_on_ray_gives_the_scores_of_the_serial_one(tmp_path: Path) -> None:
    file = saved(inheriting(tmp_path), tmp_path)
    for executor in ("ray", "serial"):
        code, story = ended(start("--config", file, "--out", tmp_path / executor, executor=executor), 300)
        assert code == 0, story
    assert load_bank(tmp_path / "ray" / "bank.safetensors")[1] == load_bank(tmp_path / "serial" / "bank.safetensors")[1]
    assert proposals(rows(tmp_path / "ray")) == proposals(rows(tmp_path / "serial"))
