"""Timing networks before it is decided for how long they are trained."""

import itertools
from pathlib import Path

import pytest

from nas.budget.probes import Probes, filled
from nas.errors import Stopped
from nas.jobs import Done, Job, Outcome, run_job
from nas.models import build
from nas.recipe import Recipe
from nas.train import TIMED_STEPS, timed_steps
from search_spaces import Architecture, Block, Head
from tests.nas.small import config, opened

ARCHS = [
    Architecture(input_chw=(3, 16, 16), blocks=(Block(op="conv", in_ch=3, out_ch=n, kernel=1),), head=Head(outputs=3)) for n in (4, 8)
]


def test_every_network_is_handed_out_once_and_then_they_are_done() -> None:
    probes = Probes(ARCHS, Recipe(), seconds=0.1)
    jobs = [probes.next(), probes.next()]
    assert [job.arch for job in jobs if isinstance(job, Job)] == ARCHS
    assert probes.next() is None
    for job in jobs:
        assert isinstance(job, Job)
        probes.finish(job, Outcome(key=job.key, image_s=0.5))
    assert isinstance(probes.next(), Done)
    assert probes.image_s == {arch.id: 0.5 for arch in ARCHS}


def test_network_that_fails_has_no_speed_and_a_full_disk_ends_the_run() -> None:
    probes = Probes(ARCHS, Recipe(), seconds=0.1)
    first, second = probes.next(), probes.next()
    assert isinstance(first, Job)
    assert isinstance(second, Job)
    probes.finish(first, Outcome(key=first.key, error="Traceback"))
    assert probes.image_s == {}
    with pytest.raises(Stopped, match="no space"):
        probes.finish(second, Outcome(key=second.key, stop="no space"))


def test_missing_speed_is_the_guess_scaled_as_the_others_were() -> None:
    assert filled({"a": 2.0, "b": 4.0}, {"a": 1.0, "b": 2.0, "c": 5.0}) == {"a": 2.0, "b": 4.0, "c": 10.0}
    assert filled({}, {"a": 1.0}) == {"a": 1.0}


def test_worker_times_a_network_and_leaves_no_file(tmp_path: Path) -> None:
    task, _ = opened(config(tmp_path))
    job = Job(key="k", arch=ARCHS[0], recipe=Recipe(batch=16), seed=0, weights=str(tmp_path / "w.safetensors"), probe_s=0.01)
    outcome = run_job(job, task)
    assert outcome.error == ""
    assert outcome.image_s > 0
    assert outcome.score is None
    assert not (tmp_path / "w.safetensors").exists()


def test_step_takes_what_the_clock_says_and_the_first_is_left_out(tmp_path: Path) -> None:
    task, _ = opened(config(tmp_path))
    # looks at the clock: the first step takes 9 s, every later one 2 s
    looks = itertools.chain([0.0, 9.0], itertools.chain.from_iterable((t, t + 2.0) for t in itertools.count(10.0, 5.0)))
    assert timed_steps(build(ARCHS[0]), task, Recipe(batch=16), seconds=0.0, clock=lambda: next(looks)) == 2.0
    assert next(looks) == 10.0 + 5.0 * TIMED_STEPS
