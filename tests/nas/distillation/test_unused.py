from typing import Any

import pytest

from nas.distillation.lesson import TeacherSpec
from nas.distillation.lessons import lessons
from nas.distillation.unused import refuse_unused
from nas.errors import InvalidConfig

GIVEN: dict[str, Any] = {"teacher": "", "online": "", "arch": None, "norm": "auto", "epochs": None}
FILE = {"teacher": "file:w", "arch": "resnet56"}
SET: dict[str, float | str] = {"alpha": 0.5, "temperature": 2.0}


def held(*losses: str, **given: Any) -> None:  # Any: values of any flag
    """Holds flags against lessons that are made as nas.distill makes them."""
    teacher = TeacherSpec(name=given["teacher"], net="") if given.get("teacher") else None
    options = SET if "skd" in losses else {}
    online = given.get("online") or "resnet20"
    refuse_unused(lessons(losses, settings=options, sweep={}, teacher=teacher, online=online), **(GIVEN | given))


@pytest.mark.parametrize(
    ("losses", "given"),
    [
        (("plain", "uskd"), {}),
        (("plain", "kd"), {**FILE, "norm": "cifar10"}),
        (("skd",), {"teacher": "train:resnet20", "epochs": 3}),
        (("plain", "kd", "dkd", "dist", "nkd", "uskd", "bdkd"), {**FILE, "online": "resnet20"}),
        (("kd", "bdkd"), FILE),
        (("bdkd",), {"online": "resnet20"}),
        (("bdkd",), {"teacher": "train:resnet20"}),
    ],
)
def test_flags_that_a_loss_uses_are_taken(losses: tuple[str, ...], given: dict[str, Any]) -> None:
    held(*losses, **given)


@pytest.mark.parametrize(
    ("losses", "given", "says"),
    [
        (("plain", "uskd"), {"teacher": "file:w"}, "--teacher belongs to --loss kd, .* and here is --loss plain --loss uskd"),
        (("bdkd",), {**FILE, "online": "resnet20"}, "--teacher belongs to --loss kd"),
        (("bdkd",), FILE, "those of --teacher file:w would not be used: name its network with --online-teacher resnet56"),
        (("kd",), {**FILE, "online": "resnet20"}, "--online-teacher belongs to --loss bdkd, and here is --loss kd"),
        (("bdkd",), {"arch": "resnet20"}, "--teacher-arch belongs to --teacher file:WEIGHTS"),
        (("uskd",), {"norm": "cifar10"}, "--teacher-norm belongs to --teacher file:WEIGHTS"),
        (("uskd",), {"epochs": 3}, "--teacher-epochs belongs to --teacher train:NAME"),
        (("bdkd",), {"teacher": "train:resnet20", "epochs": 3}, "--teacher-epochs belongs to --teacher train:NAME"),
        (("kd",), {"teacher": "train:resnet20", "norm": "cifar10"}, "--teacher-norm belongs to --teacher file:WEIGHTS"),
        (("kd",), {**FILE, "epochs": 3}, "--teacher-epochs belongs to --teacher train:NAME"),
    ],
)
def test_flag_that_no_loss_uses_is_refused(losses: tuple[str, ...], given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        held(*losses, **given)


def test_mistyped_kind_of_teacher_is_left_to_who_knows_the_kinds() -> None:
    held("kd", teacher="fil:w", arch="resnet56")
