"""Whole searches on a board and on a phone, each unplugged once on the way: a real sshd, and a real adbd with the real adb."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.latency.devices.phones import RUNTIME, left_on
from tests.latency.devices.sshd import Board, board
from tests.nas.small import config, front, line_count, rows, saved, start
from tests.nas.test_search_devices import search_unplugged_once, watching
from tests.phone.phone import SERIAL, FakePhone, phone

# Both wait for adb or ssh to find out that the other side is gone, and the phone's processor is emulated.
pytestmark = [pytest.mark.device, pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All these boards are one computer: what one test measured must not answer for another."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    folder = tmp_path / "board"
    folder.mkdir()
    with board(folder) as made:
        monkeypatch.setenv("PATH", str(made.tools), prepend=":")
        yield made


@pytest.fixture
def own_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePhone]:
    folder = tmp_path / "phone"
    folder.mkdir()
    with phone(folder) as made:
        monkeypatch.setenv("ADB", str(made.adb))
        yield made


def assert_whole(out: Path, kind: str, told: list[str]) -> None:
    assert [line for line in told if f"waiting for {kind}" in line]
    assert [line for line in told if "is there, and measuring goes on" in line]
    searched = [r for r in rows(out) if r.stage == "search"]
    assert sum(r.status == "trained" for r in searched) == 8
    assert len({r.number for r in searched}) == len(searched)
    assert {r.latency_source for r in searched if r.duplicate_of is None} == {"measured"}
    table = front(out)
    assert (table.latency_low_ms > 0).all()
    assert ((table.latency_low_ms <= table.latency_p50_ms) & (table.latency_p50_ms <= table.latency_high_ms)).all()
    assert msgspec.json.decode((out / "environment.json").read_bytes())["device"]["kind"] == kind


def test_search_on_a_board_that_goes_and_comes_back_ends_in_a_measured_front(own_board: Board, tmp_path: Path) -> None:
    out = tmp_path / "run"
    given = saved(config(tmp_path, devices=(f"ssh:{own_board.address}",)), tmp_path)
    told = search_unplugged_once(out, "--config", given, unplug=own_board.stop, plug_in=own_board.start)
    assert_whole(out, "ssh", told)


def test_search_on_a_phone_unplugged_on_the_way_ends_in_a_measured_front(own_phone: FakePhone, tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = ("mobilenet_v3_small_minimal",)  # each model adds a minute to the last measurement
    given = saved(config(tmp_path, devices=(f"android:{SERIAL}",), front_size=1, baselines=few), tmp_path)
    flags = ("--config", given, "--runtime", RUNTIME)
    told = search_unplugged_once(out, *flags, unplug=own_phone.unplug, plug_in=own_phone.plug_in)
    assert_whole(out, "android", told)
    assert left_on(own_phone) == ["libonnxruntime", "runner"]


def test_two_boards_share_a_search_and_one_that_goes_leaves_its_work_to_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with board(tmp_path / "one") as one, board(tmp_path / "two") as two:
        tools = tmp_path / "tools"
        tools.mkdir()
        # one ssh that knows both
        port = two.address.rpartition(":")[2]
        both = f'#!/bin/sh\ncase "$*" in *{port}*) exec {two.tools}/ssh "$@";; esac\nexec {one.tools}/ssh "$@"\n'
        (tools / "ssh").write_text(both)
        (tools / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", str(tools), prepend=":")
        out = tmp_path / "run"
        given = saved(config(tmp_path, devices=(f"ssh:{one.address}", f"ssh:{two.address}")), tmp_path)
        process = start("--config", given, "--out", out)
        try:
            with watching(lambda: line_count(out) >= 2, two.stop):
                _, story = process.communicate(timeout=1000)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, story
    assert f"ssh {two.address} is lost" in story
    assert "waiting for" not in story
    assert sum(r.stage == "search" and r.status == "trained" for r in rows(out)) == 8
