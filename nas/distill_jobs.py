"""Distillations as a source of jobs: every student with every lesson and seed; what the run already has is not trained again."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from nas.cost import count
from nas.errors import Stopped
from nas.jobs import DONE, Done, Job, Outcome
from nas.lesson import LessonConfig, LessonJob, TeacherSpec, lesson_key
from nas.recipe import Recipe
from nas.store import Candidate, RunFolder

__all__ = ["DistillJobs"]


class DistillJobs:
    """The jobs (a ``JobSource``), seed by seed, so that the first comparison is whole early and kept teacher outputs are used."""

    def __init__(
        self, *, folder: RunFolder, students: Sequence[Candidate], lessons: Sequence[LessonConfig], seeds: Sequence[int], recipe: Recipe,
        teacher: TeacherSpec | None, cache: str, test: bool, on_row: Callable[[Candidate, str], None] = lambda row, story: None,
    ) -> None:  # fmt: skip
        self.on_row = on_row
        self.failed: list[Candidate] = []
        self._folder, self._recipe, self._teacher, self._cache, self._test = folder, recipe, teacher, cache, test
        self._out = 0
        self._drafts: dict[str, Candidate] = {}
        kept = {r.name: r for r in folder.rows if r.stage == "distill" and r.status == "trained" and (folder.path / r.weights).exists()}
        drafts = [self._draft(student, lesson, seed) for seed in seeds for student in students for lesson in lessons]
        self._order = {d.name: i for i, d in enumerate(drafts)}
        self.rows = [kept[d.name] for d in drafts if d.name in kept]
        self._parents = {s.id: s for s in students}
        self._queue = deque(self._job(d) for d in drafts if d.name not in kept)

    def __len__(self) -> int:
        """How many trainings are left."""
        return len(self._queue)

    def next(self) -> Job | Done | None:
        """The next training; see ``JobSource``."""
        if not self._queue:
            return None if self._out else DONE
        self._out += 1
        return self._queue.popleft()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Stores a distilled row, a failed one with its traceback.

        Raises:
            Stopped: a reason to stop that is no fault of the network.
        """
        self._out -= 1
        if outcome.stop:
            raise Stopped(outcome.stop)
        row = msgspec.structs.replace(
            self._drafts[job.key], status="failed" if outcome.error else "trained", score=outcome.score, test_score=outcome.test_score,
            score_source="" if outcome.error else "full", calibration=outcome.calibration, test_calibration=outcome.test_calibration,
            terms=outcome.terms, seconds=outcome.seconds, error=outcome.error,
            weights="" if outcome.error else str(Path(job.weights).relative_to(self._folder.path.resolve())),
        )  # fmt: skip
        self._folder.append(row)
        (self.failed if outcome.error else self.rows).append(row)
        self.rows.sort(key=lambda r: self._order[r.name])
        self.on_row(row, outcome.story)

    def _draft(self, student: Candidate, lesson: LessonConfig, seed: int) -> Candidate:
        return Candidate(
            stage="distill", status="failed", arch=student.arch, seed=seed, baseline=student.baseline, cost=count(student.arch),
            epochs=self._recipe.epochs, parent_id=student.id, lesson=lesson, key=lesson_key(lesson, self._recipe, seed),
        )  # fmt: skip

    def _job(self, draft: Candidate) -> Job:
        assert draft.lesson is not None, "drafts have a lesson"
        self._drafts[draft.name] = draft
        root, parent = self._folder.path.resolve(), self._parents[draft.id]
        teacher = self._teacher if draft.lesson.teacher else None
        start = str(root / parent.weights) if draft.lesson.start == "run" else ""
        lesson = LessonJob(config=draft.lesson, teacher=teacher, cache=self._cache if teacher else "")
        weights = str(root / "models" / f"{draft.name}.safetensors")
        return Job(
            key=draft.name, arch=draft.arch, recipe=self._recipe, seed=draft.seed, weights=weights, test=self._test, init=start,
            lesson=lesson,
        )  # fmt: skip
