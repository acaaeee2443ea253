"""What a search's user asks in the end: how much faster than each published network, and at what accuracy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latency import Measurement
from latency.console import Console
from latency.paired import ratio
from nas.store import Candidate, write_atomic

__all__ = ["COLUMNS", "TABLE", "Found", "Versus", "show", "versus", "write"]

TABLE = "versus.csv"
COLUMNS = (
    "baseline", "valid_score", "test_score",
    "as_good", "as_good_times_faster", "as_good_times_low", "as_good_times_high", "as_good_test_gain",
    "as_fast", "as_fast_times_faster", "as_fast_times_low", "as_fast_times_high", "as_fast_test_gain",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A found network beside a baseline: how many times faster (with the 95 % interval), and its test score less the baseline's (None
    where one of them has none)."""

    id: str
    times: float
    low: float
    high: float
    gain: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Versus:
    """A baseline; ``as_good``: the fastest found network that is at least as good on valid; ``as_fast``: of those that take no longer, by
    the middle of the interval, the best on valid. None where there is none."""

    baseline: Candidate
    as_good: Found | None
    as_fast: Found | None


def versus(rows: Sequence[Candidate], measured: Mapping[str, Measurement]) -> list[Versus]:
    """Each baseline of ``rows`` against what was found, in the order of the rows.

    Networks are chosen by valid and latency, never by test. Times are ratios within the same rounds (``latency.paired``): what slowed the
    device as a whole is divided out.

    Args:
        rows: trained alike; those without a score on valid are left out.
        measured: by id, of one call of ``Device.time``.
    """
    scored = [(row, row.score) for row in rows if row.score is not None and math.isfinite(row.score)]
    found, result = [(row, score) for row, score in scored if not row.baseline], []
    for base, needed in ((row, score) for row, score in scored if row.baseline):
        beside = [(score, _beside(row, base, measured)) for row, score in found]
        good = [one for score, one in beside if score >= needed]
        fast = [(score, one) for score, one in beside if one.times >= 1]
        _, best = max(fast, key=lambda pair: (pair[0], pair[1].times), default=(0.0, None))
        result.append(Versus(baseline=base, as_good=max(good, key=lambda one: one.times, default=None), as_fast=best))
    return result


def _beside(row: Candidate, base: Candidate, measured: Mapping[str, Measurement]) -> Found:
    center, low, high = ratio(measured[base.id], measured[row.id])
    gain = row.test_score - base.test_score if row.test_score is not None and base.test_score is not None else None
    return Found(id=row.id, times=center, low=low, high=high, gain=gain)


def write(found: Sequence[Versus], path: Path) -> None:
    """Writes versus.csv, a row for each baseline; where there is none, no file stays. Gains are fractions, as scores are."""
    import pandas as pd

    rows = [(v.baseline.baseline, v.baseline.score, v.baseline.test_score, *_cells(v.as_good), *_cells(v.as_fast)) for v in found]
    if rows:
        write_atomic(path, pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False))
    else:
        path.unlink(missing_ok=True)  # of an earlier end of the run


def _cells(found: Found | None) -> tuple[str | float, ...]:
    if found is None:
        return ("", *[float("nan")] * 4)
    gain = float("nan") if found.gain is None else found.gain
    return found.id, *(round(value, 6) for value in (found.times, found.low, found.high, gain))


def show(path: Path, console: Console) -> None:
    """Prints what ``write`` wrote, if it did."""
    import pandas as pd

    if not path.exists():
        return
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"as_good": str, "as_fast": str})
    rows = [
        (str(r["baseline"]), *(text for which in ("as_good", "as_fast") for text in _shown({str(k): v for k, v in r.items()}, which)))
        for r in table.to_dict("records")
    ]
    console.table(
        "against each baseline: the fastest found network that is at least as good on valid, and the best that takes no longer; "
        "faster: how many times, by ratios in the same rounds (95 % interval); gain: test points",
        ("baseline", "as good", "faster", "gain", "as fast", "faster", "gain"), rows,
    )  # fmt: skip


def _shown(row: Mapping[str, object], which: str) -> tuple[str, str, str]:
    name = row[which]
    if not isinstance(name, str):
        return "none", "", ""
    times, low, high = (float(str(row[f"{which}_times_{part}"])) for part in ("faster", "low", "high"))
    gain = 100 * float(str(row[f"{which}_test_gain"]))
    return name, f"{times:.2f} ({low:.2f} to {high:.2f})", f"{gain:+.2f}" if math.isfinite(gain) else "–"
