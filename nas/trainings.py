"""Full trainings as a source of jobs: each has a row drafted beforehand, which its outcome completes."""

from collections import deque
from collections.abc import Iterable
from pathlib import Path

import msgspec

from nas.errors import Stopped
from nas.jobs import DONE, Done, Job, Outcome
from nas.store import Candidate, RunFolder

__all__ = ["Trainings"]


class Trainings:
    """A ``JobSource`` of trainings that a run lacks; ``rows`` are those that succeeded, kept ones first, ``failed`` the others.

    A draft has what is known before: ``score_source`` is that of a training that succeeds.
    """

    def __init__(self, folder: RunFolder, kept: Iterable[Candidate], wanted: Iterable[tuple[Job, Candidate]]) -> None:
        """Take the rows that need no training any more, and the jobs that are left, each with its draft."""
        self._folder = folder
        self.rows, self.failed = list(kept), list[Candidate]()
        self._queue, self._drafts = deque[Job](), dict[str, Candidate]()
        for job, draft in wanted:
            self._queue.append(job)
            self._drafts[job.key] = draft
        self._out = 0

    def __len__(self) -> int:
        """How many trainings are left to hand out."""
        return len(self._queue)

    def next(self) -> Job | Done | None:
        """The next training; see ``JobSource``."""
        if not self._queue:
            return None if self._out else DONE
        self._out += 1
        return self._queue.popleft()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Stores the row; a failed one with its traceback.

        Raises:
            Stopped: a reason to stop that is no fault of the network.
        """
        self._out -= 1
        if outcome.stop:
            raise Stopped(outcome.stop)
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
