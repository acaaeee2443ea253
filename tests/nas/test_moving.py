"""A run on another device than before, or without its weights: what was trained stays, and nothing is made up."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from latency import open_device
from latency.onnx_graph import emit
from nas.config import config_from_file
from nas.finals import FinalJobs
from nas.measuring import Meter
from nas.moving import remeasured_rows
from nas.store import Candidate, Latency, RunFolder
from tests.nas.small import command, config, front, proposals, rows, saved
from tests.nas.studies import trials
from tests.nas.tasks.samples import write_npz

ELSEWHERE = Latency(p50_ms=77.0, low_ms=76.0, high_ms=78.0, taken_at="2020-01-01T00:00:00Z")


def elsewhere(run: Path, out: Path) -> Path:
    """A copy of a run as if it had been searched on another device, where every network took 77 ms."""
    shutil.copytree(run, out)
    told = [msgspec.structs.replace(r, latency=ELSEWHERE) if r.latency else r for r in rows(out)]
    (out / "candidates.jsonl").write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in told))
    noted = json.loads((out / "environment.json").read_text())
    noted["device"] |= {"id": "0123456789ab", "name": "elsewhere"}
    (out / "environment.json").write_text(json.dumps(noted))
    return out


def trainings(out: Path) -> list[tuple[str, str, float]]:
    """What was trained, in the file's order, whole lines of it: a training done twice is there twice."""
    lines = [json.loads(line) for line in (out / "candidates.jsonl").read_text().splitlines()]
    return [(r["stage"], str(r.get("number")), r["seconds"]) for r in lines if r["status"] == "trained"]


