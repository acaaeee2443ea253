"""Does a search with a budget end within it? Whole searches on this computer, one after another.

    python benchmarks/budget.py [--budget 2m] [--budget 5m] [--budget 30m] [--evaluate alone] [--out benchmarks] [-- FLAGS OF nas.search]

Each is `python -m nas.search --budget ...` as a user gives it, in a folder of its own that is removed afterwards, timed from outside: its
interpreter's start and its end count. 85 to 105 % of the budget is wanted. Latencies are measured anew, not looked up. A row is appended to
budget.csv when a search ends, so an interrupted benchmark keeps its rows; budget.md is written from all rows of that file.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from latency import open_device
from nas.config import parse_duration_s

WANTED = (0.85, 1.05)
SEARCH = ("--space", "tiny", "--data", "photos", "--train-images", "2500", "--baseline-widths", "1", "--baseline", "mnasnet_small")
COLUMNS = (
    "date", "device", "runtime", "load", "flags", "budget", "budget_s", "wall_s", "share", "status",
    "candidates", "in_full", "final_epochs",
)  # fmt: skip


def main() -> None:
    """Runs the searches, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", action="append", help="2m, 5m and 30m unless given")
    parser.add_argument("--evaluate", choices=("alone", "inherited"), default="alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("flags", nargs="*", help=f"of nas.search, in place of {shlex.join(SEARCH)}")
    given = parser.parse_args()
    device = open_device("local")
    info = device.info()
    device.close()
    table = given.out / "budget.csv"
    for budget in given.budget or ["2m", "5m", "30m"]:
        flags = [*(given.flags or SEARCH), "--evaluate", given.evaluate]
        load, row = os.getloadavg()[0], searched(flags, budget)
        kept = {"date": datetime.now(UTC).date().isoformat(), "device": info.name, "runtime": info.runtime}
        fresh = not table.exists()
        with table.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if fresh:
                writer.writeheader()
            writer.writerow({**kept, "load": f"{load:.1f}", "flags": shlex.join(flags), "budget": budget, **row})
        text = page(table)
        (given.out / "budget.md").write_text(text)
    print(text)


def searched(flags: list[str], budget: str) -> dict[str, str | int]:
    """One search from start to end, and what it came to."""
    with tempfile.TemporaryDirectory(prefix="nas-budget-") as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "nas.search", *flags, "--budget", budget, "--fresh", "--out", str(out)]
        print(f"running: nas.search {shlex.join(flags)} --budget {budget}", file=sys.stderr, flush=True)
        began = time.perf_counter()
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode
        wall_s, budget_s = time.perf_counter() - began, parse_duration_s(budget)
        lines = (out / "candidates.jsonl").read_text().splitlines() if (out / "candidates.jsonl").exists() else []
    rows = [json.loads(line) for line in lines]
    done = [row for row in rows if row["status"] == "trained"]
    final = [row for row in done if row["stage"] != "search"]
    return {
        "budget_s": f"{budget_s:.0f}", "wall_s": f"{wall_s:.1f}", "share": f"{wall_s / budget_s:.3f}", "status": status,
        "candidates": len(done) - len(final), "in_full": len(final), "final_epochs": max((row["epochs"] for row in final), default=0),
    }  # fmt: skip


def page(table: Path) -> str:
    """The rows as markdown."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    low, high = WANTED
    within = sum(low <= float(row["share"]) <= high and row["status"] == "0" for row in rows)
    lines = [
        f"| {row['date']} | {row['device']} | `{row['flags']}` | {row['budget']} | {float(row['wall_s']):.0f} s "
        f"| **{float(row['share']):.0%}** "
        f"| {row['status']} | {row['candidates']} | {row['in_full']} × {row['final_epochs']} | {row['load']} |\n"
        for row in rows
    ]
    return (
        "# Does a search end within its budget?\n\n`python benchmarks/budget.py`; wanted are "
        f"{low:.0%} to {high:.0%}: {within} of {len(rows)} are.\n\n"
        "| date | device | flags | budget | took | share | exit status | candidates | in full × epochs | load before |\n"
        f"|---|---|---|---|---|---|---|---|---|---|\n{''.join(lines)}"
    )


if __name__ == "__main__":
    main()
