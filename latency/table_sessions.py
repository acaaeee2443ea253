"""Sessions of a table's measuring: each begins with the anchors by themselves, which show what became of the device since the last one."""

import math
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise

import msgspec

from latency.devices.base import sha256
from latency.errors import InvalidTable
from latency.measurement import Measurement
from latency.table_record import Anchor, Record, Session, TimedNetwork, TimedPiece, append

__all__ = ["Change", "begin", "changes", "seconds_spent"]

SPEED, PROPORTIONS = 0.1, 0.1  # changes worth a sentence: of the whole device, and of the anchors among each other
PAUSE_S = 120.0  # in a table from before sessions were noted: what lies further apart was interrupted

Say = Callable[[str], None]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How a session's anchors differ from the first session's.

    ``speed`` is the latency of all of them over what it was, − 1, which the anchors divide out; ``proportions`` is how far one of
    them is off the others in that, which nothing divides out.
    """

    speed: float
    proportions: float

    @property
    def is_uneven(self) -> bool:
        """Whether the table is to be distrusted: an anchor is more than 10 % off the others."""
        return self.proportions > PROPORTIONS

    @property
    def text(self) -> str:
        """What there is to say, in a sentence; "" for a small change."""
        if self.is_uneven:
            off = f"the networks that everything is held against differ by {self.proportions:.0%} among each other from when it began"
            return f"{off}: the device does not run as it did; let it cool and stop other work on it, or build the table anew"
        if abs(self.speed) <= SPEED:
            return ""
        way = "slower" if self.speed > 0 else "faster"
        return f"the device is {abs(self.speed):.0%} {way} than when the table was begun, which is divided out"


def begin(record: Record, anchors: Sequence[bytes], taken: Sequence[Measurement], say: Say | None = None) -> None:
    """Notes a session in the table's file.

    Args:
        record: the table as read.
        anchors: the networks that everything will be timed beside.
        taken: what they took now.
        say: is told what became of the device since the first session, if it is worth a sentence.

    Raises:
        InvalidTable: the earlier sessions had other anchors; nothing is written.
    """
    found = [Anchor(sha256=sha256(model), ms=m.p50_ms) for model, m in zip(anchors, taken, strict=True)]
    session = Session(anchors=tuple(found), taken_at=max(m.taken_at for m in taken))
    before = record.of(Session)
    if before and [a.sha256 for a in before[0].anchors] != [a.sha256 for a in session.anchors]:
        raise InvalidTable(
            f"{record.path} was begun beside other networks than this program times, or than the device runs now: latencies beside "
            "these cannot be held against those; name another --out"
        )
    append(record.path, [session])
    if before and say and (text := _change(before[0], session).text):
        say(text)


def changes(record: Record) -> list[Change]:
    """What became of the device from its first session to each later one."""
    sessions = record.of(Session)
    return [_change(sessions[0], other) for other in sessions[1:]]


def seconds_spent(record: Record) -> float:
    """How long the device was at work on the record: from each session's begin to its last figure, waiting on the way among it."""
    spans: list[list[datetime]] = [[]]
    for row in record.rows:
        if isinstance(row, Session):
            spans.append([datetime.fromisoformat(row.taken_at)])
        elif isinstance(row, TimedPiece | TimedNetwork):
            spans[-1].append(datetime.fromisoformat(row.timing.taken_at))
    before, *sessions = spans
    gaps = [(b - a).total_seconds() for a, b in pairwise(sorted(before))]
    return sum(gap for gap in gaps if gap <= PAUSE_S) + sum((max(s) - min(s)).total_seconds() for s in sessions)


def _change(first: Session, other: Session) -> Change:
    logs = [math.log(now.ms / then.ms) for then, now in zip(first.anchors, other.anchors, strict=True)]
    mean = statistics.fmean(logs)
    return Change(speed=math.expm1(mean), proportions=math.expm1(max(abs(log - mean) for log in logs)))