def test_moved_run_is_the_one_that_was_searched_there(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    done = command("--config", out / "config.json", "--out", out, "--remeasure")
    assert done.exit_code == 0, done.output
    assert "networks have latencies of fake" in done.stderr
    assert proposals(rows(out)) == proposals(rows(finished))
    assert front(out).equals(front(finished))
    assert set(trainings(out)) == set(trainings(finished))  # to the second: nothing was trained again
    noted = json.loads((out / "environment.json").read_text())
    assert [place["device"] for place in noted["earlier"]] == ["elsewhere"]
    assert noted["device"]["id"] == json.loads((finished / "environment.json").read_text())["device"]["id"]
    assert "is_moving" not in noted
    assert not config_from_file(out / "config.json", {}).remeasure  # or the next other device would be taken without a word


def test_sampler_is_told_the_new_latencies_alone(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    assert command("--config", out / "config.json", "--out", out, "--remeasure", "--trials", 9).exit_code == 0
    told = {tuple(trial.values) for trial in trials(out / "study.journal") if trial.values}
    assert told == {(r.score, r.latency.p50_ms) for r in rows(out) if r.number is not None and r.score is not None and r.latency}
    assert 77.0 not in {p50_ms for _, p50_ms in told}


def test_moved_search_goes_on_as_one_that_was_always_there(finished: Path, tmp_path: Path) -> None:
    out, whole = elsewhere(finished, tmp_path / "run"), tmp_path / "whole"
    shutil.copytree(finished, whole)
    for path, more in ((out, ["--remeasure"]), (whole, [])):
        done = command("--config", path / "config.json", "--out", path, "--trials", 10, *more)
        assert done.exit_code == 0, done.output
    assert proposals(rows(out)) == proposals(rows(whole))


def test_moving_to_the_same_device_changes_nothing(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    done = command("--config", out / "config.json", "--out", out, "--remeasure")
    assert done.exit_code == 0
    assert "is complete" in done.stderr
    assert rows(out) == rows(finished)


def test_another_device_is_refused_with_the_way_to_go_on(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    done = command("--config", out / "config.json", "--out", out, "--trials", 9)
    assert done.exit_code == 2
    assert done.stderr.endswith("name another --out, or take every latency anew here: --remeasure\n")


def test_move_that_was_broken_off_goes_on_with_another_move_only(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    noted = json.loads((out / "environment.json").read_text())
    (out / "environment.json").write_text(json.dumps(noted | {"is_moving": True, "earlier": [{"device": "older"}]}))
    plain = ("--config", out / "config.json", "--out", out, "--trials", 9)
    refused = command(*plain)
    assert refused.exit_code == 2
    assert "was broken off on its way to elsewhere; to move it on: --remeasure" in refused.stderr
    assert command(*plain, "--remeasure").exit_code == 0
    noted = json.loads((out / "environment.json").read_text())
    assert [place["device"] for place in noted["earlier"]] == ["older"]  # it never was at the place that it was on its way to


def test_device_that_can_run_nothing_leaves_the_run_as_it_was(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != ".lock"}
    done = command("--config", out / "config.json", "--out", out, "--remeasure", "--device", "fake:fail=1")
    assert done.exit_code == 2
    assert "can run none of the" in done.stderr
    after = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != ".lock"}
    assert before == after


def test_limit_that_no_trained_network_meets_leaves_the_run_as_it_was(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    before = (out / "candidates.jsonl").read_bytes(), (out / "config.json").read_bytes()
    fastest = min(r.latency.p50_ms for r in rows(finished) if r.number is not None and r.latency)
    done = command("--config", out / "config.json", "--out", out, "--remeasure", "--max-ms", 0.999 * fastest)
    assert done.exit_code == 2
    assert "is below what" in done.stderr
    assert ((out / "candidates.jsonl").read_bytes(), (out / "config.json").read_bytes()) == before


def test_run_that_does_not_say_where_it_was_is_moved(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    (out / "environment.json").unlink()
    assert command("--config", out / "config.json", "--out", out, "--remeasure").exit_code == 0
    assert front(out).equals(front(finished))


def test_damaged_environment_is_named_in_one_line(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    for damaged in (b"{broken", b"\xff\xfe"):
        (out / "environment.json").write_bytes(damaged)
        done = command("--config", out / "config.json", "--out", out, "--remeasure")
        assert done.exit_code == 2
        assert done.stderr.startswith(f"error: {out}/environment.json is damaged")


def test_limit_of_another_device_may_be_another(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    limit = ("--config", out / "config.json", "--out", out, "--max-ms", 5)
    assert "max_ms is None there" in command(*limit).stderr
    assert command(*limit, "--remeasure").exit_code == 0
    assert command("--config", out / "config.json", "--out", out, "--max-ms", 4, "--remeasure").exit_code == 2  # nothing was to move


def test_refined_run_is_not_moved(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    (out / "refined").mkdir()
    done = command("--config", out / "config.json", "--out", out, "--remeasure")
    assert done.exit_code == 2
    assert f"search anew with another --out and --reuse {out}" in done.stderr


def test_run_with_later_stages_is_not_moved(finished: Path, tmp_path: Path) -> None:
    out = elsewhere(finished, tmp_path / "run")
    before = rows(out)
    more = ("--remeasure", "--stages", "search,distill", "--teacher", "train:resnet20")
    done = command("--config", out / "config.json", "--out", out, *more)
    assert done.exit_code == 2
    assert "--remeasure moves a search" in done.stderr
    assert rows(out) == before


@pytest.fixture
def told(finished: Path) -> tuple[Candidate, ...]:
    return tuple(msgspec.structs.replace(r, latency=ELSEWHERE) if r.latency else r for r in rows(finished) if r.number is not None)


def test_limit_is_held_by_the_new_latencies(told: tuple[Candidate, ...], tmp_path: Path) -> None:
    device = open_device("fake")
    p50 = {r.id: m.p50_ms for r, m in zip(told, device.time([emit(r.arch) for r in told], Meter(device).plan), strict=True)}
    limit = sorted(p50.values())[len(p50) // 2]
    never = msgspec.structs.replace(told[0], status="infeasible", score=None, score_source="")
    found, unable = remeasured_rows((never, *told[1:]), config(tmp_path, max_ms=limit), Meter(device))
    assert unable == 0
    assert found[0].status == "infeasible"  # it was never trained
    firsts = [r for r in found[1:] if r.duplicate_of is None]
    assert {r.id for r in firsts if r.status == "trained"} == {r.id for r in firsts if p50[r.id] <= limit}
    assert {r.id for r in firsts if r.status == "infeasible"} == {r.id for r in firsts if p50[r.id] > limit}
    assert [r.score for r in found[1:]] == [r.score for r in told[1:]]


def test_network_that_the_new_device_cannot_run_is_a_failed_candidate(told: tuple[Candidate, ...], tmp_path: Path) -> None:
    failed, unable = remeasured_rows(told, config(tmp_path), Meter(open_device("fake:fail=1")))
    assert unable == len({r.id for r in told})
    assert {(r.status, r.latency) for r in failed} == {("failed", None)}
    again, _ = remeasured_rows(failed, config(tmp_path), Meter(open_device("fake")))  # and one again that can
    assert [(r.status, r.score, r.error) for r in again] == [(r.status, r.score, r.error) for r in told]


def test_final_without_its_weights_is_shown_and_not_exported(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "manifest.json").unlink()
    shutil.rmtree(out / "models")
    gone = next(r for r in rows(out) if r.stage == "final" and r.baseline)
    kept = [r for r in rows(out) if r.stage == "final" and r.id != gone.id]
    (out / "models").mkdir()
    for row in kept:
        shutil.copy(finished / row.weights, out / row.weights)
    done = command("--config", out / "config.json", "--out", out)
    assert done.exit_code == 0, done.output
    assert f"warning: the weights of {gone.baseline} are gone" in done.stderr
    assert front(out).equals(front(finished))  # a latency does not follow from weights
    assert {p.stem for p in out.glob("models/*.onnx")} == {r.id for r in kept}
    assert {e["id"] for e in json.loads((out / "manifest.json").read_text())["models"]} == {r.id for r in kept}


def test_full_trainings_of_another_run_are_taken_over(finished: Path, tmp_path: Path) -> None:
    given = saved(config(tmp_path, sampler="random", reuse=str(finished)), tmp_path)
    done = command("--config", given, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    theirs = {r.id: r for r in rows(finished) if r.stage == "final"}
    taken = [r for r in rows(tmp_path / "run") if r.stage == "final" and r.id in theirs]
    assert f"reused   {len(taken)} full trainings of {finished}" in done.stderr
    assert any(r.baseline for r in taken)
    assert config_from_file(tmp_path / "run" / "config.json", {}).reuse is None  # a run needs no other to be taken up
    for row in taken:
        assert (row.score, row.test_score, row.seconds) == (theirs[row.id].score, theirs[row.id].test_score, theirs[row.id].seconds)
        assert (tmp_path / "run" / row.weights).read_bytes() == (finished / theirs[row.id].weights).read_bytes()


def test_trainings_of_another_recipe_seed_or_this_run_are_refused(finished: Path, tmp_path: Path) -> None:
    plain = config(tmp_path, reuse=str(finished))
    other = msgspec.structs.replace(plain.recipe, lr=0.01)
    for changed, said in (({"recipe": other}, "its recipe is not"), ({"seed": 3}, "its seed, split's seed is not")):
        given = saved(msgspec.structs.replace(plain, **changed), tmp_path)
        done = command("--config", given, "--out", tmp_path / "run")
        assert done.exit_code == 2, done.output
        assert said in done.stderr
    data = write_npz(tmp_path / "other.npz", train=90)
    done = command("--config", saved(msgspec.structs.replace(plain, data=f"npz:{data}"), tmp_path), "--out", tmp_path / "run")
    assert "was trained on other images than those of npz:" in done.stderr
    table = json.loads(saved(plain, tmp_path).read_text())
    (tmp_path / "free.json").write_text(json.dumps({k: v for k, v in table.items() if k != "final_epochs"}))
    clock = ("--config", tmp_path / "free.json", "--out", tmp_path / "run", "--budget", "30s")
    assert "--reuse with --budget needs --final-epochs" in command(*clock).stderr
    itself = ("--config", finished / "config.json", "--out", finished, "--trials", 9, "--reuse", finished)
    assert "is the run itself" in command(*itself).stderr
    given = saved(plain, tmp_path)
    assert "is no run folder" in command("--config", given, "--out", tmp_path / "run", "--reuse", tmp_path / "none").stderr
    assert not (tmp_path / "run").exists()


def test_finished_search_takes_another_baseline_and_trains_that_alone(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    noted = json.loads((out / "manifest.json").read_text())
    del noted["asked"]["baselines"]  # as older versions left it
    (out / "manifest.json").write_text(json.dumps(noted))
    assert "is complete" in command("--config", out / "config.json", "--out", out).stderr
    more = [x for name in ("mobilenet_v3_small_minimal", "mnasnet_small", "mobilenet_v2@0.35") for x in ("--baseline", name)]
    done = command("--config", out / "config.json", "--out", out, *more)
    assert done.exit_code == 0, done.output
    (new,) = [line for line in trainings(out) if line not in trainings(finished)]
    assert new[0] == "final"
    assert set(front(out)["baseline"].dropna()) == {*front(finished)["baseline"].dropna(), "mobilenet_v2 x0.35"}
    assert "is complete" in command("--config", out / "config.json", "--out", out).stderr


def changed_finals(run: Path, out: Path, **changed: object) -> Path:
    """A copy of a run whose full trainings' rows have other fields."""
    shutil.copytree(run, out)
    told = [msgspec.structs.replace(r, **changed) if r.stage == "final" else r for r in rows(out)]
    (out / "candidates.jsonl").write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in told))
    return out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"score_source": "tuned"}, "reused   0 full trainings"),  # it went on from other weights
        ({"parent_id": "0123456789ab"}, "reused   0 full trainings"),
        ({"epochs": 7}, "others there have 7 epochs, and here it is 1"),
    ],
)
def test_trainings_of_another_kind_or_length_are_not_taken_over(
    finished: Path, tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    other = changed_finals(finished, tmp_path / "other", **changed)
    done = command("--config", saved(config(tmp_path, reuse=str(other)), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert said in done.stderr
    assert all(r.score_source == "full" and r.epochs == 1 and not r.parent_id for r in rows(tmp_path / "run") if r.stage == "final")


def test_training_whose_weights_are_damaged_is_done_again(finished: Path, tmp_path: Path) -> None:
    other = changed_finals(finished, tmp_path / "other")
    for file in (other / "models").glob("*.safetensors"):
        file.write_bytes(b"damaged")
    done = command("--config", saved(config(tmp_path, reuse=str(other)), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "warning: trained again, not reused: " in done.stderr
    assert front(tmp_path / "run")["id"].isin(p.stem for p in (tmp_path / "run" / "models").glob("*.onnx")).all()


def test_run_without_a_hash_of_its_data_is_not_reused(finished: Path, tmp_path: Path) -> None:
    other = changed_finals(finished, tmp_path / "other")
    (other / "environment.json").unlink()
    done = command("--config", saved(config(tmp_path, reuse=str(other)), tmp_path), "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "was trained on other images" in done.stderr


def test_kept_training_has_the_role_that_is_wanted_now(finished: Path, tmp_path: Path) -> None:
    member = next(r for r in rows(finished) if r.stage == "final" and not r.baseline)
    stored = tuple(msgspec.structs.replace(r, baseline="once x1") if r == member else r for r in rows(finished))
    folder = RunFolder(path=tmp_path, rows=stored)
    jobs = FinalJobs(config=config_from_file(finished / "config.json", {}), folder=folder, members=[member], baselines=[])
    assert [(r.id, r.baseline) for r in jobs.rows] == [(member.id, "")]
