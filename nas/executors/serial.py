"""One job after the other in this process: for debugging and for tests."""

from nas.config import RunConfig
from nas.cores import become_worker
from nas.jobs import Done, JobSource, open_config_task, run_job

__all__ = ["execute"]


def execute(source: JobSource, config: RunConfig, *, workers: int, cpus: tuple[int, ...] = ()) -> None:
    """Runs the source's jobs in order, with one torch thread; ``workers`` and ``cpus`` are of no use here."""
    become_worker()
    task = open_config_task(config)
    while not isinstance(job := source.next(), Done):
        assert job is not None, "nothing is outstanding between jobs of the serial executor"
        source.finish(job, run_job(job, task))
