"""The parts that Ray Tune wants: a reusable actor, a searcher that is our queue, a callback that hears of lost workers.

Imported only once Ray's environment is set; see ``nas.executors.ray``.
"""

import tempfile
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from nas.jobs import Done, Job, JobSource, Outcome

__all__ = ["OpenWorker", "Queue", "run"]

OpenWorker = Callable[[], Callable[[Job], Outcome]]


class Worker(tune.Trainable):
    """A Ray actor that runs one job a trial and keeps its task between trials."""

    def setup(self, config: dict[str, Any], open_worker: OpenWorker | None = None) -> None:
        """Opens the task; what goes wrong is told job by job, since Tune would only say that an actor did not start."""
        assert open_worker is not None, "with_parameters gives it"
        self._job: Job = config["job"]
        self._run: Callable[[Job], Outcome] | None = None
        self._broken = ""
        try:
            self._run = open_worker()
        except Exception:
            self._broken = traceback.format_exc()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial's job."""
        self._job = new_config["job"]
        return True

    def step(self) -> dict[str, Any]:
        """Runs the job: a trial is one step."""
        outcome = self._run(self._job) if self._run else Outcome(key=self._job.key, error=self._broken)
        return {"outcome": outcome, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a job is short, and its result is in the run folder."""


class Queue(Searcher):
    """Hands the source's jobs to Tune. An error of the source ends the queue and is kept for after the run."""

    def __init__(self, source: JobSource) -> None:
        super().__init__(metric="outcome", mode="max")
        self.raised: Exception | None = None
        self._source = source
        self._jobs: dict[str, Job] = {}
        self._again: deque[Job] = deque()
        self._struck: set[tuple[str, str]] = set()  # a candidate's score and its full training have one key

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its tuner for a restore that is not used, and a source need not be picklable."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next job as a trial's config; None for "not now"."""
        if self.raised is not None:
            return Searcher.FINISHED
        try:
            job = self._again.popleft() if self._again else self._source.next()
        except Exception as error:
            self.raised = error
            return Searcher.FINISHED
        if isinstance(job, Done):
            return Searcher.FINISHED
        if job is None:
            return None
        self._jobs[trial_id] = job
        return {"job": job}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hands an outcome back; a lost worker's is told a moment later, by ``lost``."""
        if not error:
            self._finish(trial_id, (result or {}).get("outcome"))

    def lost(self, trial_id: str) -> None:
        """The trial ended without an outcome: its worker died. A score by inheritance takes a second, and is tried once more."""
        job = self._jobs.get(trial_id)
        if job is not None and job.bank and (job.key, job.bank) not in self._struck:
            self._struck.add((job.key, job.bank))
            self._again.append(self._jobs.pop(trial_id))
        else:
            self._finish(trial_id, None)

    def strike(self, reason: str) -> None:
        """Ray ended all workers: each job at work is tried once more, and fails with ``reason`` the second time."""
        for trial_id, job in list(self._jobs.items()):
            if (job.key, job.bank) in self._struck:
                self._finish(trial_id, Outcome(key=job.key, error=reason))
            else:
                self._struck.add((job.key, job.bank))
                self._again.append(self._jobs.pop(trial_id))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run folder is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: Tune's restore is not used."""

    def _finish(self, trial_id: str, outcome: Outcome | None) -> None:
        job = self._jobs.pop(trial_id, None)
        if job is None or self.raised is not None:
            return
        if outcome is None:
            outcome = Outcome(key=job.key, error="the worker's process was lost: killed, or out of memory")
        try:
            self._source.finish(job, outcome)
        except Exception as error:
            self.raised = error


class LostWorkers(tune.Callback):
    """Tells the queue of trials that ended without an outcome, once Tune has cleaned up after them."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune's call for a trial in error."""
        self._queue.lost(trial.trial_id)


def run(queue: Queue, open_worker: OpenWorker, workers: int) -> bool:
    """Runs the queue's jobs on ``workers`` reused actors of one core and an equal share of the GPUs each.

    Returns whether that is done: False when Ray, short of memory, ended workers; what they had is queued again, and Ray
    must be started anew (Tune gives up with an exception that names no trial, and leaves its actors behind).

    Raises:
        Exception: what the source raised.
    """
    with tempfile.TemporaryDirectory(prefix="nas-tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(Worker, open_worker=open_worker), {"cpu": 1, "gpu": _gpu_share(workers)}),
            tune_config=tune.TuneConfig(search_alg=queue, num_samples=-1, max_concurrent_trials=workers, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder,
                name="jobs",
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[LostWorkers(queue)],
            ),
        )
        try:
            tuner.fit()
        except RuntimeError as error:
            if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
                raise
            queue.strike(f"the worker ran out of memory: {str(error.__cause__).splitlines()[0]}")
            done = False
        else:
            done = True
    if queue.raised is not None:
        raise queue.raised
    return done


def _gpu_share(workers: int) -> float:
    gpus = float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]  # Ray's
    return round(gpus / workers, 4) if gpus < workers else 1.0
