"""Small tables built on a board and on a phone from the command line: a real sshd, and a real adbd with the real adb."""

import platform
from pathlib import Path

import pytest
from click.testing import CliRunner

from latency.build_table import main
from latency.table import LatencyTable, open_table
from search_spaces import Edge, Head, SearchSpace, Stage
from tests.latency.devices.phones import RUNTIME
from tests.latency.devices.sshd import Board
from tests.phone.phone import SERIAL, FakePhone

SPACE = """
name = "two"
stem = { out_ch = 4, kernel = 3 }
[[stages]]
name = "a"
out_ch = 8
stride = 2
op = ["conv", "sepconv"]
width = [1.0, 2.0]
"""
TWO = SearchSpace(
    name="two", stem=Edge(out_ch=4, kernel=3), input_chw=(3, 8, 8),
    stages=(Stage(name="a", out_ch=8, stride=2, op=("conv", "sepconv"), width=(1.0, 2.0)),),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Board and phone are one computer, and other tests may hold its leases."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))


def built(folder: Path, *words: str) -> LatencyTable:
    """The table of seven pieces and four networks that the verb makes on a device."""
    (folder / "two.toml").write_text(SPACE)
    flags = ["--space", str(folder / "two.toml"), "--image-size", "8", "--plan", "quick", "--fit", "2", "--held-out", "2"]
    done = CliRunner().invoke(main, [*flags, "--out", str(folder / "t.jsonl"), *words])
    assert done.exit_code == 0, done.output
    return open_table(folder / "t.jsonl")


def assert_whole(table: LatencyTable, kind: str) -> None:
    menu = TWO.pieces(Head(outputs=10))
    assert set(table.pieces_ms) == set(menu)
    assert all(ms > 0 for ms in table.pieces_ms.values())
    device = table.record.conditions.device
    assert (device.kind, device.kernel, platform.release() in device.os) == (kind, f"Linux {platform.release()}", False)
    small, large = table.estimate_many([TWO.decode(picks, Head(outputs=10)) for picks in TWO.corners()])
    assert 0 < small.low_ms <= small.ms < large.high_ms


def test_table_is_built_on_a_board(known_board: Board, tmp_path: Path) -> None:
    assert_whole(built(tmp_path, "--device", f"ssh:{known_board.address}"), "ssh")


def test_table_is_built_on_a_phone(shared_phone: FakePhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB", str(shared_phone.adb))
    assert_whole(built(tmp_path, "--device", f"android:{SERIAL}", "--runtime", RUNTIME), "android")
