"""Jobs without networks, and workers that misbehave as a job's key asks."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from nas.jobs import DONE, Done, Job, Outcome
from nas.recipe import Recipe
from search_spaces import Architecture, Block, Head

ARCH = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=8),), head=Head(outputs=2))


def job(key: str) -> Job:
    return Job(key=key, arch=ARCH, recipe=Recipe(), seed=0, weights="")


class Listed:
    """A source of jobs with given keys; ``ends_at`` raises when the job of that key is finished."""

    def __init__(self, keys: list[str], ends_at: str = "") -> None:
        self.left, self.outcomes = [job(k) for k in keys], dict[str, Outcome]()
        self.ends_at, self.out, self.most_out = ends_at, 0, 0

    def next(self) -> Job | Done | None:
        if not self.left:
            return None if self.out else DONE
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        return self.left.pop(0)

    def finish(self, job: Job, outcome: Outcome) -> None:
        self.out -= 1
        assert job.key == outcome.key
        assert job.key not in self.outcomes
        self.outcomes[job.key] = outcome
        if job.key == self.ends_at:
            raise LookupError(f"the source ends at {job.key}")


def open_obedient() -> Callable[[Job], Outcome]:
    """A worker that does what a job's key says; its score is its process."""

    def work(job: Job) -> Outcome:
        if "once" in job.key and not Path(job.weights).exists():
            Path(job.weights).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "kill" in job.key and "once" not in job.key:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in job.key:
            time.sleep(1.0)
        return Outcome(key=job.key, score=float(os.getpid()))

    return work


def open_broken() -> Callable[[Job], Outcome]:
    raise MemoryError("no room for the data")


def open_killed() -> Callable[[Job], Outcome]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
