"""The same search with its trainings on Ray workers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
    file, out = saved(config(tmp_path, epochs=60, trials=4, workers=1), tmp_path), tmp_path / "run"
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


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a running Ray with one core, started as its users do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray-")  # of its own, so that no later search finds it; short, for the sockets in it
    line = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus", "1", "--include-dashboard", "false"]
    line += ["--port", str(port), "--temp-dir", folder]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    head = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment
    )
    try:
        assert head.stdout is not None
        said = []
        for text in head.stdout:
            said.append(text)
            if "Ray runtime started" in text:
                break
        assert head.poll() is None, "".join(said)
        yield f"127.0.0.1:{port}"
    finally:
        head.send_signal(signal.SIGTERM)
        head.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def test_search_joins_a_running_cluster_and_leaves_it_running(tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    file = saved(config(tmp_path, sampler="tpe", trials=4, workers=1), tmp_path)
    for run in ("first", "second"):
        code, story = ended(start("--config", file, "--out", tmp_path / run, "--ray-address", cluster, executor="ray"), 300)
        assert code == 0, story
    code, story = ended(start("--config", file, "--out", tmp_path / "serial"), 300)
    assert code == 0, story
    assert proposals(rows(tmp_path / "first")) == proposals(rows(tmp_path / "second")) == proposals(rows(tmp_path / "serial"))


def test_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    file = saved(config(tmp_path), tmp_path)
    code, story = ended(start("--config", file, "--out", tmp_path / "run", "--ray-address", "127.0.0.1:9", executor="ray"), 120)
    assert code == 1, story
    assert story.splitlines()[-1].startswith("error: cannot join the Ray cluster at 127.0.0.1:9: ")
