"""The same search with its trainings on Ray workers."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.nas.small import config, ended, front, kill, line_count, proposals, rows, saved, start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train: Ray's actors in the search's own session tree."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes()
            if title.startswith(b"ray::ResourceTrainable") and process.pid in _ancestors(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1:
        pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        found.add(pid)
    return found


def test_search_on_ray_gives_the_rows_of_the_serial_one(tmp_path: Path) -> None:
    file = saved(config(tmp_path, sampler="tpe"), tmp_path)
    for executor in ("ray", "serial"):
        process = start("--config", file, "--out", tmp_path / executor, executor=executor)
        code, story = ended(process, 300)
        assert code == 0, story
    assert proposals(rows(tmp_path / "ray")) == proposals(rows(tmp_path / "serial"))
    assert front(tmp_path / "ray").equals(front(tmp_path / "serial"))


def test_worker_killed_from_outside_is_a_failed_row_and_the_search_goes_on(tmp_path: Path) -> None:
    file, out = saved(config(tmp_path, epochs=15, trials=4, workers=1), tmp_path), tmp_path / "run"
    process = start("--config", file, "--out", out, executor="ray")
    wait_until(lambda: line_count(out) >= 1, process, 240)
    time.sleep(0.2)
    (worker, *_) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    code, story = ended(process, 300)
    assert code == 0, story
    failed = [r for r in rows(out) if r.status == "failed"]
    assert len(failed) == 1
    assert "worker's process was lost" in failed[0].error


@pytest.mark.parametrize("to", ["the process", "its group"])
def test_interrupted_search_on_ray_ends_with_130_and_goes_on(tmp_path: Path, to: str) -> None:
    file, out = saved(config(tmp_path, epochs=5, trials=6, workers=1), tmp_path), tmp_path / "run"
    process = start("--config", file, "--out", out, executor="ray")
    wait_until(lambda: line_count(out) >= 2, process, 240)
    os.kill(process.pid, signal.SIGINT) if to == "the process" else os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    code, story = ended(process)
    assert time.monotonic() - began < 20
    assert code == 130, story
    assert story.splitlines()[-1].startswith("interrupted; what was finished is kept")
    assert "Traceback" not in story
    kept = rows(out)
    assert not [r for r in kept if r.status == "failed"]
    again = start("--config", file, "--out", out)
    code, story = ended(again, 300)
    assert code == 0, story
    assert rows(out)[: len(kept)] == kept


def test_search_on_ray_killed_goes_on_as_an_unbroken_serial_one(tmp_path: Path) -> None:
    file = saved(config(tmp_path, sampler="tpe"), tmp_path)
    process = start("--config", file, "--out", tmp_path / "run", executor="ray")
    wait_until(lambda: line_count(tmp_path / "run") >= 3, process, 240)
    kill(process)
    for out in ("run", "whole"):
        again = start("--config", file, "--out", tmp_path / out)
        code, story = ended(again, 300)
        assert code == 0, story
    assert proposals(rows(tmp_path / "run")) == proposals(rows(tmp_path / "whole"))
