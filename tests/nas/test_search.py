"""``python -m nas.search`` from flags to files."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from latency import Failed, open_device
from latency.onnx_graph import emit
from nas import train
from nas.evaluate import logits_of_onnx
from nas.measuring import Meter
from nas.objective import reward as rewarded
from nas.store import load_run
from nas.tasks import npz, open_task
from nas.tasks.dataset import Images
from search_spaces import baseline
from tests.nas.small import TWO_NETWORKS, command, config, front, kill_at, line_count, opened, proposals, rows, saved, start, write_inputs

COLUMNS = "id,baseline,valid_score,test_score,latency_p50_ms,latency_low_ms,latency_high_ms,macs,params"


def test_run_leaves_every_file_it_promises(finished: Path) -> None:
    for name in ("config.json", "environment.json", "candidates.jsonl", "front.csv", "manifest.json", "front.png"):
        assert (finished / name).stat().st_size > 0
    for final in (r for r in rows(finished) if r.stage == "final"):
        assert (finished / "models" / f"{final.id}.onnx").exists()
        assert (finished / "models" / f"{final.id}.safetensors").exists()


def test_front_begins_with_the_promised_columns(finished: Path) -> None:
    assert (finished / "front.csv").read_text().startswith(COLUMNS)


def test_front_holds_every_final_once_the_found_ones_first(finished: Path) -> None:
    table = pd.read_csv(finished / "front.csv", dtype={"id": str})
    assert sorted(table["id"]) == sorted({r.id for r in rows(finished) if r.stage == "final"})
    assert list(table["baseline"].notna()) == sorted(table["baseline"].notna())


def test_found_members_of_the_front_are_the_searchs_unbeaten_candidates(finished: Path) -> None:
    found = [r for r in rows(finished) if r.stage == "search" and r.status == "trained"]
    points = {r.id: (r.score or 0.0, r.latency.p50_ms if r.latency else 0.0) for r in found}
    unbeaten = {i for i, (s, ms) in points.items() if not any(a >= s and b <= ms and (a, b) != (s, ms) for a, b in points.values())}
    assert set(load_run(finished).front["id"]) <= unbeaten


def test_on_front_marks_what_nothing_in_the_table_beats(finished: Path) -> None:
    table = pd.read_csv(finished / "front.csv")
    for row in table.itertuples():
        others = table[(table.valid_score >= row.valid_score) & (table.latency_p50_ms <= row.latency_p50_ms)]
        assert row.on_front == (len(others) == 1)


def test_manifest_says_the_hash_of_each_file(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    assert len(manifest["models"]) == len(front(finished))
    for entry in manifest["models"]:
        assert entry["sha256"] == hashlib.sha256((finished / entry["file"]).read_bytes()).hexdigest()
        assert not Path(entry["file"]).is_absolute()


def test_models_fed_as_the_manifest_says_score_what_is_reported(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    split = open_task("classify", manifest["data"]["spec"]).load("valid")
    how = manifest["input"]["preprocess"]
    mean, std = (np.asarray(how[k], dtype=np.float32).reshape(1, -1, 1, 1) for k in ("mean", "std"))
    x = ((split.x.numpy().astype(np.float32) / 255 - mean) / std).astype(np.float32)
    for entry in manifest["models"]:
        logits = logits_of_onnx((finished / entry["file"]).read_bytes(), x)
        right = int((logits.argmax(1) == split.y.numpy()).sum())
        # an image on the border between two classes may fall to the other side
        assert abs(right - entry["valid_score"] * len(x)) <= 1


def test_environment_says_versions_processor_commit_and_data(finished: Path) -> None:
    facts = json.loads((finished / "environment.json").read_text())
    assert facts["packages"]["torch"]
    assert facts["python"]
    assert facts["cpu"]
    assert facts["data"]["sha256"] == open_task("classify", facts["data"]["spec"]).data_sha256
    assert facts["timing_plan"]["threads"] == 1


def test_finals_are_trained_alike_with_the_full_recipe(finished: Path) -> None:
    finals = [r for r in rows(finished) if r.stage == "final"]
    assert {r.epochs for r in finals} == {1}
    assert len({r.seed for r in finals}) == 1
    assert {r.score_source for r in finals} == {"full"}
    assert all(r.test_score is not None for r in finals)


def test_no_search_row_has_a_test_score(finished: Path) -> None:
    assert {r.test_score for r in rows(finished) if r.stage == "search"} == {None}


def test_test_pixels_are_opened_once_for_each_final_and_never_by_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, opens, read = tmp_path / "run", list[int](), npz._test

    def counted(path: Path, y: Any) -> Images:  # Any: an array
        opens.append(sum(r.stage == "search" for r in rows(out)))
        return read(path, y)

    monkeypatch.setattr(npz, "_test", counted)
    done = command("--config", saved(config(tmp_path, trials=4), tmp_path), "--out", out)
    assert done.exit_code == 0, done.output
    searched, finals = (sum(r.stage == stage for r in rows(out)) for stage in ("search", "final"))
    assert opens == [searched] * finals


def test_story_states_plan_and_time_and_ends_with_the_next_command(tmp_path: Path) -> None:
    done = command("--config", saved(config(tmp_path, trials=4), tmp_path), "--out", tmp_path / "run")
    assert {"space", "data", "device", "plan", "time"} <= {line.partition(" ")[0] for line in done.stderr.splitlines()}
    assert done.stderr.splitlines()[-1].startswith("next: ")
    assert "python -m nas.export" in done.stderr.splitlines()[-1]


def test_table_goes_to_stdout_and_the_story_to_stderr(tmp_path: Path) -> None:
    done = command("--config", saved(config(tmp_path, trials=4), tmp_path), "--out", tmp_path / "run")
    assert all(row_id in done.stdout for row_id in front(tmp_path / "run")["id"])
    assert "plan" not in done.stdout


def test_same_seed_gives_the_same_rows_and_the_same_front(finished: Path, tmp_path: Path) -> None:
    again = command("--config", finished / "config.json", "--out", tmp_path / "run")
    assert again.exit_code == 0, again.output
    assert proposals(rows(tmp_path / "run")) == proposals(rows(finished))
    assert front(tmp_path / "run").equals(front(finished))


def test_other_seed_gives_other_proposals(finished: Path, tmp_path: Path) -> None:
    command("--config", finished / "config.json", "--seed", 3, "--out", tmp_path / "run")
    assert [r.picks for r in rows(tmp_path / "run")[:8]] != [r.picks for r in rows(finished)[:8]]


def test_complete_run_is_shown_again_and_not_run_again(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    done = command("--config", finished / "config.json", "--out", finished)
    assert done.exit_code == 0
    assert "is complete" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_more_trials_take_a_complete_run_further(tmp_path: Path) -> None:
    file, out = saved(config(tmp_path, trials=4), tmp_path), tmp_path / "run"
    command("--config", file, "--out", out)
    first = rows(out)
    done = command("--config", file, "--trials", 7, "--out", out)
    assert done.exit_code == 0, done.output
    assert rows(out)[: len(first)] == first
    assert sum(r.stage == "search" and r.status == "trained" for r in rows(out)) == 7


def test_small_space_ends_with_a_sentence_and_a_front(tmp_path: Path) -> None:
    done = command("--config", saved(config(tmp_path, TWO_NETWORKS, trials=4), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "proposals gave 2 candidates to train" in done.stderr
    assert sum(r.stage == "search" and r.status == "trained" for r in rows(tmp_path / "run")) == 2


def test_budget_that_is_used_up_still_gives_a_front(tmp_path: Path) -> None:
    given = saved(config(tmp_path, trials=4), tmp_path)
    command("--config", given, "--out", tmp_path / "run", "--trials", 2)
    done = command("--config", given, "--out", tmp_path / "run", "--budget", "1s")
    assert done.exit_code == 0, done.output
    assert "the budget's time for searching is used" in done.stderr


@pytest.mark.parametrize("reward", ["soft", "hard", "abs"])
def test_scalar_rewards_search_and_keep_their_best_in_the_front(tmp_path: Path, reward: str) -> None:
    given = config(tmp_path, reward=reward, target_ms=0.05, trials=4, front_size=1, sampler="tpe")
    done = command("--config", saved(given, tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    found = [r for r in rows(tmp_path / "run") if r.stage == "search" and r.status == "trained"]
    best = max(rewarded(given, r.score or 0.0, r.latency.p50_ms if r.latency else 0.0) for r in found)
    (member,) = load_run(tmp_path / "run").front["id"]
    assert [rewarded(given, r.score or 0.0, r.latency.p50_ms if r.latency else 0.0) for r in found if r.id == member] == [best]


def test_flags_alone_say_everything(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    done = command(
        "--space", inputs["space"], "--data", inputs["data"], "--device", "fake", "--executor", "serial", "--sampler", "nsga2",
        "--epochs", 1, "--final-epochs", 1, "--trials", 3, "--front-size", 1, "--baseline", "mnasnet_small", "--baseline-widths", 1,
        "--max-ms", 0.2, "--seed", 7, "--budget", "10m", "--workers", 1, "--train-images", 60, "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    kept = load_run(tmp_path / "run").config
    assert (kept.sampler, kept.max_ms, kept.seed, kept.budget_s, kept.baselines) == ("nsga2", 0.2, 7, 600.0, ("mnasnet_small",))


@pytest.mark.parametrize(
    ("device", "expected"),
    [("fake:fail=5", 0), ("fake:fail=1", 1), ("fake:lost=6", 0), ("fake:lost=3", 1)],
    ids=["some fail", "all fail", "lost and back", "lost again and again"],
)
def test_device_in_trouble_ends_in_a_line_or_a_front(tmp_path: Path, device: str, expected: int) -> None:
    done = command("--config", saved(config(tmp_path, devices=(device,)), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == expected, done.output
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == expected
    assert "Traceback" not in done.stderr


def test_baselines_that_the_device_cannot_run_are_named(tmp_path: Path) -> None:
    device, widths = "fake:fail=5", (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # every fifth model cannot be run
    given = config(tmp_path, devices=(device,), baselines=tuple(f"mobilenet_v2@{w:g}" for w in widths))
    done = command("--config", saved(given, tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    task, _ = opened(given)
    models = {f"mobilenet_v2 x{w:g}": emit(baseline("mobilenet_v2", width=w, input_chw=task.input_chw, outputs=3)) for w in widths}
    unable = {name for name, model in models.items() if isinstance(Meter(open_device(device)).time([model])[0], Failed)}
    assert unable
    said = next(line for line in done.stderr.splitlines() if "the device cannot run" in line)
    assert {name for name in models if f"{name}," in said or f"{name}:" in said} == unable


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Makes the trainings fail whose number, counted from 1, a function picks."""

    def install(fails: Callable[[int], bool]) -> None:
        real, calls = train.fit, list[int]()

        def fit(*given: Any, **named: Any) -> Any:  # Any: fit's own
            calls.append(1)
            if fails(len(calls)):
                raise MemoryError(f"training {len(calls)} wants too much")
            return real(*given, **named)

        monkeypatch.setattr(train, "fit", fit)

    return install


