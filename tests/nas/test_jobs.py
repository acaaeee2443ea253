import dataclasses
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nas.jobs import DONE, Done, Job, JobQueue, Outcome, SourceChain, open_config_task, recipe_for, run_job
from nas.recipe import Recipe
from nas.tasks import Task
from nas.tasks.dataset import Images
from nas.weights import load
from search_spaces import Architecture, Block, Head
from tests.nas.small import RECIPE, config

ARCH = Architecture(input_chw=(3, 16, 16), blocks=(Block(op="conv", in_ch=3, out_ch=8, stride=2),), head=Head(outputs=3))


def job(folder: Path, **changed: Any) -> Job:
    plain = Job(key=ARCH.id, arch=ARCH, recipe=msgspec.structs.replace(RECIPE, epochs=2), seed=5, weights=str(folder / "w.safetensors"))
    return msgspec.structs.replace(plain, **changed)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return open_config_task(config(tmp_path))


class Listed:
    """A source of given jobs."""

    def __init__(self, jobs: Sequence[Job | None]) -> None:
        self.left, self.finished = list(jobs), list[str]()

    def next(self) -> Job | Done | None:
        return self.left.pop(0) if self.left else DONE

    def finish(self, job: Job, outcome: Outcome) -> None:
        self.finished.append(outcome.key)


def test_job_gives_a_score_and_leaves_loadable_weights(tmp_path: Path, task: Task) -> None:
    outcome = run_job(job(tmp_path), task)
    assert outcome.error == ""
    assert outcome.score is not None
    assert outcome.test_score is None
    assert "head.out.weight" in load(tmp_path / "w.safetensors")


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path: Path, task: Task) -> None:
    written = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run_job(job(tmp_path, seed=seed, weights=str(tmp_path / name)), task)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]


def test_test_split_is_read_only_where_the_job_asks(tmp_path: Path, task: Task) -> None:
    opened: list[str] = []

    def counted() -> Images:
        opened.append("test")
        return task.test()

    watched = dataclasses.replace(task, test=counted)
    assert run_job(job(tmp_path), watched).test_score is None
    assert opened == []
    assert run_job(job(tmp_path, test=True), watched).test_score is not None
    assert opened == ["test"]


def test_what_training_raises_becomes_a_traceback(tmp_path: Path, task: Task) -> None:
    wrong = msgspec.structs.replace(ARCH, head=Head(outputs=2))  # the data has three classes
    outcome = run_job(job(tmp_path, arch=wrong), task)
    assert outcome.score is None
    assert outcome.error.startswith("Traceback")
    assert not (tmp_path / "w.safetensors").exists()


def test_divergence_is_an_error_of_the_job(tmp_path: Path, task: Task) -> None:
    hot = msgspec.structs.replace(RECIPE, lr=1e30, clip_norm=0.0, warmup_epochs=0.0)
    assert "Diverged" in run_job(job(tmp_path, recipe=hot), task).error


def test_interrupt_passes_through(tmp_path: Path, task: Task) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:  # Any: a loss
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job(tmp_path), dataclasses.replace(task, loss=interrupted))


def test_full_disk_asks_to_stop_and_blames_no_network(tmp_path: Path, task: Task) -> None:
    def full(*_: Any) -> Any:  # Any: a score
        raise OSError(errno.ENOSPC, "No space left on device")

    outcome = run_job(job(tmp_path), dataclasses.replace(task, score=full))
    assert outcome.error == ""
    assert "No space left on device" in outcome.stop


def test_recipe_takes_the_epochs_and_warms_up_for_at_most_half_of_them(tmp_path: Path) -> None:
    given = config(tmp_path, recipe=Recipe(epochs=9, warmup_epochs=3.0))
    assert (recipe_for(given, 2).epochs, recipe_for(given, 2).warmup_epochs) == (2, 1.0)
    assert recipe_for(given, 30).warmup_epochs == 3.0


def test_seed_of_the_run_chooses_the_subset(tmp_path: Path) -> None:
    hashes = {open_config_task(config(tmp_path, train_images=30, seed=seed)).data_sha256 for seed in (0, 0, 1)}
    assert len(hashes) == 2


def test_sources_of_a_chain_follow_each_other_and_open_late(tmp_path: Path) -> None:
    opened = []

    def opener(name: str, jobs: list[Job | None]) -> Listed:
        opened.append(name)
        return Listed(jobs)

    first, second = job(tmp_path, key="1"), job(tmp_path, key="2")
    chain = SourceChain([lambda: opener("a", [first, None]), lambda: opener("empty", []), lambda: opener("b", [second])])
    assert chain.next() == first
    assert opened == ["a"]
    assert chain.next() is None
    assert chain.next() == second
    assert opened == ["a", "empty", "b"]
    assert chain.next() is DONE


def test_next_source_waits_for_the_last_job_of_a_source_that_has_no_more_to_hand_out(tmp_path: Path) -> None:
    """A source with a length has length 0, and is false, while its last job is out."""

    class Training(JobQueue):
        def finish(self, job: Job, outcome: Outcome) -> None:
            self.take_back(outcome)

    training = Training([job(tmp_path, key="1")])
    chain = SourceChain([lambda: training, lambda: Listed([])])
    assert isinstance(chain.next(), Job)
    assert len(training) == 0
    assert chain.next() is None  # and not DONE


def test_peeked_job_is_not_lost(tmp_path: Path) -> None:
    only = job(tmp_path)
    chain = SourceChain([lambda: Listed([only])])
    assert chain.peek() == chain.peek() == only
    assert chain.next() == only
    assert chain.next() is DONE


def test_outcome_goes_to_the_source_at_work(tmp_path: Path) -> None:
    source = Listed([job(tmp_path, key="1")])
    chain = SourceChain([lambda: source])
    found = chain.next()
    assert isinstance(found, Job)
    chain.finish(found, Outcome(key="1"))
    assert source.finished == ["1"]
