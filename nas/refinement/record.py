"""``refine.jsonl``: one appended row for each proposal that was fine-tuned; accepted steps are rows of ``candidates.jsonl`` besides."""

from pathlib import Path

import msgspec

from nas.errors import NasError, RunConflict
from nas.refinement.places import Place
from nas.refinement.settings import Refinement
from nas.store import append_rows, drop_torn_line, write_atomic
from search_spaces.architecture import Architecture

__all__ = ["Record", "Scale", "Tried", "check_settings", "is_finished", "keep_scale", "kept_scale", "open_record"]

ROWS, SETTINGS, ENDED, SCALE = "refine.jsonl", "refine.json", "refine-ended.json", "refine-scale.json"


class Tried(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fine-tuned proposal of a step, or with no ``place`` the step's network left as it is, trained just as long.

    ``ms`` is the estimate it was sized by; ``score`` is of the held-out training images, ``score_se`` its standard error.
    """

    step: int
    parent_id: str
    arch: Architecture
    place: Place | None = None
    size: int = 0
    ms: float
    score: float | None = None
    score_se: float = 0.0
    seconds: float = 0.0
    error: str = ""


class _Ended(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The step that no proposal was accepted of, and why."""

    step: int
    reason: str


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the device can tell apart, as it was when the run began: ``least_ms`` is twice the ± of the seed's nearest relative, timed in
    turns with it, and ``timing_s`` the wall seconds that timing three networks so took."""

    least_ms: float
    timing_s: float


class Record:
    """The proposals tried so far, by step and architecture."""

    def __init__(self, path: Path, rows: tuple[Tried, ...]) -> None:
        self._path = path
        self._rows = {(row.step, row.arch.id): row for row in rows}

    def add(self, row: Tried) -> None:
        """Takes in a row once it is on the disk; raises Stopped as ``append_rows``."""
        append_rows(self._path, [row])
        self._rows[row.step, row.arch.id] = row

    def of_step(self, step: int, parent_id: str) -> dict[str, Tried]:
        """The step's rows by architecture, the parent's own among them."""
        return {i: row for (s, i), row in self._rows.items() if s == step and row.parent_id == parent_id}

    def end(self, step: int, reason: str) -> None:
        """Notes that the device found no proposal of a step faster: it would take long to find that out again."""
        write_atomic(self._path.with_name(ENDED), msgspec.json.encode(_Ended(step=step, reason=reason)))

    def reopen(self) -> None:
        """Forgets that the path ended: a new start looks again."""
        self._path.with_name(ENDED).unlink(missing_ok=True)

    def ended(self, step: int) -> str:
        """Why the path ended at this step, "" where that is not noted."""
        path = self._path.with_name(ENDED)
        noted = msgspec.json.decode(path.read_bytes(), type=_Ended) if path.exists() else None
        return noted.reason if noted and noted.step == step else ""

    @property
    def rows(self) -> list[Tried]:
        """All of them, oldest first."""
        return list(self._rows.values())


def kept_scale(folder: Path) -> Scale | None:
    """That of the run in a folder, if it has begun."""
    path = folder / SCALE
    return msgspec.json.decode(path.read_bytes(), type=Scale) if path.exists() else None


def keep_scale(folder: Path, scale: Scale) -> None:
    """Notes it: a run that is taken up sizes its steps as before."""
    write_atomic(folder / SCALE, msgspec.json.encode(scale))


def check_settings(folder: Path, settings: Refinement) -> None:
    """Refuses a folder that holds another refinement; writes nothing.

    Raises:
        RunConflict: names what differs.
    """
    path = folder / SETTINGS
    if not path.exists():
        if (folder / "candidates.jsonl").exists():
            raise RunConflict(f"--out {folder} holds a run that is no refinement; name another --out")
        return
    old = msgspec.json.decode(path.read_bytes(), type=Refinement)
    free = {"origin", "search"} | ({"search_in"} if not old.search else set())
    changed = [k for k in Refinement.__struct_fields__ if k not in free and getattr(old, k) != getattr(settings, k)]
    changed += ["search"] * (settings.search < old.search)  # more may follow later
    if changed:
        what = "; ".join(f"{k} is {getattr(old, k)} there, {getattr(settings, k)} here" for k in changed)
        raise RunConflict(f"--out {folder} holds another refinement ({what}); name another --out")


def is_finished(folder: Path, settings: Refinement) -> bool:
    """Whether the run in a folder has all that these settings, checked before, ask for."""
    if not (folder / "path.csv").exists():
        return False
    return settings.search == msgspec.json.decode((folder / SETTINGS).read_bytes(), type=Refinement).search


def open_record(folder: Path, settings: Refinement) -> Record:
    """The record in a run folder that is open for writing; the settings are noted beside it.

    Raises:
        NasError: a line is no row; names it.
    """
    write_atomic(folder / SETTINGS, msgspec.json.format(msgspec.json.encode(settings), indent=1))
    path = folder / ROWS
    drop_torn_line(path)
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        try:
            rows.append(msgspec.json.decode(line, type=Tried))
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise NasError(f"{path}:{number}: not a proposal ({error}); was the file edited? Remove that line to go on") from error
    return Record(path, tuple(rows))
