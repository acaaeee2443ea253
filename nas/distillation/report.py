"""What a distillation shows: every lesson beside plain training of the same student with the same seeds, as table, CSV and figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from latency.console import Console
from nas.calibration import Calibration, draw_reliability
from nas.distillation.lesson import PLAIN, LessonConfig
from nas.distillation.lessons import label
from nas.store import Candidate, write_atomic

__all__ = ["Summary", "best_lessons", "paired", "summaries", "write"]

COLUMNS = (
    "student", "network", "lesson", "loss", "name", "seed", "epochs", "start", "teacher", "online_teacher", "valid_score", "test_score",
    "test_ece", "test_ece_scaled", "test_nll", "test_brier", "train_seconds",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One student and lesson over its seeds. ``gain``: mean and standard error of the paired differences in test score (valid
    where there is none) to plain training with the same seeds; None without it, error NaN from one seed."""

    student: Candidate
    lesson: LessonConfig
    rows: tuple[Candidate, ...]
    gain: tuple[float, float] | None


def summaries(students: Sequence[Candidate], rows: Sequence[Candidate]) -> list[Summary]:
    """The rows by student and lesson, in the order of both."""
    found = []
    for student in students:
        mine = [r for r in rows if r.id == student.id and r.lesson]
        plain = [r for r in mine if r.lesson and r.lesson.loss == PLAIN]
        for lesson in list(dict.fromkeys(_identity(r.lesson) for r in mine if r.lesson)):
            same = tuple(r for r in mine if r.lesson and _identity(r.lesson) == lesson)
            assert same[0].lesson is not None, "rows without a lesson were left out"
            gain = None if same[0].lesson.loss == PLAIN else paired(same, plain)
            found.append(Summary(student=student, lesson=same[0].lesson, rows=same, gain=gain))
    return found


def paired(rows: Sequence[Candidate], plain: Sequence[Candidate]) -> tuple[float, float] | None:
    """Mean and standard error of the difference between trainings with equal seeds, as fractions; None where no seed is shared."""
    is_tested = all(r.test_score is not None for r in (*rows, *plain))
    scores = {r.seed: _score(r, is_tested) for r in plain}
    differences = [_score(r, is_tested) - scores[r.seed] for r in rows if r.seed in scores]
    if not differences:
        return None
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    return mean(differences), error


def best_lessons(rows: Sequence[Candidate]) -> list[Candidate]:
    """All rows of the lesson that is best on valid (mean over seeds) for each student and loss."""
    by_lesson: dict[tuple[str, str, str], list[Candidate]] = {}
    for row in rows:
        if row.lesson:
            by_lesson.setdefault((row.id, row.lesson.loss, _identity(row.lesson)), []).append(row)
    found: dict[tuple[str, str], list[Candidate]] = {}
    for (student, loss, _), same in by_lesson.items():
        if mean(r.score or 0.0 for r in same) > mean([r.score or 0.0 for r in found.get((student, loss), [])] or [-1.0]):
            found[student, loss] = same
    return [row for same in found.values() for row in same]


def write(path: Path, students: Sequence[Candidate], rows: Sequence[Candidate], console: Console) -> None:
    """Prints the comparison and writes distilled.csv and distilled-reliability.png into the run folder ``path``."""
    import pandas as pd

    summed = summaries(students, rows)
    console.table(
        f"{path}: students and lessons, mean over seeds ± standard deviation; gain: paired with plain training of the same seed",
        ("id", "network", "lesson", "seeds", "valid", "test", "gain", "test ECE", "test NLL"),
        [_shown(s) for s in summed],
    )
    table = pd.DataFrame([_cells(row) for row in rows], columns=list(COLUMNS))
    write_atomic(path / "distilled.csv", table.to_csv(index=False))
    figures = {f"{s.student.baseline or s.student.id}\n{label(s.lesson)}": c for s in summed if (c := _figure_of(s)) is not None}
    if figures:
        draw_reliability(figures, path / "distilled-reliability.png", title="reliability on the test images, first seed")
    if any(s.gain and not abs(s.gain[0]) > 2 * s.gain[1] for s in summed):
        console.say("a gain within two standard errors (or from one seed) may be noise; --seeds 5 --loss plain tells more")
    best = max(rows, key=lambda r: r.score or 0.0)
    console.say(f"wrote {path}/distilled.csv and {'distilled-reliability.png, ' * bool(figures)}weights in {path}/models")
    console.say(f"next: python -m nas.export {path} --model {best.name}")


def _identity(lesson: LessonConfig) -> str:
    import msgspec

    return msgspec.json.encode(lesson, order="sorted").decode()


def _score(row: Candidate, is_tested: bool) -> float:
    return (row.test_score if is_tested else row.score) or 0.0


def _figure_of(summary: Summary) -> Calibration | None:
    return summary.rows[0].test_calibration


def _shown(s: Summary) -> tuple[str, ...]:
    tested = [r.test_calibration for r in s.rows if r.test_calibration]
    gain = "–"
    if s.gain is not None:
        gain = f"{100 * s.gain[0]:+.2f}" + (f" ±{100 * s.gain[1]:.2f}" if not math.isnan(s.gain[1]) else "")
    return (
        s.student.id, s.student.baseline or "found", label(s.lesson), str(len(s.rows)), _spread([r.score for r in s.rows]),
        _spread([r.test_score for r in s.rows]), gain,
        f"{100 * mean(c.ece for c in tested):.2f} %" if tested else "–", f"{mean(c.nll for c in tested):.3f}" if tested else "–",
    )  # fmt: skip


def _spread(scores: Sequence[float | None]) -> str:
    """Mean and, from two values on, standard deviation in per cent."""
    known = [100 * s for s in scores if s is not None]
    if not known:
        return "–"
    return f"{mean(known):.2f}" + (f" ±{stdev(known):.2f}" if len(known) > 1 else "")


def _cells(row: Candidate) -> dict[str, Any]:  # Any: a frame's cells
    assert row.lesson is not None, "distilled rows have a lesson"
    lesson, tested = row.lesson, row.test_calibration
    return {
        "student": row.id, "network": row.baseline or "found", "lesson": label(lesson), "loss": lesson.loss, "name": row.name,
        "seed": row.seed, "epochs": row.epochs, "start": lesson.start, "teacher": lesson.teacher, "online_teacher": lesson.online,
        "valid_score": row.score, "test_score": row.test_score, "test_ece": tested and tested.ece,
        "test_ece_scaled": tested and tested.ece_scaled, "test_nll": tested and tested.nll, "test_brier": tested and tested.brier,
        "train_seconds": round(row.seconds, 1),
    }  # fmt: skip
