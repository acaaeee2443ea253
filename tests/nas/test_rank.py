"""``python -m nas.rank``: rows that outlive an interruption, and figures that follow from them."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from nas.errors import NasError, Stopped
from nas.jobs import DONE, Job, Outcome
from nas.rank import main
from nas.sharing.bank_file import load_bank, save_bank
from nas.sharing.rank_rows import RankJobs, Trained, drawn
from nas.sharing.ranking import agreement
from nas.store import load_run
from search_spaces import Head
from tests.nas.small import TWO_NETWORKS, inheriting, opened, saved


def rank(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranked")
    done = rank(folder / "run", "--config", saved(inheriting(folder), folder), "--networks", 4)
    assert done.exit_code == 0, done.output
    return folder / "run"


def test_every_network_is_trained_once_with_each_of_two_seeds(run: Path) -> None:
    rows = [msgspec.json.decode(line, type=Trained) for line in (run / "ranking.jsonl").read_bytes().splitlines()]
    assert len({(r.id, r.nth) for r in rows}) == len(rows) == 8
    assert {r.epochs for r in rows} == {1}


def test_figures_are_the_agreement_of_the_rows(run: Path) -> None:
    found = json.loads((run / "ranking-4x1.json").read_text())
    rows = [msgspec.json.decode(line, type=Trained) for line in (run / "ranking.jsonl").read_bytes().splitlines()]
    alone = [[r.score for network in found["networks"] for r in rows if (r.id, r.nth) == (network["id"], nth)] for nth in (0, 1)]
    for name, values in (
        ("inherited", [n["inherited"] for n in found["networks"]]), ("trained alone, other seed", alone[1]),
        ("params", [n["params"] for n in found["networks"]]), ("macs", [n["macs"] for n in found["networks"]]),
    ):  # fmt: skip
        want = msgspec.json.decode(msgspec.json.encode(agreement(values, alone[0])))
        assert found["agreement"][name] == want


def test_finished_ranking_trains_nothing_more_and_larger_ones_go_on_from_it(run: Path) -> None:
    before = (run / "ranking.jsonl").read_bytes()
    again = rank(run, "--networks", 4, "--json")
    assert again.exit_code == 0, again.output
    assert (run / "ranking.jsonl").read_bytes() == before
    assert set(json.loads(again.stdout)) == {"inherited", "trained alone, other seed", "params", "macs"}
    more = rank(run, "--networks", 5)
    assert more.exit_code == 0, more.output
    assert (run / "ranking.jsonl").read_bytes().startswith(before)
    assert (run / "ranking.jsonl").read_bytes().count(b"\n") == 10


def test_torn_last_row_is_trained_again(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "ranking.jsonl"
    whole = path.read_bytes().splitlines()[:8]
    path.write_bytes(b"\n".join(whole)[:-20])
    done = rank(tmp_path / "run", "--networks", 4)
    assert done.exit_code == 0, done.output
    last, first = (msgspec.json.decode(line, type=Trained) for line in (path.read_bytes().splitlines()[-1], whole[-1]))
    assert (last.id, last.nth, last.score) == (first.id, first.nth, first.score)


def test_damaged_rows_are_refused_by_file(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "ranking.jsonl").write_bytes(b"garbage\n")
    done = rank(tmp_path / "run", "--networks", 4)
    assert done.exit_code == 2
    assert "ranking.jsonl: not the rows of a ranking" in done.stderr


def test_half_done_ranking_is_shown_and_nothing_is_trained(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "ranking.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    rows = [msgspec.json.decode(line, type=Trained) for line in whole]
    first = [line for line, row in zip(whole, rows, strict=True) if row.nth == 0][:4]
    path.write_bytes(b"".join(first) + whole[-1][:20])  # one is being written
    before = path.read_bytes()
    done = rank(tmp_path / "run", "--networks", 4, "--show", "--json")
    assert done.exit_code == 0, done.output
    assert "4 of 8 trainings are done" in done.stderr
    found = json.loads(done.stdout)
    assert {name: f["networks"] for name, f in found.items()} == {"inherited": 4, "params": 4, "macs": 4}
    assert path.read_bytes() == before


def test_bank_that_is_gone_is_named_and_the_rest_shown(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "bank.safetensors").unlink()
    done = rank(tmp_path / "run", "--networks", 4, "--show", "--json")
    assert done.exit_code == 0, done.output
    assert "has no bank.safetensors: scores by inheritance are left out" in done.stderr
    assert set(json.loads(done.stdout)) == {"trained alone, other seed", "params", "macs"}


def test_bank_that_is_half_trained_is_named_and_the_rest_shown(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "bank.safetensors"
    stamp, notes, groups = load_bank(path)
    save_bank(path, stamp, msgspec.structs.replace(notes, step=1), groups)
    done = rank(tmp_path / "run", "--networks", 4, "--show", "--json")
    assert done.exit_code == 0, done.output
    assert f"trained for 1 of {notes.steps} steps: scores by inheritance are left out" in done.stderr
    assert "inherited" not in json.loads(done.stdout)


def test_bank_of_other_data_ranks_nothing(run: Path, tmp_path: Path) -> None:
    stamped(shutil.copytree(run, tmp_path / "run"), data_sha256="0" * 64)
    done = rank(tmp_path / "run", "--networks", 4, "--show")
    assert done.exit_code == 2
    assert "another content of the data set" in done.stderr
    assert "put the run's own bank back" in done.stderr


def test_bank_of_other_data_is_refused_before_anything_is_trained(run: Path, tmp_path: Path) -> None:
    stamped(shutil.copytree(run, tmp_path / "run"), data_sha256="0" * 64)
    (tmp_path / "run" / "ranking.jsonl").unlink()
    done = rank(tmp_path / "run", "--networks", 4)
    assert done.exit_code == 2
    assert "another content of the data set" in done.stderr
    assert not (tmp_path / "run" / "ranking.jsonl").exists()


@pytest.mark.parametrize("flags", [("--show",), ()])
def test_bank_of_renamed_data_ranks_as_before(run: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    stamped(shutil.copytree(run, tmp_path / "run"), data="npz:elsewhere.npz")
    done = rank(tmp_path / "run", "--networks", 4, "--json", *flags)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(rank(run, "--networks", 4, "--show", "--json").stdout)


def stamped(run: Path, **changed: str) -> None:
    path = run / "bank.safetensors"
    stamp, notes, groups = load_bank(path)
    save_bank(path, msgspec.structs.replace(stamp, **changed), notes, groups)


def test_search_by_trainings_is_ranked_too_and_keeps_its_settings(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert load_run(tmp_path / "run").config.evaluate == "alone"
    done = rank(tmp_path / "run", "--networks", 3, "--workers", 1, "--executor", "serial")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "ranking.jsonl").read_bytes().count(b"\n") == 6
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_ranking_without_a_row_has_nothing_to_show(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "ranking.jsonl").unlink()
    done = rank(tmp_path / "run", "--networks", 4, "--show")
    assert done.exit_code != 0
    assert "leave out --show" in done.stderr


def test_smaller_draw_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    _, space = opened(inheriting(tmp_path))
    few, many = (drawn(space, Head(outputs=3), networks, 0) for networks in (3, 8))
    assert many[:3] == few
    assert len({arch.id for arch in many}) == 8
    assert drawn(space, Head(outputs=3), 3, 1) != few


def test_more_networks_than_a_space_has_are_refused(tmp_path: Path) -> None:
    _, space = opened(inheriting(tmp_path, TWO_NETWORKS))
    with pytest.raises(NasError, match="gave 2 different networks; ask for fewer than 3"):
        drawn(space, Head(outputs=3), 3, 0)


def test_failed_training_stops_the_ranking(tmp_path: Path) -> None:
    given = inheriting(tmp_path)
    _, space = opened(given)
    jobs = RankJobs(given, tmp_path, drawn(space, Head(outputs=3), 3, 0), 2, [])
    job = jobs.next()
    assert isinstance(job, Job)
    assert (job.recipe.epochs, len(jobs)) == (2, 5)
    with pytest.raises(Stopped, match="was not trained: MemoryError: no more"):
        jobs.finish(job, Outcome(key=job.key, error="Traceback ...\nMemoryError: no more\n"))


def test_rows_of_other_epochs_do_not_count(tmp_path: Path) -> None:
    given = inheriting(tmp_path)
    _, space = opened(given)
    archs = drawn(space, Head(outputs=3), 3, 0)
    kept = [Trained(id=a.id, nth=nth, epochs=2, score=0.5, seconds=1.0) for a in archs for nth in (0, 1)]
    assert len(RankJobs(given, tmp_path, archs, 2, kept)) == 0
    assert RankJobs(given, tmp_path, archs, 2, kept).next() is DONE
    assert len(RankJobs(given, tmp_path, archs, 3, kept)) == 6
