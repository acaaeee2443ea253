"""Which stages there are, in which order, and which knobs belong to which. Loads nothing heavy."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from search_spaces.errors import UnknownName

if TYPE_CHECKING:
    from nas.config import RunConfig

__all__ = ["FIELDS_OF", "STAGES", "STAGE_FIELDS", "StageName", "USUAL_RATIO", "homeless", "parse_stages", "stage_rules"]

StageName = Literal["search", "refine", "distill"]
STAGES: tuple[StageName, ...] = ("search", "refine", "distill")
USUAL_RATIO = 0.7  # of its latency, that a network is refined to
FIELDS_OF = {
    "refine": ("refine_ratio", "refine_ms", "refine_members", "refine_steps", "refine_delta"),
    "distill": (
        "teacher", "teacher_arch", "teacher_norm", "teacher_epochs", "loss", "loss_options", "distill_epochs", "distill_baselines",
    ),
}  # fmt: skip
FLAG_OF = {"loss_options": "loss-set"}  # where it is not the field's name with hyphens
STAGE_FIELDS = frozenset({"stages", *(name for names in FIELDS_OF.values() for name in names)})


def parse_stages(text: str) -> tuple[str, ...]:
    """The names in a text such as ``search,refine,distill``; whether they can follow one another is the configuration's to say.

    Raises:
        UnknownName: no such stage; suggests the nearest.
    """
    names = tuple(part.strip().lower() for part in text.split(","))
    for name in names:
        if name not in STAGES:
            raise UnknownName.among("stage", name, STAGES)
    return names


def homeless(given: Iterable[str], stages: Iterable[str]) -> str:
    """What is wrong with fields that were given on the command line for a stage that is not among ``stages``; "" where nothing is."""
    names = set(stages)
    for stage, fields in FIELDS_OF.items():
        stray = [f for f in fields if f in set(given)]
        if stray and stage not in names:
            flag, wanted = FLAG_OF.get(stray[0], stray[0].replace("_", "-")), ",".join(s for s in STAGES if s in {*names, stage})
            return f"--{flag} belongs to the stage {stage}: add --stages {wanted}, or leave it out"
    return ""


def stage_rules(config: "RunConfig") -> dict[str, bool]:
    """The rules that a configuration's stages obey, and whether it obeys them."""
    asked, ordered = ",".join(config.stages), ",".join(s for s in STAGES if s in {"search", *config.stages})
    ratio, least_ms = config.refine_ratio, config.refine_ms
    epochs = {"teacher-epochs": config.teacher_epochs, "distill-epochs": config.distill_epochs}
    return {
        f"--stages {asked or 'of nothing'}: a run begins with its search, and each stage comes once and in order: --stages {ordered}; a "
        "finished search is not done again": asked == ordered,
        "--refine-ratio and --refine-ms both say how far to refine: give one of them": ratio is None or least_ms is None,
        f"--refine-ratio must lie between 0 and 1, got {ratio}": ratio is None or 0 < ratio < 1,
        f"--refine-ms must be a positive number, got {least_ms}": least_ms is None or 0 < least_ms < math.inf,
        f"--refine-members must be at least 1, got {config.refine_members}": config.refine_members >= 1,
        f"refine_steps (in a config file) must be at least 1, got {config.refine_steps}": config.refine_steps >= 1,
        f"refine_delta (in a config file) must lie between 0 and 1, got {config.refine_delta}": 0 < config.refine_delta < 1,
        **{f"{n.replace('-', '_')} (in a config file) must be at least 1, got {v}": v is None or v >= 1 for n, v in epochs.items()},
    }
