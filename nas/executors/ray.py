"""Jobs on Ray Tune: Tune executes and never decides. Its own restore is not used, its files live in a temporary folder."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from nas.config import RunConfig
from nas.cores import become_worker
from nas.errors import Stopped
from nas.jobs import Job, JobSource, Outcome, open_config_task, run_job
from nas.tasks.task import Task

__all__ = ["execute", "run_jobs"]

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: it must end the run, not only the trials
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "3600",
}


def execute(source: JobSource, config: RunConfig, *, workers: int, cpus: tuple[int, ...] = ()) -> None:
    """Trains the source's jobs on ``workers`` Ray workers of one core each (and an equal share of the GPUs, if any).

    ``cpus``: cores that workers may use; empty: all. Every worker opens the task once. On a cluster (``ray_address``) the
    run folder and the data must be where every node can reach them.
    """
    run_jobs(source, partial(_open_worker, config, cpus, os.getcwd()), workers=workers, address=config.ray_address)


def run_jobs(source: JobSource, open_worker: Callable[[], Callable[[Job], Outcome]], *, workers: int, address: str | None = None) -> None:
    """Runs jobs through ``open_worker()``, called once in every worker process; a lost worker fails its job alone.

    Raises:
        Stopped: Ray does not start, or the source ends the run.
    """
    os.environ.update(QUIET)
    from nas.executors import tune

    queue, done = tune.Queue(source), False
    while not done:
        with _ray(workers, address):
            done = tune.run(queue, open_worker, workers)


def _open_worker(config: RunConfig, cpus: tuple[int, ...], folder: str) -> Callable[[Job], Outcome]:
    become_worker()
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    os.chdir(folder)
    return partial(_run_in, folder, task=open_config_task(config))


def _run_in(folder: str, job: Job, task: Task) -> Outcome:
    """Runs a job in the user's folder: Tune moves a worker to another at every trial, and the data's path may be relative."""
    os.chdir(folder)
    return run_job(job, task)


@contextmanager
def _ray(workers: int, address: str | None) -> Iterator[None]:
    import ray

    started = not ray.is_initialized()
    if started:
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # a lost worker is a row and a sentence, not a page of log
        if address:
            _require_listener(address)
        local: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
        try:
            # "local": without it, Ray would join any cluster that happens to run on this computer.
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **local)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise Stopped(_why_not(str(error).splitlines()[0], address)) from error
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def _require_listener(address: str) -> None:
    """Refuses an address where nothing listens at once: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" and the like: Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise Stopped(_why_not(str(error), address)) from error


def _why_not(reason: str, address: str | None) -> str:
    if not address:
        return f"cannot start Ray on this computer: {reason}; --executor serial needs none"
    # A client without a token that meets a cluster with one, or the other way round, sees a closed connection and no reason.
    return (
        f"cannot join the Ray cluster at {address}: {reason}; see that it runs (ray status), has the same Ray version, and was started "
        "with the same RAY_AUTH_MODE as is set here: Ray's own default is token for ray start, and disabled for joining"
    )
