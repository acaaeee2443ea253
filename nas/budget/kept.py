"""What a run with a budget keeps in ``budget.json``: which fields the program chooses, the plan, and the time that is used."""

import time
from pathlib import Path

import msgspec

from nas.budget.split import BUDGETED, Plan
from nas.config import RunConfig, config_from_file
from nas.errors import NasError
from nas.store import BANK_FILE, BUDGET_FILE, write_atomic

__all__ = ["Kept", "TakenUp", "closed", "keep", "kept_budget", "take_up"]

SIGNS = ("candidates.jsonl", "study.journal", BANK_FILE, BUDGET_FILE, "models", "weights")  # what a start that was killed wrote last


class Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``free``: the fields that are chosen; ``began_at``: Unix time of a start that has not ended, 0 where none is open;
    ``used_s``: wall seconds of the starts before that; ``searched_s`` and ``searched_trials``: the budget and the trials for which the
    search came to its end, 0 before that: from then on the numbers of the full trainings are settled."""

    free: tuple[str, ...]
    plan: Plan
    began_at: float
    used_s: float = 0.0
    searched_s: float = 0.0
    searched_trials: int = 0


class TakenUp(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration with the numbers that its run folder has, the fields still to be chosen, and what is kept there, if anything."""

    config: RunConfig
    free: frozenset[str]
    used_s: float = 0.0
    kept: Kept | None = None

    @property
    def open_fields(self) -> frozenset[str]:
        """Of ``free``, what is not settled yet: a begun search keeps its epochs, and begun full trainings keep theirs."""
        if self.kept is None:
            return self.free
        if self.is_searched:
            return frozenset()
        return self.free & (frozenset({"trials"}) if self.kept.searched_s else BUDGETED - {"epochs"})

    @property
    def is_searched(self) -> bool:
        """Whether the search is over: it goes on with more budget or trials only, so that a kill during full trainings changes no front."""
        if self.kept is None or not 0 < (self.config.budget_s or 0.0) <= self.kept.searched_s:
            return False
        return "trials" in self.free or self.config.trials <= self.kept.searched_trials


def take_up(config: RunConfig, free: frozenset[str], out: Path) -> TakenUp:
    """What the run in ``out`` has already settled of the fields in ``free``, which the user did not set; nothing for a new run.

    Fields that an earlier start chose stay chosen where they are given as they are there, as by the run's own config.json.

    Raises:
        NasError: a damaged budget.json.
    """
    kept, free = kept_budget(out), free if config.budget_s else frozenset()
    if not (out / "config.json").exists():
        return TakenUp(config=config, free=free)
    there = config_from_file(out / "config.json", {})
    if kept is None:  # begun without a budget: its numbers stay, but for how far it goes
        config = msgspec.structs.replace(config, **{name: getattr(there, name) for name in free - {"trials"}})
        return TakenUp(config=config, free=free & {"trials"})
    again = frozenset(name for name in kept.free if name in free or getattr(config, name) == getattr(there, name))
    config = msgspec.structs.replace(config, **{name: getattr(there, name) for name in again})
    return TakenUp(config=config, free=again if config.budget_s else frozenset(), used_s=_used_s(kept, out), kept=kept)


def kept_budget(out: Path) -> Kept | None:
    """What is noted in a run folder; None for a run without a budget.

    Raises:
        NasError: a damaged file.
    """
    path = out / BUDGET_FILE
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except (msgspec.DecodeError, OSError) as error:
        raise NasError(f"{path}: not readable ({error}); remove it to go on with the numbers of config.json") from error


def keep(out: Path, kept: Kept) -> None:
    """Notes it, all of it or nothing."""
    write_atomic(out / BUDGET_FILE, msgspec.json.format(msgspec.json.encode(kept), indent=1))


def closed(kept: Kept, seconds: float) -> Kept:
    """The note at the end of a start that took so long."""
    return msgspec.structs.replace(kept, began_at=0.0, used_s=kept.used_s + seconds)


def _used_s(kept: Kept, out: Path) -> float:
    """Seconds of all starts: of one that was killed, up to the last sign of it."""
    if not kept.began_at:
        return kept.used_s
    last = max((out / name).stat().st_mtime for name in SIGNS if (out / name).exists())
    return kept.used_s + max(0.0, min(last, time.time()) - kept.began_at)
