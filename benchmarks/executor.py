"""Trials a second that the Ray executor gets through when a trial does nothing: its whole overhead.

    python benchmarks/executor.py [--trials 300] [--workers 2]

Prints the rate with and without the seconds that Ray takes to start, and writes executor.md and executor.csv beside itself.
"""

import argparse
import csv
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from nas.executors.ray import run_jobs
from nas.jobs import DONE, Done, Job, Outcome
from nas.recipe import Recipe
from search_spaces import baseline

HERE = Path(__file__).resolve().parent
WARM = 10  # trials before the clock of the steady rate starts: actors start with the first ones


class Noops:
    """A source of jobs that ask for nothing, noting when each came back."""

    def __init__(self, trials: int) -> None:
        arch = baseline("mobilenet_v2", input_chw=(3, 32, 32), outputs=10)  # a job's usual luggage
        self.jobs = [Job(key=str(i), arch=arch, recipe=Recipe(), seed=i, weights="") for i in range(trials)]
        self.left = list(reversed(self.jobs))
        self.finished: list[float] = []

    def next(self) -> Job | Done | None:
        """The next job."""
        return self.left.pop() if self.left else DONE

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Notes the time."""
        assert outcome.score == 1.0, outcome.error
        self.finished.append(time.perf_counter())


def nothing() -> Callable[[Job], Outcome]:
    """A worker that answers at once."""

    def answer(job: Job) -> Outcome:
        return Outcome(key=job.key, score=1.0)

    return answer


def main() -> None:
    """Runs the trials, prints and writes the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    source, began = Noops(given.trials), time.perf_counter()
    run_jobs(source, nothing, workers=given.workers)
    steady = (given.trials - WARM) / (source.finished[-1] - source.finished[WARM - 1])
    row = {
        "date": datetime.now(UTC).date().isoformat(), "cores": os.cpu_count(), "machine": platform.machine(), "workers": given.workers,
        "trials": given.trials, "trials_per_second": round(steady, 1),
        "trials_per_second_with_start": round(given.trials / (source.finished[-1] - began), 1),
        "start_s": round(source.finished[0] - began, 1), "load_before": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    with (HERE / "executor.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    text = "\n".join(["| " + " | ".join(row) + " |", "|" + "---|" * len(row), "| " + " | ".join(str(v) for v in row.values()) + " |"])
    command = f"python benchmarks/executor.py --trials {given.trials} --workers {given.workers}"
    (HERE / "executor.md").write_text(f"# Overhead of the Ray executor\n\n`{command}`: trials that do nothing.\n\n{text}\n")
    print(text)


if __name__ == "__main__":
    main()
