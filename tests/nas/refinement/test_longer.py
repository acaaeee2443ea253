from pathlib import Path

import pytest

from nas.calibration import Calibration
from nas.errors import Stopped
from nas.jobs import DONE, Done, Job, Outcome
from nas.refinement.longer import Full, FullTrainings
from nas.refinement.scaling import scaled
from nas.store import RunFolder, read_rows
from tests.nas.refinement.walks import SEED
from tests.nas.small import config

HALF = scaled(SEED, 0.5)

TESTED = Calibration(ece=0.05, nll=0.9, brier=0.4)


def source(folder: Path, *wanted: Full) -> FullTrainings:
    (folder / "models").mkdir(exist_ok=True)
    kept = read_rows(folder / "candidates.jsonl")
    return FullTrainings(wanted, config=config(folder, final_epochs=4), folder=RunFolder(path=folder, rows=kept), kept=kept, tune_lr=0.1)


def handed(trainings: FullTrainings) -> Job:
    job = trainings.next()
    assert job is not None
    assert not isinstance(job, Done)
    return job


def test_one_network_is_trained_both_from_scratch_and_from_its_weights(tmp_path: Path) -> None:
    trainings = source(tmp_path, Full(arch=SEED, init=tmp_path / "weights"), Full(arch=SEED))
    tuned, full = handed(trainings), handed(trainings)
    assert (tuned.init, full.init) == (str((tmp_path / "weights").resolve()), "")
    assert tuned.recipe.lr == pytest.approx(0.1 * full.recipe.lr)
    assert tuned.weights != full.weights
    assert (tuned.recipe.epochs, full.recipe.epochs, tuned.test, full.test) == (4, 4, True, True)
    assert trainings.next() is None


def test_what_is_wanted_twice_is_trained_once(tmp_path: Path) -> None:
    assert len(source(tmp_path, Full(arch=SEED), Full(arch=HALF, label="seed x0.5"), Full(arch=SEED))) == 2


def test_network_of_the_path_stays_one_where_a_scaled_one_is_equal_to_it(tmp_path: Path) -> None:
    trainings = source(tmp_path, Full(arch=HALF, parent_id="abc"), Full(arch=SEED, label="seed x1"), Full(arch=HALF, label="seed x0.5"))
    for _ in range(2):
        job = handed(trainings)
        trainings.finish(job, Outcome(key=job.key, score=0.5, test_score=0.5, seconds=1.0))
    assert [(r.id, r.parent_id, r.baseline) for r in trainings.rows] == [(HALF.id, "abc", ""), (SEED.id, "", "seed x1")]


def test_rows_say_what_was_trained_and_from_what(tmp_path: Path) -> None:
    trainings = source(tmp_path, Full(arch=SEED, parent_id="abc", init=tmp_path / "weights"), Full(arch=HALF, label="seed x0.5"))
    for score in (0.5, 0.6):
        job = handed(trainings)
        trainings.finish(job, Outcome(key=job.key, score=score, test_score=score, test_calibration=TESTED, seconds=1.0))
    assert trainings.next() is DONE
    rows = read_rows(tmp_path / "candidates.jsonl")
    assert list(rows) == trainings.rows
    assert [(r.score, r.test_calibration) for r in rows] == [(0.5, TESTED), (0.6, TESTED)]
    assert [(r.score_source, r.parent_id, r.baseline, r.weights) for r in rows] == [
        ("tuned", "abc", "", f"models/{SEED.id}-tuned.safetensors"), ("full", "", "seed x0.5", f"models/{HALF.id}.safetensors"),
    ]  # fmt: skip


def test_trained_network_is_not_trained_again_but_its_other_way_is(tmp_path: Path) -> None:
    first = source(tmp_path, Full(arch=SEED))
    job = handed(first)
    first.finish(job, Outcome(key=job.key, score=0.5, test_score=0.5))
    again = source(tmp_path, Full(arch=SEED, init=tmp_path / "weights"), Full(arch=SEED))
    assert handed(again).init
    assert again.next() is None
    assert [r.score for r in again.rows] == [0.5]


def test_failed_training_is_a_row_and_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    first = source(tmp_path, Full(arch=SEED))
    job = handed(first)
    first.finish(job, Outcome(key=job.key, error="Traceback\nValueError: no"))
    assert ([r.error for r in first.failed], first.rows) == (["Traceback\nValueError: no"], [])
    assert len(source(tmp_path, Full(arch=SEED))) == 1


def test_full_disk_ends_the_run(tmp_path: Path) -> None:
    trainings = source(tmp_path, Full(arch=SEED))
    with pytest.raises(Stopped, match="no room"):
        trainings.finish(handed(trainings), Outcome(key="", stop="no room"))
