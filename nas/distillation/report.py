"""What a distillation shows: every lesson beside plain training of the same student with the same seeds, as table, CSV and figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from latency.console import Console
from nas.calibration import Calibration, draw_reliability
from nas.distillation.figure import draw_gains
from nas.distillation.lesson import PLAIN, LessonConfig
from nas.distillation.lessons import label
from nas.store import Candidate, write_atomic

__all__ = ["Gain", "Summary", "best_lessons", "paired", "summaries", "write"]

COLUMNS = (
    "student", "network", "lesson", "loss", "name", "seed", "epochs", "start", "teacher", "online_teacher", "valid_score", "test_score",
    "test_ece", "test_ece_scaled", "test_nll", "test_brier", "train_seconds",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """Mean of paired differences to plain training with the same seeds, its standard error, and the 95 % interval of Student's t.

    From one pair on; with a single one the other three are NaN.
    """

    mean: float
    error: float
    low: float
    high: float
    pairs: int

    @property
    def is_clear(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One student and lesson over its seeds. ``gain``: in test score (valid where there is none); ``ece_gain``: in test calibration
    error, where less is better. None for plain training, and without a seed that both were trained with."""

    student: Candidate
    lesson: LessonConfig
    rows: tuple[Candidate, ...]
    gain: Gain | None
    ece_gain: Gain | None = None
    differences: tuple[float, ...] = ()


def summaries(students: Sequence[Candidate], rows: Sequence[Candidate]) -> list[Summary]:
    """The rows by student and lesson, in the order of both."""
    found = []
    for student in students:
        mine = [r for r in rows if r.id == student.id and r.lesson]
        plain = [r for r in mine if r.lesson and r.lesson.loss == PLAIN]
        for lesson in list(dict.fromkeys(_identity(r.lesson) for r in mine if r.lesson)):
            same = tuple(r for r in mine if r.lesson and _identity(r.lesson) == lesson)
            assert same[0].lesson is not None, "rows without a lesson were left out"
            alone = [] if same[0].lesson.loss == PLAIN else plain
            found.append(
                Summary(
                    student=student, lesson=same[0].lesson, rows=same, gain=paired(same, alone), ece_gain=_gain(_pairs(same, alone, _ece)),
                    differences=tuple(_score_pairs(same, alone)),
                )
            )
    return found


def paired(rows: Sequence[Candidate], plain: Sequence[Candidate]) -> Gain | None:
    """The gain in score of trainings over plain ones with equal seeds, as a fraction; None where no seed is shared."""
    return _gain(_score_pairs(rows, plain))


def _score_pairs(rows: Sequence[Candidate], plain: Sequence[Candidate]) -> list[float]:
    is_tested = all(r.test_score is not None for r in (*rows, *plain))
    return _pairs(rows, plain, lambda row: _score(row, is_tested))


def _pairs(rows: Sequence[Candidate], plain: Sequence[Candidate], of: Callable[[Candidate], float | None]) -> list[float]:
    """Differences of a figure between rows with equal seeds, where both have it."""
    alone = {r.seed: value for r in plain if (value := of(r)) is not None}
    return [value - alone[r.seed] for r in rows if r.seed in alone and (value := of(r)) is not None]


def _gain(differences: Sequence[float]) -> Gain | None:
    from scipy.stats import t

    if not differences:
        return None
    pairs, middle = len(differences), mean(differences)
    error = stdev(differences) / math.sqrt(pairs) if pairs > 1 else math.nan
    half = float(t.ppf(0.975, pairs - 1)) * error if pairs > 1 else math.nan
    return Gain(mean=middle, error=error, low=middle - half, high=middle + half, pairs=pairs)


def _ece(row: Candidate) -> float | None:
    return row.test_calibration.ece if row.test_calibration else None


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
    """Prints the comparison and writes distilled.csv (a row for each training), distilled-summary.csv (for each student and lesson),
    distilled-gains.png and distilled-reliability.png into the run folder ``path``."""
    import pandas as pd

    summed = summaries(students, rows)
    console.table(
        f"{path}: students and lessons, mean over seeds ± standard deviation; gain: mean of the differences to plain training with the "
        "same seed (its 95 % interval, Student's t)",
        ("id", "network", "lesson", "seeds", "valid", "test", "gain", "test ECE", "test NLL"),
        [_shown(s) for s in summed],
    )
    table = pd.DataFrame([_cells(row) for row in rows], columns=list(COLUMNS))
    write_atomic(path / "distilled.csv", table.to_csv(index=False))
    write_atomic(path / "distilled-summary.csv", pd.DataFrame([_summary_cells(s) for s in summed]).to_csv(index=False))
    figures = {f"{s.student.baseline or s.student.id}\n{label(s.lesson)}": c for s in summed if (c := _figure_of(s)) is not None}
    drawn = []
    if figures:
        draw_reliability(figures, path / "distilled-reliability.png", title="reliability on the test images, first seed")
        drawn.append("distilled-reliability.png")
    if any(s.gain for s in summed):
        draw_gains([s for s in summed if s.gain], path / "distilled-gains.png")
        drawn.append("distilled-gains.png")
    if any(s.gain and not s.gain.is_clear for s in summed):
        console.say("a gain whose interval holds 0, or of one seed, may be noise; --seeds 5 --loss plain tells more")
    best = max(rows, key=lambda r: r.score or 0.0)
    console.say(f"wrote {', '.join([f'{path}/distilled.csv', 'distilled-summary.csv', *drawn])} and weights in {path}/models")
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
    gain = "–" if s.gain is None else _percent(s.gain, len(s.rows))
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


def _percent(gain: Gain, seeds: int) -> str:
    """The gain in points, its interval, and of how many pairs where some seeds have no partner."""
    interval = "" if math.isnan(gain.error) else f" ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
    return f"{100 * gain.mean:+.2f}{interval}" + (f", {gain.pairs} pair{'s' * (gain.pairs > 1)}" if gain.pairs < seeds else "")


def _summary_cells(s: Summary) -> dict[str, Any]:  # Any: a frame's cells
    tested = [r.test_calibration for r in s.rows if r.test_calibration]
    cells: dict[str, Any] = {"student": s.student.id, "network": s.student.baseline or "found", "lesson": label(s.lesson)}
    cells |= {"teacher": s.lesson.teacher or s.lesson.online, "epochs": s.rows[0].epochs, "seeds": len(s.rows)}
    figures: dict[str, list[float | None]] = {"valid": [r.score for r in s.rows], "test": [r.test_score for r in s.rows]}
    for name in ("ece", "ece_scaled", "nll", "brier"):
        figures[f"test_{name}"] = [getattr(c, name) for c in tested]
    for name, values in figures.items():
        known = [v for v in values if v is not None]
        cells |= {f"{name}_mean": mean(known) if known else None, f"{name}_std": stdev(known) if len(known) > 1 else None}
    for name, gain in (("gain", s.gain), ("ece_gain", s.ece_gain)):
        cells |= {f"{name}{k and '_' + k}": getattr(gain, k or "mean") if gain else None for k in ("", "low", "high", "pairs")}
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in cells.items()}


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
