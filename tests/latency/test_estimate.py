"""The verb on a table of the fake device: what it prints, and what it says of networks that it cannot estimate."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from latency.estimate import main
from latency.table import open_table
from search_spaces import baseline, to_json
from tests.latency.tables import HEAD, SMALL, built

SMALLEST, LARGEST = (SMALL.decode(picks, HEAD) for picks in SMALL.corners())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "t.jsonl"
    built(path)
    return path


def call(table: Path, *words: object) -> Result:
    return CliRunner().invoke(main, ["--table", str(table), *map(str, words)])


def test_architecture_in_a_file_is_estimated(table: Path, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(to_json(SMALLEST))
    done = call(table, tmp_path / "net.json", "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["estimates"].items()
    expected = open_table(table).estimate(SMALLEST)
    assert found[0] == "net"
    assert (found[1]["ms"], found[1]["low_ms"], found[1]["source"]) == (expected.ms, expected.low_ms, "table")


def test_networks_of_a_run_are_estimated_by_id_and_baseline(table: Path, tmp_path: Path) -> None:
    entries = [("aaa", "", SMALLEST), ("bbb", "mine x2", LARGEST)]
    models = [{"id": i, "baseline": b, "architecture": json.loads(to_json(a))} for i, b, a in entries]
    (tmp_path / "manifest.json").write_text(json.dumps({"models": models}))
    rows = call(table, tmp_path).stdout.splitlines()
    assert rows[0] == "estimates for fake (no processor, 1 core) with fake 1, 1 thread(s), 16 px"
    assert [row.partition("  ")[0] for row in rows[3:]] == ["aaa", "mine x2"]
    assert all(" ~0." in row and row.endswith(" 0%") for row in rows[3:])


def test_predicted_part_is_told(table: Path, tmp_path: Path) -> None:
    wider = SMALL.at(width=1.25)
    (tmp_path / "net.json").write_text(to_json(wider.decode(wider.corners()[1], HEAD)))
    (found,) = json.loads(call(table, tmp_path / "net.json", "--json").stdout)["estimates"].values()
    assert found["source"] == "table and predictor"
    assert 0 < found["predicted_share"] <= 1


def test_network_that_the_table_cannot_estimate_is_one_line_beside_the_others(table: Path, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(to_json(SMALLEST))
    done = call(table, "mobilenet_v3_small", tmp_path / "net.json")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[3].startswith("net ")
    assert done.stderr.startswith("error: mobilenet_v3_small: ")
    assert len(done.stderr.splitlines()) == 1


def test_measured_only_refuses_to_predict(table: Path, tmp_path: Path) -> None:
    wider = SMALL.at(width=1.25)
    (tmp_path / "net.json").write_text(to_json(wider.decode(wider.corners()[1], HEAD)))
    done = call(table, tmp_path / "net.json", "--measured-only")
    assert (done.exit_code, "pieces have no latency in" in done.stderr) == (1, True)


def test_published_network_has_the_input_and_outputs_of_the_table(table: Path) -> None:
    done = call(table, "mobilenet_v2@0.5", "--json")
    lacking = open_table(table, predict=True).missing([baseline("mobilenet_v2", width=0.5, input_chw=(3, 16, 16), outputs=4)])
    many = "1 piece has" if len(lacking) == 1 else f"{len(lacking)} pieces have"
    assert json.loads(done.stdout)["errors"]["mobilenet_v2@0.5"].startswith(f"{many} no latency")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nowhere.json", "there is no file or folder nowhere.json"),
        ("mobilenet_v22", "unknown network 'mobilenet_v22'; did you mean 'mobilenet_v2'?"),
        ("mobilenet_v2@wide", "behind mobilenet_v2@ stands the width multiplier"),
        (".", "is no finished run of nas.search"),
    ],
)
def test_mistake_is_one_line_and_exit_2(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(table, word)
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert said in done.stderr


def test_file_that_is_no_architecture_is_refused_by_name(table: Path, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text("{}")
    done = call(table, tmp_path / "net.json")
    assert (done.exit_code, "net.json: not an architecture: " in done.stderr) == (2, True)
