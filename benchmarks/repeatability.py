"""How much does a latency change when it is measured again? On a quiet computer, beside a spinning and beside a memory-copying process.

    python benchmarks/repeatability.py [--runs 10] [--condition quiet …] [--network 0 …] [--max-ms 3000] [--out benchmarks]

Each of ``--runs`` independent runs opens the device anew and measures all networks by five ways:

- publish: the plan of that name, at most ``--max-ms`` a process, and no wait for a hot device; its median, its 10th percentile,
  and its ratio to the anchor, which leaves out what slows the device as a whole;
- quick: the plan of that name; its median and its 10th percentile;
- plain: the usual script in a process of its own: 10 runs to warm up, the median of the next 50;
- mean: the same script without warm-up: the mean of the first 50 runs.

The coefficient of variation (standard deviation over mean, n − 1) of each figure over the runs is what counts: at most 2 % is wanted on a
quiet computer and 5 % beside other work. ``said`` is how many of the runs called their own figure doubtful. Writes
repeatability.csv (every figure) and repeatability.md.
"""

import argparse
import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latency import Measurement, TimingPlan, open_device, plan_named
from latency.console import open_console, three_digits
from latency.lease import WAIT_S, leased
from latency.onnx_graph import emit
from search_spaces.architecture import Architecture
from search_spaces.baselines import baseline

NETWORKS: Mapping[str, Callable[[], Architecture]] = {
    "mobilenet_v2 x0.35, 32 px": lambda: baseline("mobilenet_v2", width=0.35, input_chw=(3, 32, 32), outputs=10),
    "mobilenet_v3_small, 96 px": lambda: baseline("mobilenet_v3_small", input_chw=(3, 96, 96), outputs=10),
    "mobilenet_v2, 224 px": lambda: baseline("mobilenet_v2", input_chw=(3, 224, 224), outputs=1000),
}
# What runs beside: nothing, a process that only computes, one that only moves memory (64 MiB at a time, beyond any cache).
CONDITIONS = {
    "quiet": "",
    "spinning": "while True: pass",
    "copying": "import numpy as np\na = np.ones(2**26, np.uint8)\nb = np.empty_like(a)\nwhile True: np.copyto(b, a)",
}
WANTED = {"quiet": 0.02, "spinning": 0.05, "copying": 0.05}
PLAIN = """
import json, sys, time
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
for path in sys.argv[1:]:
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    import numpy as np
    feed = {i.name: np.random.default_rng(0).random(i.shape, dtype=np.float32) for i in session.get_inputs()}
    taken = []
    for _ in range(60):
        began = time.perf_counter()
        session.run(None, feed)
        taken.append((time.perf_counter() - began) * 1000)
    print(json.dumps(taken))
"""


class Row(NamedTuple):
    """One figure of one run; ``said``: the way itself called it doubtful."""

    condition: str
    network: str
    way: str
    run: int
    value: float
    said: bool


def main() -> None:
    """Takes the figures, condition by condition, and writes after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--condition", choices=CONDITIONS, nargs="+", default=list(CONDITIONS))
    parser.add_argument("--network", type=int, choices=range(len(NETWORKS)), nargs="+", default=list(range(len(NETWORKS))))
    parser.add_argument("--max-ms", type=float, default=3000.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args()
    publish = plan_named("publish", settle_s=0.0, max_ms=max(given.max_ms, plan_named("publish").min_ms))
    names = [list(NETWORKS)[i] for i in given.network]
    rows, loads = list[Row](), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="repeatability-") as folder:
        models = {name: Path(folder, f"{i}.onnx") for i, name in enumerate(names)}
        for name, path in models.items():
            path.write_bytes(emit(NETWORKS[name]()).SerializeToString())
        for condition in given.condition:
            loads[condition] = os.getloadavg()[0]
            with beside(CONDITIONS[condition]):
                for run in range(given.runs):
                    with leased("local", wait_s=WAIT_S, say=open_console().warn):  # the plain scripts want it too
                        rows += one_run(condition, run, models, publish)
                    print(f"{condition}: run {run + 1} of {given.runs}", file=sys.stderr, flush=True)
            flags = f"--runs {given.runs} --max-ms {given.max_ms:g} --network {' '.join(map(str, given.network))}"
            write(rows, loads, publish, given.out, flags)
    print((given.out / "repeatability.md").read_text())


@contextlib.contextmanager
def beside(code: str) -> Iterator[None]:
    """With a process that runs the code; none where there is none."""
    if not code:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", code])
    time.sleep(1)  # until it has its memory
    try:
        yield
    finally:
        process.kill()
        process.wait()


def one_run(condition: str, run: int, models: Mapping[str, Path], publish: TimingPlan) -> list[Row]:
    """All figures of one independent run."""
    rows: list[Row] = []

    def add(network: str, way: str, value: float, *, said: bool = False) -> None:
        rows.append(Row(condition, network, way, run, value, said))

    for plan_name, plan in (("publish", publish), ("quick", plan_named("quick"))):
        for network, taken in zip(models, measured(list(models.values()), plan), strict=True):
            said = bool(taken.problems())
            add(network, f"{plan_name}: median", taken.p50_ms, said=said)
            add(network, f"{plan_name}: p10", taken.p10_ms, said=said)
            if taken.anchor_ratio:
                add(network, f"{plan_name}: ratio to anchor", taken.anchor_ratio[0], said=said)
    for network, runs_ms in zip(models, plain(list(models.values())), strict=True):
        add(network, "plain: warm-up and median", float(np.median(runs_ms[10:])))
        add(network, "mean without warm-up", float(np.mean(runs_ms[:50])))
    return rows


def measured(models: Sequence[Path], plan: TimingPlan) -> tuple[Measurement, ...]:
    """The models on a device that was opened for this alone."""
    with contextlib.closing(open_device("local")) as device:
        return device.time(models, plan)


def plain(models: Sequence[Path]) -> list[list[float]]:
    """Milliseconds of the first 60 runs of each model, as a short script takes them."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", PLAIN, *map(str, models)], capture_output=True, text=True, check=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def write(rows: Sequence[Row], loads: Mapping[str, float], publish: TimingPlan, out: Path, flags: str) -> None:
    """Writes every figure and the table of coefficients of variation."""
    with (out / "repeatability.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    with contextlib.closing(open_device("local")) as device:
        info = device.info()
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.condition, row.network, row.way), []).append(row)
    lines = [
        "# Repeatability", "", f"`python benchmarks/repeatability.py {flags}`", "",
        f"{datetime.now(UTC).date().isoformat()}, {info.name}, {info.runtime}, 1 thread, {publish.processes} to "
        f"{publish.processes + publish.more_processes} processes of at most {publish.max_ms:g} ms with publish.",
        "Load of the computer before each condition: " + ", ".join(f"{name} {load:.1f}" for name, load in loads.items()) + ".", "",
        "| condition | network | way | mean | CV | wanted | runs | said doubtful |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [_line(*key, found) for key, found in groups.items()]
    (out / "repeatability.md").write_text("\n".join(lines) + "\n")


def _line(condition: str, network: str, way: str, found: Sequence[Row]) -> str:
    values = np.array([row.value for row in found])
    unit = "" if "ratio" in way else " ms"
    cv = f"{values.std(ddof=1) / values.mean():.1%}" if len(values) > 1 else "–"
    said = sum(row.said for row in found)
    mean, wanted = f"{three_digits(float(values.mean()))}{unit}", f"{WANTED[condition]:.0%}"
    return f"| {condition} | {network} | {way} | {mean} | {cv} | {wanted} | {len(found)} | {said} |"


if __name__ == "__main__":
    main()
