"""What is said of a table made by hand."""

import io
import json
from pathlib import Path

import msgspec
import pytest

from latency.calibration import TERMS, Calibration, Judged
from latency.console import Console, open_console
from latency.table import LatencyTable, open_table
from latency.table_building import Work
from latency.table_record import AGAIN, Anchor, Calibrated, Record, Row, Session, TimedPiece, Timing, Unable, Written, append, read
from latency.table_report import announce, as_json, between_goes, show
from tests.latency.tables import HEAD, SMALL, built, conditions, timing

PIECES = SMALL.pieces(HEAD)[:4]
NOW = "2026-01-02T10:00:00Z"
FAIR = Judged(networks=5, mape=0.021, bias=-0.004, worst=0.08, within_5=0.8, within_10=1, spearman=0.992)
GOOD = Calibration(
    terms=TERMS, coefficients=(0, 1, *[0] * 9), penalty=1, fitted=10, ratio_90=1.25, held_out=FAIR, line=FAIR, sum_alone=FAIR
)


def rows(go: int, timings: list[Timing]) -> list[Row]:
    return [TimedPiece(piece=Written.of(p), go=go, timing=t) for p, t in zip(PIECES, timings, strict=True)]


def record(path: Path, *found: Row) -> Record:
    append(path, [conditions(), *found, Calibrated(calibration=GOOD)])
    return read(path)


def streams() -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return open_console(out, err), out, err


def shown(path: Path, *found: Row) -> tuple[str, str]:
    """What goes to stdout and to stderr."""
    record(path, *found)
    return shown_of(open_table(path))


def shown_of(table: LatencyTable) -> tuple[str, str]:
    console, out, err = streams()
    show(table, console)
    return out.getvalue(), err.getvalue()


def at(moment: str) -> Timing:
    return msgspec.structs.replace(timing(1.0), taken_at=f"2026-01-02T{moment}Z")


def test_errors_and_the_interval_are_shown(tmp_path: Path) -> None:
    out, err = shown(tmp_path / "t.jsonl", *rows(0, [timing(1.0)] * 4))
    assert "pieces measured: 4 of" in out
    assert "calibrated   2.1%         80%         100%   8.0%     0.992  -0.4%" in out
    assert "83% prediction interval: from -20.0% to +25.0% of the estimate" in out
    assert "warning" not in err


def test_sessions_are_told_and_uneven_anchors_warned_of(tmp_path: Path) -> None:
    first, even, uneven = (Session(anchors=(Anchor(sha256="a", ms=1.0), Anchor(sha256="b", ms=ms)), taken_at=NOW) for ms in (1.0, 1.1, 2.0))
    out, err = shown(tmp_path / "even.jsonl", first, *rows(0, [timing(1.0)] * 4), even)
    # the mean of 1 and 1.1 in logarithms
    assert "sessions: 2; the device was +4.9% off the first one's latency at most" in out
    assert "warning" not in err
    _, err = shown(tmp_path / "uneven.jsonl", first, *rows(0, [timing(1.0)] * 4), uneven)
    assert "warning: the networks that everything is held against differ by 41%" in err


def test_error_of_the_predictor_is_told(tmp_path: Path) -> None:
    out, _ = shown_of(built(tmp_path / "t.jsonl"))
    found = json.loads(as_json(open_table(tmp_path / "t.jsonl")))["predictor"]
    factor = f"to within a factor of {found['ratio_90']:.2f} in nine cases of ten, MAPE {found['mape']:.1%}"
    assert f"pieces that it lacks can be predicted {factor}" in out
    assert found["pieces"] == len(SMALL.pieces(HEAD))
    assert 0 < found["mape"] < found["ratio_90"] - 1


def test_table_too_small_to_predict_by_has_no_predictor(tmp_path: Path) -> None:
    out, _ = shown(tmp_path / "t.jsonl", *rows(0, [timing(1.0)] * 4))
    assert "predicted" not in out
    assert json.loads(as_json(open_table(tmp_path / "t.jsonl")))["predictor"] is None


def test_goes_are_compared_at_their_anchors_speed(tmp_path: Path) -> None:
    first, second = [timing(1.0)] * 4, [timing(2.2, anchor_ms=2.0)] * 4  # ratios 1 and 1.1
    found = between_goes(record(tmp_path / "t.jsonl", *rows(0, first), *rows(1, second)))
    assert found == pytest.approx(0.1 / 1.05)


def test_drift_above_3_percent_is_warned_of(tmp_path: Path) -> None:
    _, err = shown(tmp_path / "t.jsonl", *rows(0, [timing(1.0)] * 4), *rows(AGAIN, [timing(1.05)] * 4))
    assert "warning: the device drifted by more than 3 %" in err


def test_drift_of_2_percent_is_told_and_not_warned_of(tmp_path: Path) -> None:
    out, err = shown(tmp_path / "t.jsonl", *rows(0, [timing(1.0)] * 4), *rows(AGAIN, [timing(1.02)] * 4))
    assert "drift: 4 pieces timed once more at the end differ by 2.0% (median), +2.0% on the whole" in out
    assert "warning" not in err


def test_many_doubtful_timings_are_warned_of_with_the_usual_reason(tmp_path: Path) -> None:
    doubtful = msgspec.structs.replace(timing(1.0), doubts=("the core was shared",))
    _, err = shown(tmp_path / "t.jsonl", *rows(0, [timing(1.0), doubtful, doubtful, doubtful]))
    assert "warning: 75% of the timings are doubtful by themselves, such as: the core was shared" in err


def test_pieces_that_cannot_run_are_named_up_to_three(tmp_path: Path) -> None:
    failed = [Unable(piece=Written.of(p), error=f"no {i}") for i, p in enumerate(SMALL.pieces(HEAD)[4:9])]
    _, err = shown(tmp_path / "t.jsonl", *rows(0, [timing(1.0)] * 4), *failed)
    assert err.count("warning: the device cannot run") == 3
    assert "nor 2 other pieces" in err


def test_json_tells_what_failed_and_how_long_it_took(tmp_path: Path) -> None:
    failed = Unable(piece=Written.of(SMALL.pieces(HEAD)[5]), error="no")
    record(tmp_path / "t.jsonl", *rows(0, [at("10:00:00"), at("10:00:07")] * 2), failed)
    found = json.loads(as_json(open_table(tmp_path / "t.jsonl")))
    assert (found["seconds"], found["drift"], found["pieces"], found["failed"][0]["error"]) == (7, None, 4, "no")


def test_work_is_announced_with_its_longest_time(tmp_path: Path) -> None:
    console, _, err = streams()
    announce(record(tmp_path / "t.jsonl"), Work(pieces=320, again=0, networks=80), console)
    # a piece takes at most 5 · 10 + 80 ms, a network 5 · 10 + 250; 3 anchors beside each 32 pieces and each 8 networks
    longest_s = 320 * 35 / 32 * 0.13 + 80 * 11 / 8 * 0.3
    assert f"at most about {int(longest_s // 60)} min {round(longest_s % 60)} s" in err.getvalue()
