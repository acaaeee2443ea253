"""What a table's sessions say of the device, by hand arithmetic."""

from pathlib import Path

import msgspec
import pytest

from latency.table_record import Anchor, Record, Row, Session, TimedPiece, Timing, Written, append, read
from latency.table_sessions import changes, seconds_spent
from tests.latency.tables import HEAD, SMALL, conditions, timing

PIECE = Written.of(SMALL.pieces(HEAD)[0])


def record(path: Path, *rows: Row) -> Record:
    append(path, [conditions(), *rows])
    return read(path)


def session(*ms: float, at: str = "10:00:00") -> Session:
    return Session(anchors=tuple(Anchor(sha256=f"{i}", ms=v) for i, v in enumerate(ms)), taken_at=f"2026-01-02T{at}Z")


def timed(at: str) -> TimedPiece:
    taken: Timing = msgspec.structs.replace(timing(1.0), taken_at=f"2026-01-02T{at}Z")
    return TimedPiece(piece=PIECE, go=0, timing=taken)


def test_device_that_became_slower_as_a_whole_is_said_to_be_that(tmp_path: Path) -> None:
    (change,) = changes(record(tmp_path / "t.jsonl", session(1, 2, 4), session(1.2, 2.4, 4.8)))
    assert (change.speed, change.proportions) == pytest.approx((0.2, 0.0))
    assert change.text == "the device is 20% slower than when the table was begun, which is divided out"
    assert not change.is_uneven


def test_anchors_that_differ_among_each_other_are_a_reason_to_distrust(tmp_path: Path) -> None:
    # over their geometric mean, 2 ** (1/2): 2 is 41 % more
    (change,) = changes(record(tmp_path / "t.jsonl", session(1, 1), session(1, 2)))
    assert (change.speed, change.proportions) == pytest.approx((2**0.5 - 1, 2**0.5 - 1))
    assert change.is_uneven
    assert change.text.startswith("the networks that everything is held against differ by 41% among each other")


def test_small_change_is_nothing_to_say(tmp_path: Path) -> None:
    (change,) = changes(record(tmp_path / "t.jsonl", session(1, 2, 4), session(1.05, 2.04, 4.2)))
    assert change.text == ""


def test_every_session_is_held_against_the_first(tmp_path: Path) -> None:
    found = changes(record(tmp_path / "t.jsonl", session(1, 1), session(2, 2), session(3, 3)))
    assert [change.speed for change in found] == pytest.approx([1, 2])


@pytest.mark.parametrize("rows", [(), (session(1, 2),)])
def test_one_session_has_not_changed(tmp_path: Path, rows: tuple[Row, ...]) -> None:
    assert changes(record(tmp_path / "t.jsonl", *rows)) == []


def test_time_is_from_each_sessions_begin_to_its_last_figure(tmp_path: Path) -> None:
    # a slow batch of 10 minutes is work; half an hour between two sessions is none, and neither are 30 seconds
    first: list[Row] = [session(1, at="10:00:00"), timed("10:00:30"), timed("10:10:30")]
    others: list[Row] = [session(1, at="10:40:00"), timed("10:41:00"), session(1, at="10:41:30"), timed("10:42:00")]
    assert seconds_spent(record(tmp_path / "t.jsonl", *first, *others)) == 630 + 60 + 30


def test_session_that_timed_nothing_took_no_time(tmp_path: Path) -> None:
    assert seconds_spent(record(tmp_path / "t.jsonl", session(1))) == 0


def test_table_without_sessions_is_taken_to_have_paused_for_two_minutes_and_more(tmp_path: Path) -> None:
    assert seconds_spent(record(tmp_path / "t.jsonl", *map(timed, ("10:00:00", "10:00:30", "10:01:30", "12:00:00")))) == 90
