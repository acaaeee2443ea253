"""Killed, interrupted or refused: nothing that was finished is lost, nothing is done twice, and the search goes on as if unbroken."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nas.config import RunConfig
from nas.store import Candidate
from tests.nas.small import command, config, ended, front, kill, kill_at, line_count, proposals, rows, saved, start, wait_until
from tests.nas.tasks.samples import write_npz

# sleep_ms gives a kill something to hit while the device measures
DEVICE = "fake:sleep_ms=5"


class Pair:
    """One configuration run twice: unbroken in ``whole``, and in ``parts`` however a test breaks it."""

    def __init__(self, folder: Path, **changed: Any) -> None:  # Any: values of any field
        self.whole, self.parts = folder / "whole", folder / "parts"
        self.config: RunConfig = config(folder, **({"devices": (DEVICE,), "sampler": "tpe"} | changed))
        self.file = saved(self.config, folder)

    def started(self, executor: str = "serial") -> subprocess.Popen[str]:
        return start("--config", self.file, "--out", self.parts, executor=executor)

    def finish(self) -> None:
        for out in (self.whole, self.parts):
            done = command("--config", self.file, "--out", out)
            assert done.exit_code == 0, done.output

    def check(self) -> None:
        """Both runs end alike, and the broken one did nothing twice."""
        self.finish()
        found = rows(self.parts)
        assert proposals(found) == proposals(rows(self.whole))
        assert front(self.parts).equals(front(self.whole))
        assert_nothing_twice(found)
        assert_no_leftovers(self.parts)


def assert_nothing_twice(found: list[Candidate]) -> None:
    numbers = [r.number for r in found if r.stage == "search"]
    assert len(set(numbers)) == len(numbers)
    for stage in ("search", "final"):
        trained = [r.id for r in found if r.stage == stage and r.status == "trained"]
        assert len(set(trained)) == len(trained)


def assert_no_leftovers(out: Path) -> None:
    strange = [p for p in out.rglob("*") if p.name.startswith(".") or p.name.endswith((".tmp", "journal.lock"))]
    assert [p.name for p in strange] == [".lock"]


def final_count(out: Path) -> int:
    return sum(r.stage == "final" for r in rows(out)) if out.exists() else 0


def test_search_killed_after_three_candidates_goes_on_as_an_unbroken_one(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    kill_at(pair.started(), lambda: line_count(pair.parts) >= 3)
    kept = rows(pair.parts)
    assert 3 <= len(kept) < 12
    pair.check()
    assert rows(pair.parts)[: len(kept)] == kept


def test_search_killed_at_the_start_of_the_finals_goes_on(tmp_path: Path) -> None:
    pair = Pair(tmp_path, sampler="nsga2")
    kill_at(pair.started(), lambda: (pair.parts / "baselines.json").exists())
    pair.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "count"),
    [("random", 0), ("tpe", 1), ("nsga2", 1), ("random", 4), ("tpe", 4), ("nsga2", 6), ("tpe", 8), ("nsga2", 8), ("random", 10)],
)
def test_search_killed_after_any_row_goes_on_as_an_unbroken_one(tmp_path: Path, sampler: str, count: int) -> None:
    # 0: as soon as there is a journal; 8 search rows, then 4 finals
    pair = Pair(tmp_path, sampler=sampler, max_ms=0.06)
    kill_at(pair.started(), lambda: line_count(pair.parts) >= count and (pair.parts / "study.journal").exists())
    pair.check()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.json", "environment.json", "front.csv", "front.png", "manifest.json"])
def test_search_killed_as_a_file_appears_goes_on(tmp_path: Path, file: str) -> None:
    pair = Pair(tmp_path)
    kill_at(pair.started(), lambda: (pair.parts / file).exists())
    pair.check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_search_killed_again_and_again_at_any_moment_goes_on(tmp_path: Path, seed: int) -> None:
    pair, rng = Pair(tmp_path, sampler=("random", "tpe", "nsga2")[seed % 3]), random.Random(seed)
    for _ in range(3):
        process = pair.started()
        # three seconds and more go by before the run folder is opened
        time.sleep(rng.uniform(2.0, 7.0))
        kill(process)
    pair.check()


@pytest.mark.parametrize("harm", ["deleted", "cut in mid-line", "lock left"])
def test_harm_to_the_journal_between_runs_changes_nothing(tmp_path: Path, harm: str) -> None:
    pair = Pair(tmp_path, trials=6)
    pair.config = config(tmp_path, devices=(DEVICE,), sampler="tpe", trials=6)
    first = command("--config", pair.file, "--out", pair.parts, "--trials", 3)
    assert first.exit_code == 0, first.output
    journal = pair.parts / "study.journal"
    if harm == "deleted":
        journal.unlink()
    elif harm == "cut in mid-line":
        os.truncate(journal, journal.stat().st_size * 2 // 3)
    else:
        Path(f"{journal}.lock").symlink_to(journal)
    pair.finish()
    by_number = {r.number: r.picks for r in rows(pair.whole) if r.number is not None}
    again = {r.number: r.picks for r in rows(pair.parts) if r.number is not None}
    # how long tpe draws at random depends on the trials, so only the picks of the three are its own
    assert {n: again[n] for n in range(3)} == {n: by_number[n] for n in range(3)}
    assert_nothing_twice(rows(pair.parts))


def test_torn_last_row_is_trained_again_and_alike(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    kill_at(pair.started(), lambda: line_count(pair.parts) >= 5)
    path = pair.parts / "candidates.jsonl"
    os.truncate(path, path.stat().st_size - 100)
    pair.check()


def test_broken_row_in_the_middle_is_refused_by_file_and_line(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    lines = (out / "candidates.jsonl").read_bytes().splitlines(keepends=True)
    (out / "candidates.jsonl").write_bytes(b"".join([lines[0], b"garbage\n", *lines[2:]]))
    done = command("--config", out / "config.json", "--out", out, "--trials", 9)
    assert done.exit_code == 2
    assert "candidates.jsonl:2: not a candidate" in done.stderr


@pytest.mark.parametrize("to", ["the process", "its group"])
def test_interrupted_search_ends_with_130_and_one_line_and_goes_on(tmp_path: Path, to: str) -> None:
    pair = Pair(tmp_path)
    process = pair.started()
    wait_until(lambda: line_count(pair.parts) >= 2, process)
    os.kill(process.pid, signal.SIGINT) if to == "the process" else os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    code, story = ended(process)
    assert time.monotonic() - began < 10
    assert code == 130
    assert story.splitlines()[-1] == "interrupted; what was finished is kept, and the same command goes on from there"
    assert "Traceback" not in story
    pair.check()


def test_second_search_in_a_folder_in_use_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    process = pair.started()
    wait_until(lambda: line_count(pair.parts) >= 1, process)
    second = command("--config", pair.file, "--out", pair.parts)
    was_running = process.poll() is None
    assert ended(process)[0] == 0
    assert was_running
    assert second.exit_code == 2
    assert second.stderr.startswith("error: ")
    assert "in use by another search" in second.stderr
    pair.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_is_said_in_one_line_and_the_search_goes_on_when_there_is_room(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.parts.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(pair.parts)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        full = command("--config", pair.file, "--out", pair.parts)
        assert full.exit_code == 1, full.output
        assert [line for line in full.stderr.splitlines() if "No space left on device" in line and line.startswith("error:")]
        assert "Traceback" not in full.stderr
        kept = rows(pair.parts)
        assert not [r for r in kept if r.status == "failed"]
        subprocess.run(["mount", "-o", "remount,size=64m", str(pair.parts)], check=True)
        pair.check()
        assert rows(pair.parts)[: len(kept)] == kept
    finally:
        subprocess.run(["umount", str(pair.parts)], check=True)


@pytest.mark.parametrize("changed", ["data", "space"])
def test_run_whose_data_or_space_changed_behind_its_name_is_refused(tmp_path: Path, changed: str) -> None:
    given = config(tmp_path)
    first = command("--config", saved(given, tmp_path), "--out", tmp_path / "run")
    assert first.exit_code == 0, first.output
    if changed == "data":
        write_npz(tmp_path / "small.npz", train=90, test=30)
    else:
        toml = tmp_path / "small.toml"
        toml.write_text(toml.read_text().replace("kernel = [3, 5]", "kernel = [3, 7]"))
    again = command("--config", tmp_path / "given.json", "--out", tmp_path / "run", "--trials", 9)
    assert again.exit_code == 2
    assert f"another content of the {changed}" in again.stderr
