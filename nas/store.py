"""A run folder: ``candidates.jsonl`` is the record of truth, one appended and synced row per finished candidate."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from latency import Measurement
from nas.calibration import Calibration
from nas.config import OF_A_DEVICE, RESUMABLE, RunConfig, config_from_file
from nas.cost import Cost
from nas.distillation.lesson import LessonConfig
from nas.errors import NasError, RunConflict, Stopped
from search_spaces.architecture import Architecture

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BANK_FILE", "BUDGET_FILE", "Candidate", "Latency", "Run", "RunFolder", "append_rows", "check_out", "drop_torn_line", "load_run",
    "open_run", "write_atomic", "write_config",
]  # fmt: skip

BANK_FILE = "bank.safetensors"
BUDGET_FILE = "budget.json"


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A measured latency as a row keeps it: median and 95 % interval in ms, what is wrong with it, if anything, and when it was taken.

    Of a refinement all but the seed's are told by their ratio to it, and so is the interval (``nas.refinement.beside``).
    """

    p50_ms: float
    low_ms: float
    high_ms: float
    problems: tuple[str, ...] = ()
    taken_at: str = ""  # ISO 8601, UTC

    @classmethod
    def of(cls, measurement: Measurement) -> "Latency":
        """The row's form of a raw measurement."""
        low_ms, high_ms = measurement.ci_ms
        return cls(
            p50_ms=measurement.p50_ms, low_ms=low_ms, high_ms=high_ms, problems=measurement.problems(), taken_at=measurement.taken_at,
        )  # fmt: skip


class Candidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One finished candidate: a search proposal (trained, or scored with inherited weights), a step of a refinement, a network trained in
    full, a baseline, or one of these distilled.

    ``status``: ``trained``; ``infeasible`` (over ``max_ms``, never trained); ``duplicate`` (answered from the
    row of ``duplicate_of``); ``failed`` (``error`` holds the traceback). ``score`` is of the valid split, of a
    ``refine`` row (source ``short``) of training images held out; ``test_score`` only of finals: ``tuned`` ones did not begin anew.
    A source is ``store`` where an earlier row or an earlier run has the figure, ``estimate`` where a latency table has it and nothing
    was timed. A candidate that is measured after all has another row, and the later one counts.
    A distilled row has its student's architecture, so it is told apart by ``name``.
    """

    stage: Literal["search", "refine", "final", "distill"]
    status: Literal["trained", "infeasible", "duplicate", "failed"]
    arch: Architecture
    seed: int
    number: int | None = None  # the proposal's number; finals have none
    baseline: str = ""  # "mobilenet_v2 x0.35"
    picks: dict[str, str | int | float] = {}
    cost: Cost | None = None
    latency: Latency | None = None
    latency_source: Literal["", "measured", "store", "estimate"] = ""
    score: float | None = None
    test_score: float | None = None
    score_source: Literal["", "alone", "inherited", "full", "store", "short", "tuned"] = ""
    epochs: int = 0
    seconds: float = 0.0
    weights: str = ""  # path inside the run folder
    duplicate_of: int | None = None  # the number of the proposal whose row answered this one
    calibration: Calibration | None = None  # of the valid split
    test_calibration: Calibration | None = None
    parent_id: str = ""  # the candidate whose architecture or weights this one goes on from
    key: str = ""  # tells trainings of one architecture apart: hash of all that determines a distillation
    lesson: LessonConfig | None = None
    lr: float | None = None  # of a distillation, where it is not the run's
    terms: dict[str, tuple[float, ...]] = {}  # mean of each term of the loss, per epoch
    error: str = ""

    @property
    def id(self) -> str:
        """The architecture's id."""
        return self.arch.id

    @property
    def name(self) -> str:
        """The id, and behind it the key of a distilled row: what its files are called."""
        return f"{self.id}-{self.key}" if self.key else self.id


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """An open run: its path, and its rows as read when it was opened."""

    path: Path
    rows: tuple[Candidate, ...]

    def append(self, *rows: Candidate) -> None:
        """Appends rows, all of them or none, and waits until they are on the disk.

        Raises:
            Stopped: the disk does not take it; a part that it took is dropped when the run is opened again.
        """
        append_rows(self.path / "candidates.jsonl", rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run as pandas frames (one row a candidate; see front.csv for the columns) and its configuration."""

    path: Path
    config: RunConfig
    rows: tuple[Candidate, ...]
    candidates: "pd.DataFrame"
    front: "pd.DataFrame"
    baselines: "pd.DataFrame"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a whole file or nothing: a temporary file in the same folder, synced, then renamed over ``path``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)
        raise


def write_config(path: Path, config: RunConfig) -> None:
    """Writes the config.json of a run folder, all of it or nothing; without what is asked for once and changes no result."""
    lasting = msgspec.structs.replace(config, remeasure=False, reuse=None)
    write_atomic(path / "config.json", msgspec.json.format(msgspec.json.encode(lasting), indent=1))


def append_rows(path: Path, rows: Sequence[msgspec.Struct]) -> None:
    """Appends rows to a file of lines of JSON, all of them or none, and waits until they are on the disk.

    Raises:
        Stopped: as ``RunFolder.append``.
    """
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(fd, lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise Stopped(f"cannot write {path}: {error.strerror}; mend that, and the same command goes on from there") from error


def read_rows(path: Path) -> tuple[Candidate, ...]:
    """The rows of a candidates.jsonl, oldest first; a torn last line (killed in mid-write) is left out.

    Of a proposal, or a distillation, with several rows the last one counts, in the place of the first.

    Raises:
        NasError: another line is no row; names the line.
    """
    if not path.exists():
        return ()
    lines = path.read_bytes().split(b"\n")
    rows = []
    for i, line in enumerate(lines[:-1]):
        try:
            rows.append(msgspec.json.decode(line, type=Candidate))
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise NasError(f"{path}:{i + 1}: not a candidate ({error}); was the file edited? Remove that line to go on") from error
    return tuple({_place(i, r): r for i, r in enumerate(rows)}.values())


def _place(i: int, row: Candidate) -> int | str:
    if row.stage == "distill":
        return f"distilled {row.name}"
    return i if row.number is None else f"proposal {row.number}"


def check_out(path: Path, config: RunConfig) -> None:
    """Refuses a run folder that this configuration cannot go into; writes nothing.

    Raises:
        RunConflict: it holds another configuration, or something that is no run, or a search is at work in it.
    """
    if (path / ".lock").exists():
        with _locked(path):
            pass
    if (path / "config.json").exists():
        old = config_from_file(path / "config.json", {})
        free = RESUMABLE | (OF_A_DEVICE if config.remeasure else frozenset())
        changed = [k for k in RunConfig.__struct_fields__ if k not in free and getattr(old, k) != getattr(config, k)]
        if changed:
            what = "; ".join(f"{k} is {_short(getattr(old, k))} there, {_short(getattr(config, k))} here" for k in changed)
            raise RunConflict(f"--out {path} holds another configuration ({what}); name another --out")
    elif path.exists() and (not path.is_dir() or any(not p.name.startswith(".") and p.name != BUDGET_FILE for p in path.iterdir())):
        raise RunConflict(f"--out {path} exists and is no run folder; name another")


@contextmanager
def open_run(path: Path, config: RunConfig, *, first: Callable[[], None] = lambda: None) -> Iterator[RunFolder]:
    """Opens (or makes) a run folder for writing, locked against a second search for as long as the context lasts.

    The lock is the operating system's, so a killed search leaves none behind. ``first`` is called before anything else is written.

    Raises:
        RunConflict: the folder is in use, holds another configuration, or holds something that is no run.
    """
    check_out(path, config)
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        first()
        write_config(path, config)
        for where in (".", "models", "weights", "teachers"):
            for torn in [*path.glob(f"{where}/.*.tmp"), *path.glob(f"{where}/.*.safetensors.*")]:  # what a kill left half written
                torn.unlink(missing_ok=True)
        rows = read_rows(path / "candidates.jsonl")
        drop_torn_line(path / "candidates.jsonl")
        for folder in ("models", "weights"):
            (path / folder).mkdir(exist_ok=True)
        yield RunFolder(path=path, rows=rows)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import filelock

    try:
        with filelock.FileLock(path / ".lock", timeout=0):
            yield
    except filelock.Timeout as error:
        raise RunConflict(f"{path} is in use by another search; wait for it, or name another --out") from error


def load_run(path: str | Path) -> Run:
    """A run read back: ``.candidates``, ``.front`` and ``.baselines`` as pandas frames, ``.config``.

    Raises:
        NasError: no run folder, or a damaged one.
    """
    import pandas as pd

    path = Path(path)
    if not (path / "config.json").exists():
        raise NasError(f"{path} is no run folder (it has no config.json)")
    rows = read_rows(path / "candidates.jsonl")
    table = path / "front.csv"
    final = pd.read_csv(table, keep_default_na=False, na_values=[""], dtype={"id": str}) if table.exists() else pd.DataFrame()
    named = final["baseline"].notna() if len(final) else pd.Series(dtype=bool)
    return Run(
        path=path,
        config=config_from_file(path / "config.json", {}),
        rows=rows,
        candidates=pd.DataFrame([flat(r) for r in rows if r.stage == "search"], columns=list(_COLUMNS)),
        front=final[~named].reset_index(drop=True) if len(final) else final,
        baselines=final[named].reset_index(drop=True) if len(final) else final,
    )


_COLUMNS = (
    "number", "id", "status", "score", "latency_p50_ms", "latency_low_ms", "latency_high_ms", "latency_source", "macs",
    "params", "peak_activation_bytes", "epochs", "seconds", "duplicate_of", "error",
)  # fmt: skip


def flat(row: Candidate) -> dict[str, Any]:  # Any: a frame's cells
    """A row's figures by column name, for a frame."""
    own = ("number", "id", "status", "score", "latency_source", "epochs", "seconds", "duplicate_of", "error")
    cells: dict[str, Any] = {name: getattr(row, name) for name in own}
    if row.latency:
        cells |= {f"latency_{k}": getattr(row.latency, k) for k in ("p50_ms", "low_ms", "high_ms")}
    return cells | (msgspec.structs.asdict(row.cost) if row.cost else {})


def _short(value: object) -> str:
    return str(value) if not isinstance(value, msgspec.Struct) else "different"


def drop_torn_line(path: Path) -> None:
    """Cuts off what follows the last line break: the row that a kill left half written."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def by_number(rows: tuple[Candidate, ...]) -> Mapping[int, Candidate]:
    """The search's rows by proposal number."""
    return {r.number: r for r in rows if r.number is not None}
