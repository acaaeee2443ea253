"""Refinements that are compared with a search for the same latency, and that pass targets on the way to the last."""

from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from nas.store import Candidate, read_rows
from tests.nas.small import command, config, kill, saved, wait_until
from tests.nas.test_refine import refined, refused, refused_once_measured, started

# wide and short, so that the fake device's time is mostly multiply-accumulates
SPACE = """
[stem]
out_ch = 32
kernel = 3

[[stages]]
name = "a"
out_ch = 32
depth = 2
op = ["mbconv3", "mbconv4"]
kernel = [3, 5]
width = [0.25, 0.5, 0.75, 1.0]

[[stages]]
name = "b"
out_ch = 48
stride = 2
op = ["mbconv3", "mbconv4"]
width = [0.25, 0.5, 0.75, 1.0]
"""
TWICE = ("--target-ratio", 0.7, "--target-ratio", 0.9)
FLAGS = ("--delta", 0.1, "--steps", 2, "--held-out", 18, "--final-epochs", 1, "--epochs", 1)
SERIAL = ("--executor", "serial")


def searched(out: Path) -> list[Candidate]:
    """The search's candidates that were trained."""
    return [r for r in read_rows(out / "candidates.jsonl") if r.stage == "search" and r.status == "trained"]


def p50_ms(row: Candidate) -> float:
    assert row.latency is not None
    return row.latency.p50_ms


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of two candidates."""
    folder = tmp_path_factory.mktemp("wide")
    small = config(folder, SPACE, trials=2, round_size=2, front_size=2, baselines=("mobilenet_v3_small_minimal",))
    done = command("--config", saved(small, folder), "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture(scope="module")
def flags(run: Path) -> tuple[object, ...]:
    """From the slower of the two, so that the space has many networks at the target."""
    slowest = max((r for r in read_rows(run / "candidates.jsonl") if r.stage == "search"), key=p50_ms)
    return (run, "--model", slowest.id, *TWICE, *FLAGS, *SERIAL, "--out", run / "out")


@pytest.fixture(scope="module")
def result(flags: tuple[object, ...]) -> Result:
    return refined(*flags, "--search", 2)


@pytest.fixture(scope="module")
def out(run: Path, result: Result) -> Path:
    assert result.exit_code == 0, result.output
    return run / "out"


def test_candidates_of_the_search_take_as_long_as_the_paths_last_network(out: Path) -> None:
    last = [r for r in read_rows(out / "candidates.jsonl") if r.stage == "refine"][-1]
    found = searched(out)
    assert len(found) == 2
    assert all(abs(p50_ms(r) / p50_ms(last) - 1) <= 0.05 for r in found)
    assert {(r.latency_source, r.score_source, r.epochs) for r in found} == {("measured", "alone", 1)}


def test_what_is_away_from_that_latency_is_not_trained(out: Path) -> None:
    others = [r for r in read_rows(out / "candidates.jsonl") if r.stage == "search" and r.status == "infeasible"]
    assert others
    assert {(r.score, r.weights, r.seconds) for r in others} == {(None, "", 0.0)}


def test_best_of_the_search_are_trained_as_the_path_is(out: Path) -> None:
    table = pd.read_csv(out / "path.csv")
    best = table[table["series"] == "searched"]
    assert set(best["id"]) == {r.id for r in searched(out)}
    assert best[["valid_score", "test_score", "latency_p50_ms"]].notna().all(axis=None)
    assert set(best["epochs"]) == set(table[table["series"] == "refined"]["epochs"])
    assert best["label"].str.fullmatch(r"search \d+").all()


def test_search_is_part_of_the_plan_and_its_outcome_is_said(result: Result) -> None:
    assert "then 2 networks of a search for the latency reached for 1 epochs" in result.stderr
    assert "then 8 networks for 1 epochs" in result.stderr  # last tuned, seed, two of the path, two scaled, two of the search
    assert "the search found 2 networks near enough" in result.stderr


def test_network_at_each_target_is_trained_in_full(out: Path) -> None:
    seed, *steps = [r for r in read_rows(out / "candidates.jsonl") if r.stage == "refine"]
    at = [next(r for r in steps if p50_ms(r) <= ratio * p50_ms(seed)).id for ratio in (0.9, 0.7)]
    table = pd.read_csv(out / "path.csv")
    assert list(table[table["series"] == "refined"]["id"]) == at
    assert steps[-1].id == at[-1]


def test_more_can_be_searched_later_but_not_less(flags: tuple[object, ...], out: Path) -> None:
    before = read_rows(out / "candidates.jsonl")
    assert "search is 2 there, 1 here" in refused(refined(*flags, "--search", 1))
    done = refined(*flags, "--search", 3)
    assert done.exit_code == 0, done.output
    assert len(searched(out)) == 3
    assert "no more steps: the target is reached" in done.stderr
    assert "then 1 networks of a search" in done.stderr
    assert "then 1 networks for 1 epochs" in done.stderr
    assert read_rows(out / "candidates.jsonl")[: len(before)] == before
    assert "is complete" in refined(*flags, "--search", 3).stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--target-ratio", 0.5, "--search", -1], "--search must not be negative, got -1"),
        ([*TWICE, "--members", 2], "--members belongs to one target"),
        (["--target-ratio", 0.5, "--target-ratio", 1.5], "each --target-ratio must lie below 1, got (1.5,)"),
        (["--target-ratio", 0.5, "--target-ms", 1], "a refinement needs one of --target-ms and --target-ratio"),
    ],
)
def test_mistake_in_the_flags_is_one_line(run: Path, flags: list[object], said: str) -> None:
    assert said in refused(refined(run, *flags))


def test_target_on_the_way_above_the_seed_is_refused_before_work(run: Path, tmp_path: Path) -> None:
    said = refused_once_measured(refined(run, "--target-ms", 0.1, "--target-ms", 100, *FLAGS, *SERIAL, "--out", tmp_path / "out"))
    assert said.startswith("--target-ms 100 is no less than what ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_search_around_a_seed_without_a_space_goes_on_after_a_kill(out: Path, tmp_path: Path) -> None:
    flags = (out, "--target-ratio", 0.85, *FLAGS, "--members", 1, "--search", 2, "--out")
    whole, again = tmp_path / "whole", tmp_path / "again"
    done = refined(*flags, whole, *SERIAL)
    assert done.exit_code == 0, done.output
    assert "2 networks of what can be changed of the seed within 5%" in done.stderr
    process = started(*flags, again)
    wait_until(lambda: len(searched(again)) >= 1, process, 240)
    kill(process)
    done = refined(*flags, again, *SERIAL)
    assert done.exit_code == 0, done.output
    assert [(r.id, r.score, r.picks) for r in searched(again)] == [(r.id, r.score, r.picks) for r in searched(whole)]
    ours, theirs = (pd.read_csv(folder / "path.csv").drop(columns=["problems"]) for folder in (again, whole))
    assert ours.equals(theirs)
