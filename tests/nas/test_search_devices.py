"""A search whose device is unplugged on the way: it waits, says what for, and goes on as if nothing had been."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.nas.small import command, config, ended, front, line_count, proposals, rows, saved, start, wait_until


@contextmanager
def watching(holds: Callable[[], bool], then: Callable[[], object]) -> Iterator[None]:
    """Does something in a thread as soon as a condition holds."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if holds():
                then()
                return
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def search_unplugged_once(out: Path, *arguments: object, unplug: Callable[[], object], plug_in: Callable[[], object]) -> list[str]:
    """Runs a search whose device goes once two candidates are trained, and comes back once the search waits for it; what it said."""
    process, told = start(*arguments, "--out", out), list[str]()
    assert process.stderr is not None
    try:
        with watching(lambda: line_count(out) >= 2, unplug):
            for line in process.stderr:
                told.append(line.rstrip())
                if line.startswith("waiting for"):
                    plug_in()
        assert process.wait(60) == 0, told
    finally:
        process.kill()
        process.communicate()
    return told


@pytest.mark.slow
def test_search_waits_for_its_only_device_and_goes_on_as_an_unbroken_one(tmp_path: Path) -> None:
    plug, out = tmp_path / "plugged", tmp_path / "run"
    plug.touch()
    whole = command("--config", saved(config(tmp_path), tmp_path), "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    given = saved(config(tmp_path, devices=(f"fake:there={plug},sleep_ms=20",)), tmp_path)

    # the second round is not measured before the first is trained
    told = search_unplugged_once(out, "--config", given, unplug=plug.unlink, plug_in=plug.touch)
    assert any("is lost: the device fake is unplugged" in line for line in told)
    assert any(line.startswith(f"waiting for fake:there={plug}, at most ") for line in told)
    assert any("is there, and measuring goes on" in line for line in told)
    assert proposals(rows(out)) == proposals(rows(tmp_path / "whole"))
    assert front(out).equals(front(tmp_path / "whole"))


def test_device_that_stays_away_ends_the_search_with_one_line_and_it_can_go_on(tmp_path: Path) -> None:
    plug, out = tmp_path / "plugged", tmp_path / "run"
    plug.touch()
    given = saved(config(tmp_path, devices=(f"fake:there={plug},sleep_ms=20",)), tmp_path)
    with watching(lambda: line_count(out) >= 2, plug.unlink):
        done = command("--config", given, "--out", out, "--device-wait", "0")
    assert done.exit_code == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: the device fake is unplugged")]
    assert "Traceback" not in done.stderr
    kept = rows(out)
    plug.touch()
    assert command("--config", given, "--out", out).exit_code == 0
    assert rows(out)[: len(kept)] == kept


@pytest.mark.slow
def test_interrupt_while_waiting_ends_with_130_and_the_search_goes_on(tmp_path: Path) -> None:
    plug, out = tmp_path / "plugged", tmp_path / "run"
    plug.touch()
    given = saved(config(tmp_path, devices=(f"fake:there={plug},sleep_ms=20",)), tmp_path)
    process = start("--config", given, "--out", out)
    wait_until(lambda: line_count(out) >= 2, process, 200)
    plug.unlink()
    # the first round is trained and the second is waited for
    wait_until(lambda: line_count(out) >= 4, process, 200)
    time.sleep(2)
    os.kill(process.pid, signal.SIGINT)
    code, story = ended(process)
    assert code == 130
    assert "waiting for fake:there=" in story
    assert story.splitlines()[-1].startswith("interrupted; what was finished is kept")
    plug.touch()
    assert command("--config", given, "--out", out).exit_code == 0


def test_devices_that_share_the_measuring_change_nothing_but_the_time(tmp_path: Path) -> None:
    for name, devices in (("one", ("fake",)), ("two", ("fake", "fake:noise=0.001"))):
        done = command("--config", saved(config(tmp_path, devices=devices), tmp_path), "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
    assert proposals(rows(tmp_path / "two")) == proposals(rows(tmp_path / "one"))


def test_devices_of_different_models_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    done = command("--config", saved(config(tmp_path, devices=("fake", "local")), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --device fake is fake (no processor")
    assert "make no front" in done.stderr
    assert not (tmp_path / "run").exists()


def test_other_device_than_the_runs_own_is_refused(finished: Path) -> None:
    before = rows(finished)
    done = command("--config", finished / "config.json", "--out", finished, "--device", "local", "--trials", 9)
    assert done.exit_code == 2
    assert "holds latencies of fake" in done.stderr
    assert rows(finished) == before
