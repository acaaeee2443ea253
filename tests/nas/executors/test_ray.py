"""Jobs on Ray Tune: whatever happens to a worker, every job ends in one outcome."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nas.config import RunConfig
from nas.executors.ray import QUIET, execute, run_jobs
from nas.executors.tune import Queue
from nas.jobs import Outcome
from nas.recipe import Recipe
from search_spaces import Architecture, Block, Head
from tests.nas.executors.sources import Listed, open_broken, open_killed, open_obedient
from tests.nas.tasks.samples import write_npz

CLASSIFIER = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=8),), head=Head(outputs=3))

pytestmark = [
    pytest.mark.slow,
    # sockets and pipes of Ray's own processes, closed by the collector; and what Ray's own code is warned of
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray"),
]


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    """One Ray for all tests here: ``run_jobs`` uses a Ray that runs already."""
    os.environ.update(QUIET)
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    yield
    ray.shutdown()


def test_every_job_is_done_once_on_reused_workers() -> None:
    source = Listed([f"job {n}" for n in range(12)])
    run_jobs(source, open_obedient, workers=2)
    assert len(source.outcomes) == 12
    assert not [o for o in source.outcomes.values() if o.error]
    assert len({o.score for o in source.outcomes.values()}) <= 2


def test_never_more_jobs_are_out_than_workers() -> None:
    source = Listed(["slow 1", "slow 2", "slow 3", "slow 4"])
    run_jobs(source, open_obedient, workers=2)
    assert source.most_out == 2


def test_killed_worker_fails_its_job_alone() -> None:
    source = Listed(["a", "kill", "b", "c", "d"])
    run_jobs(source, open_obedient, workers=2)
    assert {k for k, o in source.outcomes.items() if o.error} == {"kill"}
    assert "worker's process was lost" in source.outcomes["kill"].error


def test_score_by_inheritance_whose_worker_is_killed_is_tried_once_more(tmp_path: Path) -> None:
    source = Listed(["a", "kill once", "kill", "b"])
    source.left[:] = [msgspec.structs.replace(job, bank="some", weights=str(tmp_path / job.key)) for job in source.left]
    run_jobs(source, open_obedient, workers=1)
    assert {k for k, o in source.outcomes.items() if o.error} == {"kill"}
    assert len(source.outcomes) == 4


def test_full_training_has_a_second_try_of_its_own() -> None:
    """A candidate's score by inheritance and its full training have one key."""
    source = Listed(["a", "a"])
    source.left[0] = msgspec.structs.replace(source.left[0], bank="some")
    scoring, training = source.left
    queue = Queue(source)
    assert queue.suggest("1") == {"job": scoring}
    queue.lost("1")
    assert queue.suggest("2") == {"job": scoring}
    queue.on_trial_complete("2", {"outcome": Outcome(key="a", score=1.0)})
    source.outcomes.clear()
    assert queue.suggest("3") == {"job": training}
    queue.strike("no memory")
    assert queue.suggest("4") == {"job": training}
    queue.strike("no memory")
    assert source.outcomes["a"].error == "no memory"


def test_every_worker_killed_still_gives_every_outcome() -> None:
    source = Listed([f"kill {n}" for n in range(4)])
    run_jobs(source, open_obedient, workers=2)
    assert [bool(o.error) for o in source.outcomes.values()] == [True] * 4


def test_setup_that_raises_becomes_every_jobs_traceback() -> None:
    source = Listed(["a", "b", "c"])
    run_jobs(source, open_broken, workers=2)
    assert len(source.outcomes) == 3
    assert all("MemoryError: no room for the data" in o.error for o in source.outcomes.values())


def test_setup_that_is_killed_fails_its_jobs() -> None:
    source = Listed(["a", "b"])
    run_jobs(source, open_killed, workers=2)
    assert [bool(o.error) for o in source.outcomes.values()] == [True] * 2


def test_error_of_the_source_ends_the_run() -> None:
    source = Listed([f"job {n}" for n in range(50)], ends_at="job 3")
    with pytest.raises(LookupError, match="the source ends at job 3"):
        run_jobs(source, open_obedient, workers=2)
    assert source.left


def test_no_jobs_are_no_trouble() -> None:
    source = Listed([])
    run_jobs(source, open_obedient, workers=2)
    assert source.outcomes == {}


def test_every_job_runs_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "small.npz", train=40, test=20)
    monkeypatch.chdir(tmp_path)
    config = RunConfig(data="npz:small.npz", recipe=Recipe(batch=16, crop_pixels=0))
    source = Listed(["a", "b", "c"])
    recipe = Recipe(epochs=1, batch=16)
    source.left[:] = [
        msgspec.structs.replace(job, arch=CLASSIFIER, recipe=recipe, weights=str(tmp_path / job.key), test=True) for job in source.left
    ]
    execute(source, config, workers=1)
    assert [o.error for o in source.outcomes.values()] == ["", "", ""]
    assert all(o.test_score is not None for o in source.outcomes.values())
