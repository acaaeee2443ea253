"""From what a user asks for (losses, options, a sweep) to the list of lessons, each checked before anything is trained."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
import torch

from nas.distillation.lesson import PLAIN, LessonConfig, Option, Start, TeacherSpec
from nas.errors import InvalidConfig, InvalidTeacher, UnknownName
from nas.losses import LOSSES

__all__ = ["SHARED", "label", "lessons", "options_of"]

SHARED = ("weight", "task_weight", "warmup")  # of every lesson, beside its loss's own options


def options_of(loss: str) -> dict[str, Option | None]:
    """The options of a loss and their defaults; None where the source gives none and one must be set.

    >>> options_of("nkd")
    {'gamma': 1.5, 'temperature': 1.0}
    """
    parameters = inspect.signature(LOSSES[loss].module).parameters.values()
    keyword = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {p.name: None if p.default is inspect.Parameter.empty else p.default for p in keyword}


def lessons(
    losses: Sequence[str], *, settings: Mapping[str, Option] = MappingProxyType({}),
    sweep: Mapping[str, Sequence[Option]] = MappingProxyType({}), teacher: TeacherSpec | None = None, online: str = "",
    start: Start = "scratch",
) -> list[LessonConfig]:  # fmt: skip
    """Every lesson asked for, in order: each loss with its settings, once for each combination of swept values that it knows.

    ``plain`` among the losses is training without a lesson. A setting goes to the losses that know it.

    Raises:
        UnknownName: no such loss; a setting that none of the losses knows.
        InvalidConfig: a value breaks a rule of its loss, or an option without a default is not set.
        InvalidTeacher: a loss needs a teacher that was not given.
    """
    for loss in losses:
        if loss not in (PLAIN, *LOSSES):
            raise UnknownName.among("loss", loss, [PLAIN, *LOSSES])
    known = {name for loss in losses if loss != PLAIN for name in (*options_of(loss), *SHARED)}
    for name in (*settings, *sweep):
        if not known:
            raise InvalidConfig(f"{name} is an option of losses, and {', '.join(losses)} has none")
        if name not in known:
            raise UnknownName.among(f"option of {', '.join(losses)}", name, sorted(known))
    if both := sorted(settings.keys() & sweep.keys()):
        raise InvalidConfig(f"{both[0]} is given to --set and to --sweep; give it to one of them")
    found: list[LessonConfig] = []
    for loss in dict.fromkeys(losses):
        mine = {name: values for name, values in sweep.items() if loss != PLAIN and name in (*options_of(loss), *SHARED)}
        picked = [dict(zip(mine, values, strict=True)) for values in itertools.product(*mine.values())]
        found += [_lesson(loss, {**settings, **values}, teacher, online, start) for values in picked]
    return found


def _lesson(
    loss: str, given: Mapping[str, Option], teacher: TeacherSpec | None, online: str, start: Start
) -> LessonConfig:
    if loss == PLAIN:
        return LessonConfig(loss=loss, start=start)
    method, defaults = LOSSES[loss], options_of(loss)
    if method.needs == "landmarks":
        raise InvalidTeacher(f"--loss {loss} is for landmarks, and no task here has them; nas.losses has it for your own training")
    if method.needs == "teacher" and teacher is None:
        raise InvalidTeacher(f"--loss {loss} needs --teacher")
    if method.needs == "online" and not online:
        raise InvalidTeacher(f"--loss {loss} trains its teacher along: name it with --online-teacher, such as resnet20")
    options: dict[str, Option] = {}
    for name, default in defaults.items():
        value = given.get(name, default)
        if value is None:
            raise InvalidConfig(
                f"--loss {loss} has no known {name}: say {name}=... with --set (nas.distill) or --loss-set (nas.search), or try some with "
                f"--sweep {name}=...,... (nas.distill)"
            )
        if isinstance(default, str) != isinstance(value, str):
            raise InvalidConfig(f"{name} of {loss} must be a {'word' if isinstance(default, str) else 'number'}, got {value!r}")
        options[name] = value
    _try(loss, options)
    shared = _checked(loss, {name: given.get(name, value) for name, value in _shared_defaults(loss).items()})
    task_share, term_share = method.shares(options)
    if not shared["task_weight"] * task_share and not shared["weight"] * term_share:
        raise InvalidConfig(f"--loss {loss} would train on nothing: weight={shared['weight']:g} and task_weight={shared['task_weight']:g}")
    taught = teacher if method.needs == "teacher" else None
    return LessonConfig(
        loss=loss, options=options, weight=shared["weight"], task_weight=shared["task_weight"], warmup=shared["warmup"], start=start,
        teacher=taught.name if taught else "", teacher_sha256=taught.sha256 if taught else "",
        teacher_fed=taught.fed if taught else "",
        online=online if method.needs == "online" else "",
    )  # fmt: skip


def _shared_defaults(loss: str) -> dict[str, Option]:
    method = LOSSES[loss]
    return {"weight": method.weight, "task_weight": method.task_weight, "warmup": method.warmup}


def _checked(loss: str, shared: Mapping[str, Option]) -> dict[str, float]:
    for name, value in shared.items():
        most = 1.0 if name == "warmup" else float("inf")
        if isinstance(value, str) or not 0 <= value <= most or value == float("inf"):
            raise InvalidConfig(f"{name} of {loss} must be a number from 0{' to 1' if name == 'warmup' else ' on'}, got {value!r}")
    return {name: float(value) for name, value in shared.items()}


def _try(loss: str, options: Mapping[str, Option]) -> None:
    """Asks the loss once, on nothing much, so that a wrong value is refused now and not in a worker."""
    logits, y = torch.zeros(3, 3), torch.tensor([0, 1, 2])
    if LOSSES[loss].needs == "feature":
        LOSSES[loss].module(1, 3, **options)(logits, torch.zeros(3, 1, 1, 1), y)
    else:
        LOSSES[loss].module(**options)(logits, logits, y)


def label(lesson: LessonConfig) -> str:
    """The loss, and what of it is not at its default: ``kd temperature=2``.

    >>> label(LessonConfig(loss="kd", options={"temperature": 2.0}, task_weight=0.1, weight=0.9))
    'kd temperature=2'
    """
    if lesson.loss == PLAIN:
        return PLAIN
    given = lesson.options | {name: msgspec.structs.asdict(lesson)[name] for name in SHARED}
    defaults = options_of(lesson.loss) | _shared_defaults(lesson.loss)
    changed = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in given.items() if v != defaults.get(k)]
    return " ".join([lesson.loss, *changed])
