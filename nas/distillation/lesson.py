"""What a student is taught, as values: the settings that a row keeps, and all that a worker needs to teach. Loads nothing heavy."""

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from search_spaces.architecture import Architecture

__all__ = ["PLAIN", "LessonConfig", "LessonJob", "Option", "Start", "TeacherSpec", "lesson_key", "sha256_of"]

PLAIN = "plain"
"""The name of training without a lesson: what every lesson is held against."""

Option = float | str
Start = Literal["scratch", "run", "bank"]


class LessonConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One way to teach: the training loss is ``task_weight`` · the task's + ``weight`` · the named loss's, with its ``options``;
    of skd (1 - alpha) and alpha of these (see ``nas.losses.Method``).

    ``warmup``: the fraction of the training over which the weight grows. ``teacher`` is a name, ``teacher_sha256`` the hash of its
    weights, and ``teacher_fed`` stands for how it is fed (see ``TeacherSpec``); ``online`` names the network that trains beside the
    student. ``start``: from fresh weights, the run's own, or those that it inherits from the run's bank.
    """

    loss: str
    options: dict[str, Option] = {}
    task_weight: float = 1.0
    weight: float = 1.0
    warmup: float = 0.0
    teacher: str = ""
    teacher_sha256: str = ""
    teacher_fed: str = ""
    online: str = ""
    start: Start = "scratch"


class TeacherSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A resolved teacher, enough to open it in any process. ``net`` is a reference or baseline name, "found" (``arch`` says which), or
    "torchvision:NAME", "timm:NAME". ``mean`` and ``std`` are in units of 0..1; None: the task's own. ``columns``: the outputs that are
    the task's classes, in their order; (): all of them. ``fed`` stands for the last four; "" where they are the task's own."""

    name: str
    net: str
    arch: Architecture | None = None
    weights: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_hw: tuple[int, int] | None = None  # what it was made for; None: any size
    sha256: str = ""
    columns: tuple[int, ...] = ()
    fed: str = ""


class LessonJob(msgspec.Struct, frozen=True, kw_only=True):
    """A lesson for a worker. ``cache``: folder for the teacher's outputs, or ""."""

    config: LessonConfig
    teacher: TeacherSpec | None = None
    cache: str = ""


def lesson_key(*parts: object) -> str:
    """Six hex digits that stand for these values (Structs, texts, numbers): equal values, equal key, in any process."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:6]


def sha256_of(path: Path) -> str:
    """The hash of a file's content, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