def test_training_out_of_memory_is_a_failed_row_and_the_search_goes_on(
    tmp_path: Path, breaking: Callable[[Callable[[int], bool]], None]
) -> None:
    breaking(lambda call: call == 2)
    done = command("--config", saved(config(tmp_path, trials=5), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    failed = [r for r in rows(tmp_path / "run") if r.status == "failed" and r.duplicate_of is None]
    assert len(failed) == 1
    assert failed[0].error.startswith("Traceback")
    assert "MemoryError: training 2 wants too much" in failed[0].error


def test_three_failures_in_a_row_end_the_search_with_one_line(tmp_path: Path, breaking: Callable[[Callable[[int], bool]], None]) -> None:
    breaking(lambda call: call in (2, 3, 4))
    done = command("--config", saved(config(tmp_path), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 3 candidates in a row failed, the last with: MemoryError: training 4 wants too much")
    assert "Traceback" not in done.stderr


def test_final_that_fails_is_named_and_missing_from_the_front(tmp_path: Path, breaking: Callable[[Callable[[int], bool]], None]) -> None:
    breaking(lambda call: call == 5)
    done = command("--config", saved(config(tmp_path, trials=4), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "failed and is missing: MemoryError: training 5 wants too much" in done.stderr
    missing = {r.id for r in rows(tmp_path / "run") if r.stage == "final" and r.status == "failed"}
    assert len(missing) == 1
    assert not missing & set(front(tmp_path / "run")["id"])


def test_every_final_failing_ends_with_one_line_and_can_be_resumed(
    tmp_path: Path, breaking: Callable[[Callable[[int], bool]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = saved(config(tmp_path, trials=4), tmp_path), tmp_path / "run"
    breaking(lambda call: call > 4)
    done = command("--config", file, "--out", out)
    assert done.exit_code == 1
    assert "every full training failed" in done.stderr.splitlines()[-1]
    monkeypatch.undo()
    assert command("--config", file, "--out", out).exit_code == 0


@pytest.mark.slow
def test_overlapping_rounds_resume_with_the_same_proposals(tmp_path: Path) -> None:
    given = config(tmp_path, overlap="on", sampler="tpe")
    file = saved(given, tmp_path)
    command("--config", file, "--out", tmp_path / "whole")
    kill_at(start("--config", file, "--out", tmp_path / "run"), lambda: line_count(tmp_path / "run") >= 5)
    assert command("--config", file, "--out", tmp_path / "run").exit_code == 0
    assert proposals(rows(tmp_path / "run")) == proposals(rows(tmp_path / "whole"))


@pytest.mark.slow
def test_search_on_this_computer_measures_with_an_interval(tmp_path: Path) -> None:
    done = command("--config", saved(config(tmp_path, devices=("local",), trials=3), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    table = front(tmp_path / "run")
    assert ((table.latency_low_ms <= table.latency_p50_ms) & (table.latency_p50_ms <= table.latency_high_ms)).all()
