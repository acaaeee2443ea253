"""What a teacher is worth: held against its students before anything is trained, with warnings where it can hardly help."""

import math
from collections.abc import Sequence

import torch

from latency.console import Console, count
from nas.cores import torch_device
from nas.distillation.teachers import TRIED, Teacher, normalisation, some_of_valid
from nas.errors import InvalidTeacher
from nas.evaluate import evaluate
from nas.store import Candidate
from nas.tasks.task import Task

__all__ = ["compare_with_students"]

FED = 16  # images that tell whether a teacher's outputs are numbers
SUSPICIOUS = 0.995  # a teacher this good on valid has probably seen it, as one trained on all training images has


def compare_with_students(teacher: Teacher, students: Sequence[Candidate], task: Task, console: Console, *, most: int = TRIED) -> None:
    """States what the teacher scores, and warns where a student is no worse, or where it is little better than guessing.

    A teacher is slow, so ``most`` validation images are enough; where they cannot tell it from the best student (two standard errors
    of theirs), it is asked for all of them, as the students were.

    Raises:
        InvalidTeacher: its outputs are not finite.
    """
    place = torch_device()
    teacher = teacher.to(place)
    score, images = _score(teacher, students, task, most, place)
    name, guessing = teacher.spec.name, 1 / len(task.classes)
    among = f", asked for {len(task.classes)} of its classes" if teacher.spec.columns else ""
    fed = f"normalisation {normalisation(teacher.spec)}"
    console.say(f"teacher  {name}: {count(teacher.params)} parameters, {fed}, {score:.3f} on {images:,} validation images{among}")
    if score < 2 * guessing:
        console.warn(
            f"teacher {name} scores {score:.3f} on valid and guessing {guessing:.3f}: are its classes in this order, and its images "
            "normalised so (--teacher-norm)?"
        )
    if score >= SUSPICIOUS:
        console.warn(f"teacher {name} is hardly ever wrong on valid: was it trained on these images? Then only test tells what it is worth")
    better = [s for s in students if s.score is not None and s.score >= score]
    if better:
        best = max(better, key=lambda s: s.score or 0.0)
        console.warn(
            f"teacher {name} scores {score:.3f} on valid, no better than {len(better)} of {len(students)} students "
            f"({best.baseline or best.id}: {best.score:.3f}): it may have little to teach them"
        )


def _score(teacher: Teacher, students: Sequence[Candidate], task: Task, most: int, place: torch.device) -> tuple[float, int]:
    """The teacher's score, and on how many validation images: on all of them where fewer leave it open which student is better."""
    part = some_of_valid(task, most)
    if not bool(teacher.logits(task.normaliser()(part.x[:FED]).to(place)).isfinite().all()):
        raise InvalidTeacher(f"teacher {teacher.spec.name} gives outputs of {task.data} that are not finite: its weights are damaged")
    score = evaluate(_as_fed(teacher), task, part, device=place)
    error = math.sqrt(max(score * (1 - score), 1 / len(part)) / len(part))  # 0 or 1 on a few images is not certain either
    is_open = any(abs(s.score - score) <= 2 * error for s in students if s.score is not None)
    if len(part) == len(task.valid) or not is_open:
        return score, len(part)
    return evaluate(_as_fed(teacher), task, "valid", device=place), len(task.valid)


def _as_fed(teacher: Teacher) -> torch.nn.Module:
    """The teacher as a module that takes the task's own normalised images."""

    class Fed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return teacher.logits(x)

    return Fed()
