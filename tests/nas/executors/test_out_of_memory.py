"""Ray ends workers when memory runs short: the job that needs too much fails, the others are done."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nas.executors.ray import run_jobs
from nas.jobs import Job, Outcome
from tests.nas.executors.sources import Listed

SPARE, HOG = 2_000_000_000, 4_000_000_000  # bytes above what is in use now: Ray's limit, and what one job takes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray"),
]


def memory(field: str) -> int:
    """Bytes that /proc/meminfo gives for a field."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def open_greedy() -> Callable[[Job], Outcome]:
    def work(job: Job) -> Outcome:
        import time

        if job.key == "greedy":
            hog = [b"x" * 100_000_000 for _ in range(HOG // 100_000_000)]
            time.sleep(20.0)  # Ray looks every quarter of a second
            del hog
        return Outcome(key=job.key, score=1.0)

    return work


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads /proc/meminfo")
@pytest.mark.timeout(400)
def test_job_that_needs_too_much_memory_fails_and_the_others_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    if memory("MemAvailable") < SPARE + HOG + 4_000_000_000:
        pytest.skip("too little free memory to run short of it safely")
    used = memory("MemTotal") - memory("MemAvailable")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(used + SPARE) / memory('MemTotal'):.3f}")
    source = Listed(["a", "b", "greedy", "c", "d"])
    run_jobs(source, open_greedy, workers=1)
    assert {k for k, o in source.outcomes.items() if o.error} == {"greedy"}
    assert "out of memory" in source.outcomes["greedy"].error
