"""Distillations as a source of jobs: every student with every lesson and seed; what the run already has is not trained again."""

from collections.abc import Callable, Sequence

import msgspec

from nas.cost import count
from nas.distillation.lesson import LessonConfig, LessonJob, TeacherSpec, lesson_key
from nas.distillation.starts import Starts
from nas.jobs import Job, Outcome
from nas.recipe import Recipe
from nas.store import Candidate, RunFolder
from nas.trainings import Trainings

__all__ = ["DistillJobs"]


class DistillJobs(Trainings):
    """The jobs (a ``JobSource``), seed by seed, so that the first comparison is whole early and kept teacher outputs are used.

    Of a seed the first training asks the teacher, those come next that need none, and the rest last: most of them find its outputs kept.
    """

    def __init__(
        self, *, folder: RunFolder, students: Sequence[Candidate], lessons: Sequence[LessonConfig], seeds: Sequence[int], recipe: Recipe,
        teacher: TeacherSpec | None, cache: str, test: bool, starts: Starts, lr: float | None = None, wants_weights: bool = True,
        on_row: Callable[[Candidate, str], None] = lambda row, story: None,
    ) -> None:  # fmt: skip
        """``lr``: the recipe's where it is not the run's. ``wants_weights``: of what is done, that which has lost its weights before it was
        scored on test is trained again; what has both scores counts without them."""
        self.on_row, self._lr, self._starts = on_row, lr, starts
        self._root, self._recipe, self._teacher, self._cache, self._test = folder.path.resolve(), recipe, teacher, cache, test
        kept = {r.name: r for r in folder.rows if r.stage == "distill" and r.status == "trained"}
        if wants_weights:
            kept = {name: r for name, r in kept.items() if r.test_score is not None or (folder.path / r.weights).exists()}
        drafts = [self._draft(student, lesson, seed) for seed in seeds for student in students for lesson in lessons]
        self._order = {d.name: i for i, d in enumerate(drafts)}
        parents = {s.id: s for s in students}
        left = [d for seed in seeds for d in _asker_first([d for d in drafts if d.seed == seed and d.name not in kept])]
        super().__init__(folder, (kept[d.name] for d in drafts if d.name in kept), ((self._job(d, parents[d.id]), d) for d in left))

    def told(self, row: Candidate, outcome: Outcome) -> None:
        """Keeps the rows in the order of what was wanted, and hands the row on with the lesson's story."""
        self.rows.sort(key=lambda r: self._order[r.name])
        self.on_row(row, outcome.story)

    def _draft(self, student: Candidate, lesson: LessonConfig, seed: int) -> Candidate:
        return Candidate(
            stage="distill", status="failed", arch=student.arch, seed=seed, baseline=student.baseline, cost=count(student.arch),
            score_source="full", epochs=self._recipe.epochs, parent_id=student.id, lesson=lesson, lr=self._lr,
            key=lesson_key(_unnamed(lesson), self._recipe, seed, *self._starts.key(lesson.start, student)),
        )  # fmt: skip

    def _job(self, draft: Candidate, parent: Candidate) -> Job:
        assert draft.lesson is not None, "drafts have a lesson"
        teacher = self._teacher if draft.lesson.teacher else None
        start = self._starts.path(draft.lesson.start, parent)
        lesson = LessonJob(config=draft.lesson, teacher=teacher, cache=self._cache if teacher else "")
        weights = str(self._root / "models" / f"{draft.name}.safetensors")
        return Job(
            key=draft.name, arch=draft.arch, recipe=self._recipe, seed=draft.seed, weights=weights, test=self._test, init=start,
            lesson=lesson,
        )  # fmt: skip


def _asker_first(drafts: Sequence[Candidate]) -> list[Candidate]:
    """The drafts of one seed, ordered: the first that a fixed teacher teaches, those without one, the others of the teacher's."""
    taught = [d for d in drafts if d.lesson and d.lesson.teacher]
    others = [d for d in drafts if not (d.lesson and d.lesson.teacher)]
    return [*taught[:1], *others, *taught[1:]]


def _unnamed(lesson: LessonConfig) -> LessonConfig:
    """The lesson without its teacher's name, where the hash of the weights says which it is: a renamed file teaches the same."""
    return msgspec.structs.replace(lesson, teacher="") if lesson.teacher_sha256 else lesson
