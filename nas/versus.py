"""What a search's user asks in the end: how much faster than each published network, and at what accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latency import Measurement
from latency.console import Console
from latency.paired import ratio
from nas.store import Candidate, write_atomic

__all__ = ["COLUMNS", "TABLE", "Versus", "show", "versus", "write"]

TABLE = "versus.csv"
COLUMNS = (
    "baseline", "valid_score", "test_score",
    "as_good", "as_good_times_faster", "as_good_times_low", "as_good_times_high", "as_good_test_gain",
    "as_fast", "as_fast_times_faster", "as_fast_times_low", "as_fast_times_high", "as_fast_test_gain",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A found network beside a baseline: how many times faster (with the 95 % interval), and its test score less the baseline's."""

    id: str
    times: float
    low: float
    high: float
    gain: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Versus:
    """A baseline; ``as_good``: the fastest found network that is at least as good on valid; ``as_fast``: of those that take no longer the
    best on valid. None where there is none."""

    baseline: Candidate
    as_good: Found | None
    as_fast: Found | None


def versus(rows: Sequence[Candidate], measured: Mapping[str, Measurement]) -> list[Versus]:
    """Each baseline of ``rows`` against what was found, in the order of the rows.

    Networks are chosen by valid and latency, never by test. Times are ratios within the same rounds (``latency.paired``): what slowed the
    device as a whole is divided out.

    Args:
        rows: trained alike.
        measured: by id, of one call of ``Device.time``.
    """
    found = [r for r in rows if not r.baseline]
    result = []
    for base in (r for r in rows if r.baseline):
        beside = {r.id: _beside(r, base, measured) for r in found}
        good = [r for r in found if (r.score or 0.0) >= (base.score or 0.0)]
        fast = [r for r in found if beside[r.id].times >= 1]
        result.append(
            Versus(
                baseline=base,
                as_good=max((beside[r.id] for r in good), key=lambda f: f.times, default=None),
                as_fast=beside[max(fast, key=lambda r: (r.score or 0.0, beside[r.id].times)).id] if fast else None,
            )
        )
    return result


def _beside(row: Candidate, base: Candidate, measured: Mapping[str, Measurement]) -> Found:
    center, low, high = ratio(measured[base.id], measured[row.id])
    return Found(id=row.id, times=center, low=low, high=high, gain=(row.test_score or 0.0) - (base.test_score or 0.0))


def write(found: Sequence[Versus], path: Path) -> None:
    """Writes versus.csv, a row for each baseline; nothing where there is none. Gains are fractions, as scores are."""
    import pandas as pd

    rows = [(v.baseline.baseline, v.baseline.score, v.baseline.test_score, *_cells(v.as_good), *_cells(v.as_fast)) for v in found]
    if rows:
        write_atomic(path, pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False))


def _cells(found: Found | None) -> tuple[str | float, ...]:
    if found is None:
        return ("", *[float("nan")] * 4)
    return found.id, *(round(value, 6) for value in (found.times, found.low, found.high, found.gain))


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
        "against each baseline: the fastest found network that is at least as good on valid, and the best that takes no longer; faster: by "
        "ratios in the same rounds (95 % interval); gain: test points",
        ("baseline", "as good", "faster", "gain", "as fast", "faster", "gain"), rows,
    )  # fmt: skip


def _shown(row: Mapping[str, object], which: str) -> tuple[str, str, str]:
    name = row[which]
    if not isinstance(name, str):
        return "none", "", ""
    times, low, high = (float(str(row[f"{which}_times_{part}"])) for part in ("faster", "low", "high"))
    return name, f"{times:.2f} ({low:.2f} to {high:.2f})", f"{100 * float(str(row[f'{which}_test_gain'])):+.2f}"
