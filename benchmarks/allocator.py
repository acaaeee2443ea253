"""How much faster does a worker train that keeps freed memory (``nas.cores.become_worker``)? Processes in turns, in one run.

python benchmarks/allocator.py [--steps 25] [--rounds 5] [--batch 64] [--out benchmarks]

Every process trains the same network on the same made-up images for one epoch of ``--steps`` with one thread, after one epoch that is not
timed: one as C library and torch are by default, the next after ``become_worker``. A ratio is that of medians of images a second, with
the lowest and highest of a pair. Memory is the process's peak. Writes allocator.csv and allocator.md.
"""

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from nas.cores import become_worker
from nas.models import build
from nas.recipe import Recipe
from nas.tasks import open_task
from nas.train import fit
from search_spaces.architecture import Architecture
from search_spaces.baselines import baseline

NETWORKS: Mapping[str, Callable[[], Architecture]] = {
    "mnasnet_a1 x0.35, 32 px": lambda: baseline("mnasnet_a1", width=0.35, input_chw=(3, 32, 32), outputs=10),
    "mobilenet_v3_small x0.5, 32 px": lambda: baseline("mobilenet_v3_small", width=0.5, input_chw=(3, 32, 32), outputs=10),
}


def main() -> None:
    """Time both kinds of process on each network and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 25), ("rounds", 5), ("batch", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "KIND"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(trained(*given.one, given)))
        return
    rows = [row(name, given) for name in NETWORKS]
    write(rows, given)


def trained(name: str, kind: str, given: argparse.Namespace) -> tuple[float, float]:
    """Images a second of one epoch in this process, and its peak of memory in MiB."""
    torch.set_num_threads(1)
    if kind == "worker":
        become_worker()
    arch = NETWORKS[name]()
    size = arch.input_chw[1]
    task = open_task("classify", "photos", train_images=given.steps * given.batch, valid_images=50, image_size=size)
    recipe = Recipe(epochs=1, batch=given.batch, amp="off")
    fit(build(arch), task, recipe, seed=0, device="cpu")
    speed = fit(build(arch), task, recipe, seed=0, device="cpu").images_per_second
    return speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def row(name: str, given: argparse.Namespace) -> dict[str, Any]:  # Any: a row of a csv file
    """Medians of both kinds for one network, and how many times faster a worker is."""
    found: dict[str, list[tuple[float, float]]] = {"default": [], "worker": []}
    for i in range(given.rounds):
        for kind in list(found)[:: 1 if i % 2 else -1]:
            found[kind].append(_process(name, kind, given))
    speed = {kind: statistics.median(s for s, _ in pairs) for kind, pairs in found.items()}
    memory = {kind: statistics.median(m for _, m in pairs) for kind, pairs in found.items()}
    each = [w / d for (w, _), (d, _) in zip(found["worker"], found["default"], strict=True)]
    return {
        "network": name, **{f"{kind}_images_per_second": round(v, 1) for kind, v in speed.items()},
        "ratio": round(speed["worker"] / speed["default"], 3), "ratio_low": round(min(each), 3), "ratio_high": round(max(each), 3),
        **{f"{kind}_peak_mib": round(v) for kind, v in memory.items()},
        "batch": given.batch, "steps": given.steps, "rounds": given.rounds, "torch": torch.__version__,
    }  # fmt: skip


def _process(name: str, kind: str, given: argparse.Namespace) -> tuple[float, float]:
    line = [sys.executable, __file__, "--steps", str(given.steps), "--batch", str(given.batch), "--one", name, kind]
    speed, memory = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return speed, memory


def write(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:  # Any: rows of a csv file
    """The table as csv and as markdown."""
    with (given.out / "allocator.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        f"Training in a worker that keeps freed memory against a process as it is by default: batch {given.batch}, {given.steps} steps, "
        f"{given.rounds} processes of each in turns, fp32, 1 thread, torch {torch.__version__}. Ratio: images a second (lowest and highest "
        "of a pair).",
        "",
        "| network | default, images/s | worker, images/s | ratio | peak memory, MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        speeds = f"{r['default_images_per_second']} | {r['worker_images_per_second']}"
        ratio = f"{r['ratio']} ({r['ratio_low']} to {r['ratio_high']})"
        lines.append(f"| {r['network']} | {speeds} | {ratio} | {r['default_peak_mib']}, {r['worker_peak_mib']} |")
    (given.out / "allocator.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
