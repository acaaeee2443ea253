from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from latency.build_table import main as build_table
from latency.devices.facts import CoreClass
from latency.table import open_table
from nas.bench import shared_out
from tests.nas.small import SPACE, command, config, opened, rows, saved

P, E = CoreClass(name="P", cpus=(0, 1, 2, 3), max_mhz=5000), CoreClass(name="E", cpus=(4, 5, 6, 7), max_mhz=3600)


def test_measuring_has_the_last_of_the_fast_cores_and_the_workers_the_rest() -> None:
    assert shared_out(range(8), (P, E), 1) == ((0, 1, 2, 4, 5, 6, 7), (3,))
    assert shared_out(range(8), (P, E), 2) == ((0, 1, 4, 5, 6, 7), (2, 3))


def test_cores_of_one_class_are_shared_out_from_the_end() -> None:
    assert shared_out(range(8), (CoreClass(name="P", cpus=tuple(range(8)), max_mhz=5000),), 2) == ((0, 1, 2, 3, 4, 5), (6, 7))
    assert shared_out((2, 3, 5), (), 1) == ((2, 3), (5,))


def test_only_cores_that_this_process_may_use_are_shared_out() -> None:
    assert shared_out((1, 2, 5, 6), (P, E), 1) == ((1, 5, 6), (2,))


def test_threads_that_no_class_has_cores_for_take_the_last_ones() -> None:
    assert shared_out(range(8), (P, E), 5) == ((0, 1, 2), (3, 4, 5, 6, 7))


def table_of(folder: Path, device: str, space: str = "small.toml") -> Path:
    """A table of a space in the folder, for networks as the small searches train them."""
    task, _ = opened(config(folder))
    flags = ["--space", folder / space, "--device", device, "--out", folder / "t.jsonl", "--image-size", task.input_chw[1]]
    flags += ["--outputs", task.head.outputs, "--fit", 10, "--held-out", 5, "--plan", "quick"]
    done = CliRunner().invoke(build_table, list(map(str, flags)))
    assert done.exit_code == 0, done.output
    return folder / "t.jsonl"


@pytest.mark.slow
def test_search_measures_what_its_table_lacks_and_says_so(tmp_path: Path) -> None:
    table = table_of(tmp_path, "fake:fail=9")
    lacking = len(open_table(table).record.unable)
    done = command("--config", saved(config(tmp_path, table=str(table), trials=6), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert f"lacks {lacking} of the space's" in done.stderr
    assert lacking
    found = rows(tmp_path / "run")
    assert any(open_table(table).missing([r.arch]) for r in found)
    assert all(r.latency_source != "estimate" for r in found if open_table(table).missing([r.arch]))


@pytest.mark.slow
def test_search_predicts_what_its_table_has_no_such_width_of(tmp_path: Path) -> None:
    given = config(tmp_path)
    table = table_of(tmp_path, "fake")
    wider = msgspec.structs.replace(given, width=1.25, table=str(table), trials=16)  # eight are measured first
    done = command("--config", saved(wider, tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "are predicted to within a factor of " in done.stderr
    guessed = [r for r in rows(tmp_path / "run") if r.latency_source == "estimate"]
    assert any(open_table(table).missing([r.arch]) for r in guessed)
    assert all(r.latency and r.latency.low_ms < r.latency.p50_ms < r.latency.high_ms for r in guessed)


def test_table_of_another_space_is_refused(tmp_path: Path) -> None:
    config(tmp_path)
    (tmp_path / "other.toml").write_text(SPACE.replace("[3, 5]", "[3]"))  # no kernel of 5, and none beyond it
    table = table_of(tmp_path, "fake", "other.toml")
    done = command("--config", saved(config(tmp_path, table=str(table)), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "1 piece has no latency in" in done.stderr
    assert not (tmp_path / "run").exists()
