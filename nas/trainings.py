"""Full trainings as a source of jobs: each has a row drafted beforehand, which its outcome completes."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from nas.jobs import Done, Job, JobQueue, Outcome
from nas.store import Candidate, RunFolder
from search_spaces.architecture import Architecture

__all__ = ["Trainings"]


class Trainings:
    """A ``JobSource`` of trainings that a run lacks; ``rows`` are those that succeeded, kept ones first, ``failed`` the others.

    A draft has what is known before: ``score_source`` is that of a training that succeeds.
    """

    def __init__(self, folder: RunFolder, kept: Iterable[Candidate], wanted: Iterable[tuple[Job, Candidate]]) -> None:
        """Take the rows that need no training any more, and the jobs that are left, each with its draft."""
        self._folder = folder
        self.rows, self.failed = list(kept), list[Candidate]()
        left = list(wanted)
        self._queue = JobQueue(job for job, _ in left)
        self._drafts = {job.key: draft for job, draft in left}

    def __len__(self) -> int:
        """How many trainings are left to hand out."""
        return len(self._queue)

    @property
    def archs(self) -> list[Architecture]:
        """The architectures that are left to train, each once."""
        return list({job.arch.id: job.arch for job in self._queue.jobs}.values())

    def next(self) -> Job | Done | None:
        """The next training; see ``JobSource``."""
        return self._queue.next()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Stores the row; a failed one with its traceback.

        Raises:
            Stopped: a reason to stop that is no fault of the network.
        """
        self._queue.take_back(outcome)
        draft = self._drafts[job.key]
        if outcome.error:
            row = msgspec.structs.replace(draft, status="failed", score_source="", seconds=outcome.seconds, error=outcome.error)
        else:
            row = msgspec.structs.replace(
                draft, status="trained", score=outcome.score, test_score=outcome.test_score, calibration=outcome.calibration,
                test_calibration=outcome.test_calibration, terms=outcome.terms, seconds=outcome.seconds,
                weights=str(Path(job.weights).relative_to(self._folder.path.resolve())),
            )  # fmt: skip
        self._folder.append(row)
        (self.failed if outcome.error else self.rows).append(row)
        self.told(row, outcome)

    def told(self, row: Candidate, outcome: Outcome) -> None:
        """What else becomes of a finished row."""
