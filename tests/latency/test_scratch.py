"""Folders for temporary files, and what of them is left by processes that were killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latency.scratch import MODE, Scratch, sweep

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from latency.scratch import Scratch
made = Scratch(sys.argv[2])
(made.path / "file").write_text("x")
print(made.path, flush=True)
sys.stdin.read()
"""


@contextmanager
def owner(folder: Path, name: str = "latency") -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process with a folder of its own, and that folder."""
    call = [sys.executable, "-c", OWNER, str(folder), name]
    with subprocess.Popen(call, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_folder_goes_when_it_is_closed() -> None:
    with Scratch() as path:
        (path / "file").write_text("x")
    assert not path.exists()


def test_folder_goes_with_its_process(tmp_path: Path) -> None:
    with owner(tmp_path) as (process, path):
        assert path.is_dir()
        process.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["latency", "nas-ssh"])
def test_folder_of_a_killed_process_is_swept(tmp_path: Path, name: str) -> None:
    with owner(tmp_path, name) as (process, path):
        process.kill()
        process.wait(60)
        assert path.is_dir()
        sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_first_folder_of_a_process_sweeps(tmp_path: Path) -> None:
    with owner(tmp_path) as (killed, left):
        killed.kill()
        killed.wait(60)
        with owner(tmp_path) as (_, path):
            assert [p for p in (left, path) if p.exists()] == [path]


def test_folder_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with owner(tmp_path) as (_, path):
        sweep(tmp_path)
        assert (path / "file").read_text() == "x"


def test_folders_that_only_have_such_a_name_are_left_alone(tmp_path: Path) -> None:
    for name, mode in (("latency.notes123", 0o700), ("latency-abcdefgh", MODE), ("latency.abc", MODE), ("other.abcdefgh", MODE)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    (tmp_path / "nas-ssh.abcdefgh").write_text("a file")
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_sweeping_where_there_is_no_folder_does_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
