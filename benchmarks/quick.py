"""How long does a search wait for a latency? From a candidate to its median with interval, on this computer, with the plan quick.

    python benchmarks/quick.py [--space mnasnet] [--image-size 32] [--networks 50] [--out benchmarks]

For each random network of the space: emit its ONNX model, measure it, compute interval and doubts. Under 1 s is wanted for networks of
32 px. Opening the device and deploying the runner is stated apart: a search does it once. Writes quick.csv and quick.md.
"""

import argparse
import csv
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from latency import QUICK, open_device
from latency.console import open_console
from latency.lease import Leased
from latency.onnx_graph import emit
from search_spaces import open_space
from search_spaces.architecture import Head

WANTED_S = 1.0


def main() -> None:
    """Times the way from candidate to latency, prints and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="mnasnet")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args()
    space, rng = open_space(given.space, input_chw=(3, given.image_size, given.image_size)), np.random.default_rng(0)
    archs = [space.decode(space.sample(rng), Head(outputs=10)) for _ in range(given.networks + 1)]
    load, began = os.getloadavg()[0], time.perf_counter()
    device = Leased(open_device("local"), "local", say=open_console().warn)
    device.time([emit(archs.pop())], QUICK)
    opened_s, rows = time.perf_counter() - began, list[tuple[float, float, float, float, bool]]()
    for i, arch in enumerate(archs):
        began = time.perf_counter()
        model = emit(arch)
        emitted = time.perf_counter()
        (taken,) = device.time([model], QUICK)
        timed = time.perf_counter()
        doubtful = bool(taken.ci_ms and taken.problems())
        rows.append((time.perf_counter() - began, emitted - began, timed - emitted, taken.p50_ms, doubtful))
        print(f"{i + 1} of {given.networks}: {rows[-1][0]:.2f} s", file=sys.stderr, flush=True)
    info = device.info()
    device.close()
    with (given.out / "quick.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("seconds", "emit_s", "time_s", "p50_ms", "doubtful"))
        writer.writerows(rows)
    seconds, (_, emit_s, time_s, p50_ms, doubtful_runs) = np.array([r[0] for r in rows]), (np.array(c) for c in zip(*rows, strict=True))
    quantiles = " | ".join(f"{np.percentile(seconds, q):.2f} s" for q in (50, 90, 100))
    text = (
        f"# From candidate to latency\n\n`python benchmarks/quick.py --space {given.space} --image-size {given.image_size} --networks "
        f"{given.networks}`\n\n{datetime.now(UTC).date().isoformat()}, {info.name}, {info.runtime}, 1 thread, load before {load:.1f}.\n"
        f"Opening the device and the first network: {opened_s:.2f} s.\n\n"
        "| networks | latency p50 | median | 90 % | slowest | of it emit | of it timing | under 1 s | doubtful |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
        f"| {len(rows)} | {p50_ms.min():.2f}–{p50_ms.max():.2f} ms | {quantiles} | {np.median(emit_s):.3f} s | {np.median(time_s):.2f} s | "
        f"{np.mean(seconds < WANTED_S):.0%} | {int(doubtful_runs.sum())} |\n"
    )
    (given.out / "quick.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
