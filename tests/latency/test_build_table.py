"""The verb: what it says and leaves, killed in the middle, interrupted, and given nonsense."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from latency.build_table import main
from latency.plan import plan_named
from latency.table import open_table
from latency.table_record import Record, TimedPiece, read
from latency.table_text import command
from search_spaces import Head, open_space, pieces

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
name = "small"
stem = { out_ch = 8, kernel = 3 }
[[stages]]
name = "a"
out_ch = 8
stride = 2
op = ["conv", "sepconv"]
kernel = [3, 5]
width = [1.0, 2.0]
[[stages]]
name = "b"
out_ch = 16
stride = 2
op = ["sepconv", "mbconv3"]
se = [0.0, 0.25]
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A space of 18 pieces at 16 px."""
    (tmp_path / "small.toml").write_text(SPACE)
    return tmp_path / "small.toml"


def flags(space: Path, out: Path, device: str = "fake") -> list[str]:
    return ["--space", str(space), "--image-size", "16", "--device", device, "--out", str(out), "--fit", "6", "--held-out", "4"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def start(*arguments: str) -> "subprocess.Popen[str]":
    """The verb in a process of its own, with its story."""
    return subprocess.Popen(
        [sys.executable, "-m", "latency.build_table", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(path: Path, count: int) -> None:
    end = time.monotonic() + 60
    while lines(path) < count and time.monotonic() < end:
        time.sleep(0.02)
    assert lines(path) >= count


def test_table_is_built_and_its_errors_said(space: Path, tmp_path: Path) -> None:
    done = run(*flags(space, tmp_path / "t.jsonl"))
    assert done.exit_code == 0, done.output
    menu = open_space(space, input_chw=(3, 16, 16)).pieces(Head(outputs=10))
    assert f"pieces measured: {len(menu)} of {len(menu)}" in done.stdout
    assert "calibrated on 6 whole networks and held against 4 others" in done.stdout
    for said in ("MAPE", "within 5 %", "within 10 %", "Spearman", "80% prediction interval", "drift: 1 piece timed"):
        assert said in done.stdout
    assert f"timings left: {3 * len(menu)} of pieces, 1 of pieces once more and 30 of whole networks" in done.stderr


def test_built_table_estimates_any_member_of_the_space(space: Path, tmp_path: Path) -> None:
    assert run(*flags(space, tmp_path / "t.jsonl")).exit_code == 0
    opened = open_space(space, input_chw=(3, 16, 16))
    networks = [opened.decode(picks, Head(outputs=10)) for picks in opened.corners()]
    small, large = open_table(tmp_path / "t.jsonl").estimate_many(networks)
    assert 0 < small.low_ms < small.ms < small.high_ms < large.high_ms


def test_json_has_the_stored_calibration(space: Path, tmp_path: Path) -> None:
    done = run(*flags(space, tmp_path / "t.jsonl"), "--json")
    found, table = json.loads(done.stdout), open_table(tmp_path / "t.jsonl")
    assert found["calibration"]["held_out"]["mape"] == table.calibration.held_out.mape
    assert found["pieces"] == len(table.pieces_ms)


def test_second_run_measures_nothing(space: Path, tmp_path: Path) -> None:
    first = run(*flags(space, tmp_path / "t.jsonl"))
    size = lines(tmp_path / "t.jsonl")
    second = run(*flags(space, tmp_path / "t.jsonl"))
    assert second.stdout == first.stdout
    assert "timings left" not in second.stderr
    assert lines(tmp_path / "t.jsonl") == size


def test_killed_build_goes_on_where_it_was(space: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    process = start(*flags(space, path, "fake:sleep_ms=5"))
    wait_for_lines(path, 30)  # in the second go
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = path.read_bytes()
    assert run(*flags(space, path)).exit_code == 0
    assert run(*flags(space, tmp_path / "whole.jsonl")).exit_code == 0
    assert path.read_bytes().startswith(kept)
    assert open_table(path).pieces_ms == open_table(tmp_path / "whole.jsonl").pieces_ms


def test_interrupted_build_exits_130_with_the_command_that_goes_on(space: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    process = start(*flags(space, path, "fake:sleep_ms=20"))
    wait_for_lines(path, 10)
    process.send_signal(signal.SIGINT)
    _, story = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: what was measured is kept; to go on: python -m latency.build_table --space" in story.strip().splitlines()[-1]
    assert "Traceback" not in story


def test_lost_device_exits_1_and_says_how_to_go_on(space: Path, tmp_path: Path) -> None:
    done = run(*flags(space, tmp_path / "t.jsonl", "fake:lost=40"))
    assert done.exit_code == 1
    assert "the device fake is gone after 40 models" in done.stderr
    assert "to go on: python -m latency.build_table --space" in done.stderr


def test_pieces_that_cannot_run_are_named(space: Path, tmp_path: Path) -> None:
    done = run(*flags(space, tmp_path / "t.jsonl", "fake:fail=15"))
    assert done.exit_code == 0, done.output
    assert "warning: the device cannot run" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--space", "nonsense"], "unknown search space 'nonsense'"),
        (["--device", "nonsense"], "unknown device 'nonsense'"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--width", "-1"], "width must be a number above 0"),
        (["--out", "no/such/folder/t.jsonl"], "there is no folder no/such/folder"),
        (["--image-size", "0"], "image-size"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(space: Path, tmp_path: Path, wrong: list[str], said: str) -> None:
    done = run(*flags(space, tmp_path / "t.jsonl"), *wrong)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "t.jsonl").exists()


def test_table_of_another_size_is_refused(space: Path, tmp_path: Path) -> None:
    assert run(*flags(space, tmp_path / "t.jsonl")).exit_code == 0
    done = run(*flags(space, tmp_path / "t.jsonl"), "--image-size", "32")
    assert done.exit_code == 2
    assert "other conditions" in done.stderr
    assert "name another --out" in done.stderr


def test_without_out_the_file_is_named_after_space_size_and_device(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("--space", str(space), "--image-size", "16", "--device", "fake", "--fit", "3", "--held-out", "3")
    assert done.exit_code == 0, done.output
    (found,) = (tmp_path / "tables").glob("small-16-*.jsonl")
    assert found.name in done.stderr


def test_without_out_the_file_is_named_after_all_that_is_not_usual(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unusual = ["--width", "0.5", "--outputs", "7", "--threads", "2", "--plan", "quick", "--fit", "3", "--held-out", "4", "--seed", "5"]
    assert run("--space", str(space), "--input", "3,16,24", "--device", "fake", *unusual).exit_code == 0
    (found,) = (tmp_path / "tables").glob("*.jsonl")
    name = "small-3x16x24-plan-quick-width-0.5-outputs-7-threads-2-fit-3-held-out-4-seed-5"
    assert found.name == f"{name}-{open_table(found).record.conditions.device.id}.jsonl"


def test_input_of_any_shape_is_taken_and_the_command_to_go_on_has_it(space: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    words = ["--space", str(space), "--input", "1,1,48", "--device", "fake:lost=20", "--out", str(path), "--fit", "3", "--held-out", "3"]
    lost = run(*words)
    assert "table of" in lost.stderr
    assert "at 1×1×48: " in lost.stderr
    given = shlex.split(lost.stderr.partition("to go on: ")[2].splitlines()[0])[3:]
    assert run(*("fake" if word == "fake:lost=20" else word for word in given)).exit_code == 0
    assert open_table(path).record.conditions.input_chw == (1, 1, 48)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--input", "3,16"], "expected channels, height, width, such as 3,96,160"),
        (["--input", "3,0,16"], "got '3,0,16'"),
        (["--input", "3,16,16", "--image-size", "16"], "--image-size is --input 3,PIXELS,PIXELS: give one of the two"),
    ],
)
def test_input_that_is_none_is_wrong_usage(space: Path, wrong: list[str], said: str) -> None:
    done = run("--space", str(space), "--device", "fake", *wrong)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_space_edited_between_two_sessions_is_refused(space: Path, tmp_path: Path) -> None:
    assert run(*flags(space, tmp_path / "t.jsonl", "fake:lost=20")).exit_code == 1
    space.write_text(SPACE.replace("se = [0.0, 0.25]", "se = [0.0, 0.5]"))
    done = run(*flags(space, tmp_path / "t.jsonl"))
    assert done.exit_code == 2
    assert "was another one" in done.stderr


@pytest.mark.slow
def test_killed_build_on_this_computer_goes_on_and_estimates_what_is_measured(space: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    process = start(*flags(space, path, "local"))
    wait_for_lines(path, 20)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = path.read_bytes()
    done = run(*flags(space, path, "local"))
    assert done.exit_code == 0, done.output
    assert path.read_bytes().startswith(kept)
    record = read(path)
    menu = open_space(space, input_chw=(3, 16, 16)).pieces(Head(outputs=10))
    assert sorted(row.go for row in record.of(TimedPiece) if row.piece.read() == menu[0])[-3:] == [0, 1, 2]
    # not a test of this computer's quietness: a table that mixes up its pieces or units would be off by far more
    table = open_table(path)
    for arch in record.networks:
        assert table.estimate(arch).ms == pytest.approx(sum(table.pieces_ms[p] for p in pieces(arch)), rel=2)


def test_command_to_go_on_with_names_the_plan(space: Path, tmp_path: Path) -> None:
    lost = run(*flags(space, tmp_path / "t.jsonl", "fake:lost=12"), "--plan", "quick", "--threads", "2")
    given = shlex.split(lost.stderr.partition("to go on: ")[2].splitlines()[0])
    assert given[:3] == ["python", "-m", "latency.build_table"]
    done = run(*("fake" if word == "fake:lost=12" else word for word in given[3:]))
    assert done.exit_code == 0, done.output
    assert open_table(tmp_path / "t.jsonl").record.conditions.plan == plan_named("quick", threads=2)
    assert " --plan table " in command(read_begun(space, tmp_path / "other.jsonl"))


def read_begun(space: Path, path: Path) -> Record:
    """A table with the default plan, from which the device was lost."""
    assert run(*flags(space, path, "fake:lost=12")).exit_code == 1
    return read(path)
