"""A latency table's file: lines of JSON, the conditions first, then what was measured, each written once and never changed."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import msgspec

from latency.calibration import TERMS, Calibration
from latency.errors import InvalidTable
from latency.measurement import DeviceInfo, Measurement
from latency.plan import TimingPlan
from search_spaces.architecture import Architecture, Block, Head, Piece, Shape

__all__ = [
    "AGAIN", "Anchor", "Calibrated", "Conditions", "Record", "Row", "Session", "TimedNetwork", "TimedPiece", "Timing", "Unable", "Use",
    "Written", "append", "locked", "pieces_sha256", "read",
]  # fmt: skip

VERSION = 1
AGAIN = -1

Use = Literal["fit", "held out"]


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="row", tag="table"):
    """The first line: of which space the table is, and on what and how it was measured.

    Every model is timed ``goes`` times with ``plan``, each time beside other models and long after the time before: what slows
    the device for seconds or minutes then hits no piece in all of them. ``fit`` and ``held_out`` count the whole networks.
    ``pieces_sha256`` is of the pieces themselves: a space may have changed behind its name. "": from before that was noted.
    """

    version: int = VERSION
    space: str
    width: float
    input_chw: Shape
    head: Head
    pieces: int
    device_spec: str
    runtime: str
    device: DeviceInfo
    plan: TimingPlan
    fit: int
    held_out: int
    seed: int
    pieces_sha256: str = ""

    @property
    def goes(self) -> int:
        """How often every piece and network is timed."""
        return self.plan.processes


class Anchor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network that is timed beside everything, by the SHA-256 of its model, and what it took when a session began."""

    sha256: str
    ms: float


class Session(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="row", tag="session"):
    """The device at the begin of a session, which the rows up to the next one are of; ``taken_at`` is ISO 8601 in UTC."""

    anchors: tuple[Anchor, ...]
    taken_at: str


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One measurement without its samples.

    ``ratio`` is the latency over that of the anchors, networks that are timed beside everything, in the same rounds: what slows
    the device as a whole is not in it. ``anchor_ms`` is what the anchors took (geometric mean).
    """

    ms: float
    low_ms: float
    high_ms: float
    runs: int
    doubts: tuple[str, ...] = ()
    ratio: float
    anchor_ms: float
    taken_at: str

    @classmethod
    def of(cls, measured: Measurement, *, ratio: float, anchor_ms: float) -> "Timing":
        """What of a measurement goes into the table."""
        low, high = measured.ci_ms
        return cls(
            ms=measured.p50_ms, low_ms=low, high_ms=high, runs=measured.runs, doubts=measured.problems(), ratio=ratio,
            anchor_ms=anchor_ms, taken_at=measured.taken_at,
        )  # fmt: skip


class Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A piece as it stands in the file: its layer under the name of its kind, so that it can be told when read."""

    block: Block | None = None
    head: Head | None = None
    in_chw: Shape
    dims: Literal[1, 2] = 2

    @classmethod
    def of(cls, piece: Piece) -> "Written":
        """The piece to be written."""
        kind = "head" if isinstance(piece.layer, Head) else "block"
        return cls(**{kind: piece.layer}, in_chw=piece.in_chw, dims=piece.dims)  # type: ignore[arg-type]  # one of the two

    def read(self) -> Piece:
        """The piece that was written."""
        layer = self.block or self.head
        assert layer is not None, "a piece has a layer"
        return Piece(layer=layer, in_chw=self.in_chw, dims=self.dims)


class TimedPiece(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="row", tag="piece"):
    """A piece by itself; go ``AGAIN`` is the one at the end that shows drift."""

    piece: Written
    go: int
    timing: Timing


class Unable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="row", tag="failed"):
    """A piece or a whole network that the device cannot run."""

    error: str
    piece: Written | None = None
    arch: Architecture | None = None


class TimedNetwork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="row", tag="network"):
    """A whole network, to calibrate by or to judge by."""

    arch: Architecture
    use: Use
    go: int
    timing: Timing


class Calibrated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="row", tag="calibration"):
    """The end of a finished table; of several the last counts."""

    calibration: Calibration


Row = Conditions | Session | TimedPiece | Unable | TimedNetwork | Calibrated
_R = TypeVar("_R", bound=msgspec.Struct)


class Record(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A table's file as read: its conditions and the rows behind them, oldest first."""

    path: Path
    conditions: Conditions
    rows: tuple[Row, ...]

    def of(self, kind: type[_R]) -> list[_R]:
        """The rows of a kind."""
        return [row for row in self.rows if isinstance(row, kind)]

    @cached_property
    def pieces(self) -> dict[Piece, dict[int, Timing]]:
        """The goes of every timed piece."""
        found: dict[Piece, dict[int, Timing]] = {}
        for row in self.of(TimedPiece):
            found.setdefault(row.piece.read(), {})[row.go] = row.timing
        return found

    @cached_property
    def networks(self) -> dict[Architecture, tuple[Use, dict[int, Timing]]]:
        """The use and the goes of every timed network."""
        found: dict[Architecture, tuple[Use, dict[int, Timing]]] = {}
        for row in self.of(TimedNetwork):
            found.setdefault(row.arch, (row.use, {}))[1][row.go] = row.timing
        return found

    @cached_property
    def calibration(self) -> Calibration | None:
        """The last calibration that has this program's terms; None where the table is not finished, or of an earlier version."""
        found = [row.calibration for row in self.of(Calibrated) if row.calibration.terms == TERMS]
        return found[-1] if found else None

    @cached_property
    def unable(self) -> dict[Piece, str]:
        """The pieces that the device cannot run, and why."""
        return {row.piece.read(): row.error for row in self.of(Unable) if row.piece}


def pieces_sha256(pieces: Sequence[Piece]) -> str:
    """SHA-256 of the pieces in their order, in hex."""
    return hashlib.sha256(msgspec.json.encode([Written.of(p) for p in pieces], order="sorted")).hexdigest()


def read(path: Path) -> Record:
    """The table in a file; a torn last line (killed in mid-write) is left out.

    Raises:
        InvalidTable: there is none, it is of another version, or a line is no row of one.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise InvalidTable(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    decoder = msgspec.json.Decoder(Row)
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(decoder.decode(line))
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidTable(f"{path}:{number}: no row of a latency table ({error}); was the file edited?") from error
    if not rows or not isinstance(rows[0], Conditions):
        raise InvalidTable(f"{path}: no latency table: its first line does not say what was measured")
    if rows[0].version != VERSION:
        raise InvalidTable(f"{path}: a latency table of version {rows[0].version}, and this program reads {VERSION}: build it anew")
    return Record(path=path, conditions=rows[0], rows=tuple(rows[1:]))


def append(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows at the end and waits until they are on disk; a torn line before them is cut off."""
    data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    with path.open("a+b") as file:
        file.truncate(_whole(file))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps a second builder away from the file; the lock is the operating system's and ends with this process.

    Raises:
        InvalidTable: another process builds this table.
    """
    import filelock

    lock = path.with_name(f".{path.name}.lock")
    try:
        with filelock.FileLock(lock, timeout=0):
            yield
    except filelock.Timeout as error:
        raise InvalidTable(f"{path} is being built by another process: wait for it, or name another --out") from error


def _whole(file: BinaryIO) -> int:
    """Bytes up to and with the last line break."""
    at = file.seek(0, os.SEEK_END)
    while at:
        start = max(0, at - 65536)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0
