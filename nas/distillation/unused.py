"""Flags of teachers that no chosen loss would use: refused, since what a user gives is meant to count."""

from collections.abc import Mapping, Sequence

from nas.distillation.lesson import LessonConfig
from nas.distillation.teachers import KINDS
from nas.errors import InvalidConfig
from nas.losses import LOSSES

__all__ = ["refuse_unused"]

HOMES: Mapping[str, str] = {"--teacher-arch": "file:WEIGHTS", "--teacher-norm": "file:WEIGHTS", "--teacher-epochs": "train:NAME"}


def refuse_unused(
    lessons: Sequence[LessonConfig], *, teacher: str, online: str, arch: str | None, norm: str, epochs: int | None
) -> None:
    """Holds the flags --teacher, --online-teacher, --teacher-arch, --teacher-norm and --teacher-epochs against the lessons.

    Raises:
        InvalidConfig: names the first that none of them uses.
    """
    losses = " ".join(f"--loss {loss}" for loss in dict.fromkeys(lesson.loss for lesson in lessons))
    is_used, along = any(lesson.teacher for lesson in lessons), [lesson.loss for lesson in lessons if lesson.online]
    kind = teacher.partition(":")[0]
    if online and not along:
        raise InvalidConfig(f"--online-teacher belongs to --loss {_of('online')}, and here is {losses}: leave it out")
    if teacher and not is_used and along and not online and kind != "train":
        raise InvalidConfig(
            f"--loss {along[0]} trains its teacher along from fresh weights, and those of --teacher {teacher} would not be used: name its "
            f"network with --online-teacher {arch or 'resnet20'} in place of it"
        )
    if teacher and not is_used and not (along and not online):
        raise InvalidConfig(f"--teacher belongs to --loss {_of('teacher')}, and here is {losses}: leave it out")
    given = {"--teacher-arch": arch, "--teacher-norm": None if norm == "auto" else norm, "--teacher-epochs": epochs}
    if kind not in {name.partition(":")[0] for name in (*KINDS, "")}:
        return  # a mistyped kind is told of as such
    for flag, value in given.items():
        if value is not None and (not is_used or kind != HOMES[flag].partition(":")[0]):
            raise InvalidConfig(f"{flag} belongs to --teacher {HOMES[flag]} with --loss {_of('teacher')}: leave it out")


def _of(needs: str) -> str:
    """The losses that need this, as a text."""
    names = [name for name, method in LOSSES.items() if method.needs == needs]
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
