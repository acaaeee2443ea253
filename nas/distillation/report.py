"""What a distillation shows: every lesson beside plain training of the same student with the same seeds, as table, CSV and figure."""

import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from latency.console import Console
from nas.calibration import Calibration, draw_reliability
from nas.distillation.figure import FEWEST, draw_gains
from nas.distillation.lesson import PLAIN, LessonConfig, Start
from nas.distillation.lessons import label
from nas.store import Candidate, write_atomic

__all__ = ["Gain", "Summary", "best_lessons", "figure_names", "paired", "summaries", "told_apart", "write"]

COLUMNS = (
    "student", "network", "lesson", "loss", "name", "seed", "epochs", "lr", "start", "teacher", "teacher_sha256", "teacher_fed",
    "online_teacher", "valid_score", "test_score", "test_ece", "test_ece_scaled", "test_nll", "test_brier", "train_seconds",
)  # fmt: skip
ROUNDING = 1e-9  # an error below is that of subtracting floats, and the differences are equal
MENDABLE = 0.05  # of the calibration error, by a temperature: worth saying
TEACHER_FACTS = 3
MOST_COLUMNS, COLUMNS_USUAL = 8, 4  # panels of a figure side by side
STARTS: Mapping[Start, str] = {"scratch": "", "run": "from the run's weights", "bank": "from the run's bank"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """Mean of paired differences to plain training with the same seeds, its standard error, and the 95 % interval of Student's t.

    From one pair on; with a single one the other three are NaN. ``on``: the images that every pair was scored on.
    """

    mean: float
    error: float
    low: float
    high: float
    pairs: int
    on: Literal["test", "valid"]

    @property
    def is_clear(self) -> bool:
        """Whether 0 is outside the interval; of fewer than three pairs, or of equal ones, whose spread is not known, never."""
        return self.pairs >= FEWEST and self.error > ROUNDING and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One student and lesson over its seeds, with one recipe. ``gain``: in test score (valid where a pair has none); ``ece_gain``: in
    test calibration error, where less is better. None for plain training, and without a seed that both were trained with."""

    student: Candidate
    lesson: LessonConfig
    rows: tuple[Candidate, ...]
    gain: Gain | None
    ece_gain: Gain | None = None
    differences: tuple[float, ...] = ()


def summaries(students: Sequence[Candidate], rows: Sequence[Candidate]) -> list[Summary]:
    """The rows by student, lesson and recipe, in the order of the students and, for each alike, that in which the lessons come up first;
    gains are over plain trainings with the same recipe and start."""
    found = []
    by_kind: dict[tuple[object, ...], list[Candidate]] = {}
    for row in rows:
        if row.lesson:
            by_kind.setdefault((_identity(row.lesson), *_recipe_of(row)), []).append(row)
    for student in students:
        for kind in by_kind.values():
            same, lesson = [row for row in kind if row.id == student.id], kind[0].lesson
            assert lesson is not None, "rows without a lesson were left out"
            if not same:
                continue
            alone = [] if lesson.loss == PLAIN else [r for r in rows if _is_plain_beside(same[0], r)]
            differences, on = _score_pairs(same, alone)
            found.append(
                Summary(
                    student=student, lesson=lesson, rows=tuple(same), gain=_gain(differences, on),
                    ece_gain=_gain(_pairs(same, alone, _ece), "test"), differences=tuple(differences),
                )
            )  # fmt: skip
    return found


def _recipe_of(row: Candidate) -> tuple[object, ...]:
    """What of the recipe may differ between the trainings of one run, and where they began."""
    return row.epochs, row.lr, row.lesson.start if row.lesson else ""


def _is_plain_beside(row: Candidate, other: Candidate) -> bool:
    is_plain = other.lesson is not None and other.lesson.loss == PLAIN
    return is_plain and other.id == row.id and _recipe_of(other) == _recipe_of(row)


def paired(rows: Sequence[Candidate], plain: Sequence[Candidate]) -> Gain | None:
    """The gain in score of trainings over plain ones with equal seeds, as a fraction; None where no seed is shared."""
    return _gain(*_score_pairs(rows, plain))


def _score_pairs(rows: Sequence[Candidate], plain: Sequence[Candidate]) -> tuple[list[float], Literal["test", "valid"]]:
    """The differences, all on test or, where one of the pairs was not tested, all on valid."""
    tested, known = _pairs(rows, plain, lambda row: row.test_score), _pairs(rows, plain, lambda row: row.score)
    return (tested, "test") if tested and len(tested) >= len(known) else (known, "valid")


def _pairs(rows: Sequence[Candidate], plain: Sequence[Candidate], of: Callable[[Candidate], float | None]) -> list[float]:
    """Differences of a figure between rows with equal seeds, where both have it."""
    alone = {r.seed: value for r in plain if (value := of(r)) is not None}
    return [value - alone[r.seed] for r in rows if r.seed in alone and (value := of(r)) is not None]


def _gain(differences: Sequence[float], on: Literal["test", "valid"]) -> Gain | None:
    from scipy.stats import t

    if not differences:
        return None
    pairs, middle = len(differences), mean(differences)
    error = stdev(differences) / math.sqrt(pairs) if pairs > 1 else math.nan
    half = float(t.ppf(0.975, pairs - 1)) * error if pairs > 1 else math.nan
    return Gain(mean=middle, error=error, low=middle - half, high=middle + half, pairs=pairs, on=on)


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


def write(
    path: Path, students: Sequence[Candidate], rows: Sequence[Candidate], console: Console, *, every: Sequence[Candidate] = ()
) -> None:
    """Prints the comparison of what these rows are of, and writes that of ``every`` training of the run, theirs first, into the run folder
    ``path``: distilled.csv (a row for each training), distilled-summary.csv (for each student and lesson), distilled-gains.png and
    distilled-reliability.png."""
    import pandas as pd

    asked = {row.name for row in rows}
    every = [*rows, *(r for r in every if r.name not in asked)]
    known: dict[str, Candidate] = {}
    for row in (*students, *every):
        known.setdefault(row.id, row)
    whole = summaries(list(known.values()), every)
    summed = [s for s in whole if any(r.name in asked for r in s.rows)]
    console.table(
        f"{path}: students and lessons, mean over seeds ± standard deviation; gain: mean of the differences to plain training with the "
        "same seed (its 95 % interval, Student's t) on test, else said",
        ("id", "network", "lesson", "seeds", "valid", "test", "gain", "test ECE", "scaled", "test NLL"),
        [_shown(s, name) for s, name in zip(summed, told_apart(summed), strict=True)],
    )
    table = pd.DataFrame([_cells(row) for row in every], columns=list(COLUMNS))
    write_atomic(path / "distilled.csv", table.to_csv(index=False))
    write_atomic(path / "distilled-summary.csv", pd.DataFrame([_summary_cells(s) for s in whole]).to_csv(index=False))
    drawn = _draw(path, whole)
    if any(s.gain and not s.gain.is_clear for s in summed):
        console.say("a gain of under 3 seeds or of equal ones, or whose interval holds 0, may be noise; --seeds 5 --loss plain tells more")
    if off := _mendable(summed, told_apart(summed, names_teachers=False)):
        console.say(
            f"confidence is far from accuracy (test ECE): {', '.join(off)}; divide the logits by the temperature that fits valid, which "
            "the manifest and metadata of an export have"
        )
    best = max(rows, key=lambda r: r.score or 0.0)
    console.say(f"wrote {', '.join([f'{path}/distilled.csv', 'distilled-summary.csv', *drawn])} and weights in {path}/models")
    if (path / best.weights).exists():
        console.say(f"next: python -m nas.export {path} --model {best.name}")


def _draw(path: Path, summed: Sequence[Summary]) -> list[str]:
    """Draws what there is to draw; gives the files' names. Gains on test and on valid do not mix: valid ones only where no other are."""
    drawn = []
    names, teachers = figure_names(summed)
    figures = {f"{s.student.baseline or s.student.id}\n{n}": c for s, n in zip(summed, names, strict=True) if (c := _figure_of(s))}
    if figures:
        columns = min(_columns([s.student.id for s in summed if _figure_of(s)]), len(figures))
        said = ["reliability on the test images, first seed", teachers]
        title = "\n".join(line for text in said for line in textwrap.wrap(text, 36 * columns))  # a panel has room for so many characters
        draw_reliability(figures, path / "distilled-reliability.png", title=title, columns=columns)
        drawn.append("distilled-reliability.png")
    gains = [s for s in summed if s.gain and s.gain.on == "test"] or [s for s in summed if s.gain]
    if gains:
        names, teachers = figure_names(gains)
        draw_gains(gains, names, path / "distilled-gains.png", caption=teachers)
        drawn.append("distilled-gains.png")
    return drawn


def _columns(students: Sequence[str]) -> int:
    """How many panels to draw side by side, for a panel of each of these students: a line for each where they have equally many."""
    lengths = [len(list(panels)) for _, panels in itertools.groupby(students)]
    return lengths[0] if len(lengths) > 1 and len(set(lengths)) == 1 and 1 < lengths[0] <= MOST_COLUMNS else COLUMNS_USUAL


def figure_names(summed: Sequence[Summary]) -> tuple[list[str], str]:
    """A name for each in a figure, and a line that says which teacher is whose where each loss has one; else the names say it."""
    losses: dict[tuple[str, ...], list[str]] = {}
    for s in summed:
        if s.lesson.teacher or s.lesson.online:
            losses.setdefault(_facts(s)[:TEACHER_FACTS], []).append(s.lesson.loss)
    taught = [loss for found in losses.values() for loss in dict.fromkeys(found)]
    if not taught or len(set(taught)) < len(taught):
        return told_apart(summed), ""
    varied = [i for i, values in enumerate(zip(*losses, strict=True)) if i == 0 or len(set(values) - {""}) > 1]
    said = [f"{', '.join(f[i] for i in varied if f[i])} for {', '.join(dict.fromkeys(found))}" for f, found in losses.items()]
    return told_apart(summed, names_teachers=False), f"{'teachers' if len(said) > 1 else 'teacher'}: {'; '.join(said)}"


def told_apart(summed: Sequence[Summary], *, names_teachers: bool = True) -> list[str]:
    """A name for each: its lesson and, where they differ among these, its teacher and how that is fed, start, epochs, learning rate."""
    facts = [_facts(s) if names_teachers else ("",) * TEACHER_FACTS + _facts(s)[TEACHER_FACTS:] for s in summed]
    varied = [i for i, f in enumerate(zip(*facts, strict=True)) if len(set(f) - {""} if i < TEACHER_FACTS else set(f)) > 1]
    return [", ".join([label(s.lesson), *(f[i] for i in varied if f[i])]) for s, f in zip(summed, facts, strict=True)]


def _facts(s: Summary) -> tuple[str, ...]:
    """What may tell summaries apart; the first ``TEACHER_FACTS`` are of teachers, which not all have."""
    row, lesson = s.rows[0], s.lesson
    along = lesson.online and f"{lesson.online} trained along"
    return (
        lesson.teacher or along, lesson.teacher_sha256 and f"weights {lesson.teacher_sha256[:6]}",
        f"fed as {lesson.teacher_fed or 'task'}" if lesson.teacher else "",
        STARTS[lesson.start], f"{row.epochs} epochs", f"lr {row.lr:g}" if row.lr is not None else "",
    )  # fmt: skip


def _identity(lesson: LessonConfig) -> str:
    import msgspec

    return msgspec.json.encode(lesson, order="sorted").decode()


def _figure_of(summary: Summary) -> Calibration | None:
    return summary.rows[0].test_calibration


def _shown(s: Summary, name: str) -> tuple[str, ...]:
    tested = [r.test_calibration for r in s.rows if r.test_calibration]
    gain = "–" if s.gain is None else _percent(s.gain, len(s.rows))
    return (
        s.student.id, s.student.baseline or "found", name, str(len(s.rows)), _spread([r.score for r in s.rows]),
        _spread([r.test_score for r in s.rows]), gain,
        f"{100 * mean(c.ece for c in tested):.2f} %" if tested else "–",
        f"{100 * scaled:.2f} %" if (scaled := _scaled(s)) is not None else "–",
        f"{mean(c.nll for c in tested):.3f}" if tested else "–",
    )  # fmt: skip


def _scaled(s: Summary) -> float | None:
    """Mean calibration error on test with logits divided by the temperature that fits valid."""
    known = [r.test_calibration.ece_scaled for r in s.rows if r.test_calibration and r.test_calibration.ece_scaled is not None]
    return mean(known) if known else None


def _mendable(summed: Sequence[Summary], names: Sequence[str]) -> list[str]:
    """The lessons whose confidence is far from their accuracy, and near it with a temperature."""
    found = []
    for s, name in zip(summed, names, strict=True):
        errors = [c.ece for r in s.rows if (c := r.test_calibration) and c.ece_scaled is not None]
        scaled = _scaled(s)
        if errors and scaled is not None and mean(errors) - scaled > MENDABLE:
            who = f"{s.student.baseline or s.student.id} {name}"
            found.append(f"{who} ({100 * mean(errors):.1f} %, scaled {100 * scaled:.1f} %)")
    return found


def _spread(scores: Sequence[float | None]) -> str:
    """Mean and, from two values on, standard deviation in per cent."""
    known = [100 * s for s in scores if s is not None]
    if not known:
        return "–"
    return f"{mean(known):.2f}" + (f" ±{stdev(known):.2f}" if len(known) > 1 else "")


def _percent(gain: Gain, seeds: int) -> str:
    """The gain in points, its interval, whether it is on valid, and of how many pairs where some seeds have no partner."""
    interval = "" if math.isnan(gain.error) else f" ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
    said = f"{100 * gain.mean:+.2f}{interval}" + " (valid)" * (gain.on == "valid")
    return said + (f", {gain.pairs} pair{'s' * (gain.pairs > 1)}" if gain.pairs < seeds else "")


def _summary_cells(s: Summary) -> dict[str, Any]:  # Any: a frame's cells
    tested = [r.test_calibration for r in s.rows if r.test_calibration]
    cells: dict[str, Any] = {"student": s.student.id, "network": s.student.baseline or "found", "lesson": label(s.lesson)}
    cells |= {"teacher": s.lesson.teacher or s.lesson.online, "teacher_sha256": s.lesson.teacher_sha256}
    cells |= {"teacher_fed": s.lesson.teacher_fed, "start": s.lesson.start}
    cells |= {"epochs": s.rows[0].epochs, "lr": s.rows[0].lr, "seeds": len(s.rows)}
    figures: dict[str, list[float | None]] = {"valid": [r.score for r in s.rows], "test": [r.test_score for r in s.rows]}
    for name in ("ece", "ece_scaled", "nll", "brier"):
        figures[f"test_{name}"] = [getattr(c, name) for c in tested]
    for name, values in figures.items():
        known = [v for v in values if v is not None]
        cells |= {f"{name}_mean": mean(known) if known else None, f"{name}_std": stdev(known) if len(known) > 1 else None}
    for name, gain in (("gain", s.gain), ("ece_gain", s.ece_gain)):
        cells |= {f"{name}{k and '_' + k}": getattr(gain, k or "mean") if gain else None for k in ("", "low", "high", "pairs")}
    cells["gain_on"] = s.gain.on if s.gain else None
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in cells.items()}


def _cells(row: Candidate) -> dict[str, Any]:  # Any: a frame's cells
    assert row.lesson is not None, "distilled rows have a lesson"
    lesson, tested = row.lesson, row.test_calibration
    return {
        "student": row.id, "network": row.baseline or "found", "lesson": label(lesson), "loss": lesson.loss, "name": row.name,
        "seed": row.seed, "epochs": row.epochs, "lr": row.lr, "start": lesson.start, "teacher": lesson.teacher,
        "teacher_sha256": lesson.teacher_sha256, "teacher_fed": lesson.teacher_fed, "online_teacher": lesson.online,
        "valid_score": row.score, "test_score": row.test_score, "test_ece": tested and tested.ece,
        "test_ece_scaled": tested and tested.ece_scaled, "test_nll": tested and tested.nll, "test_brier": tested and tested.brier,
        "train_seconds": round(row.seconds, 1),
    }  # fmt: skip
