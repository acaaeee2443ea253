"""How much slower is ``nas.train.fit`` than a bare hand-written PyTorch loop? Both side by side, in turns, in one run.

python benchmarks/fit.py [--steps 40] [--rounds 7] [--batch 64] [--threads 1] [--out benchmarks]

The bare loop does the same arithmetic for the network and no more: same images, batch, network, memory layout, reflected random
crops and flips (padded once beforehand and cropped image by image, as a torchvision transform would), normalisation, cross entropy with
smoothing, SGD with Nesterov momentum. It has no schedule, moving average, gradient clipping or divergence check: those are the price
that is measured. Each round times both, in alternating order; the ratio is that of the medians. Writes fit.csv and fit.md.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from nas.models import build
from nas.recipe import Recipe
from nas.tasks import Task, open_task
from nas.train import fit
from search_spaces.architecture import Architecture
from search_spaces.baselines import baseline

NETWORKS: Mapping[str, Callable[[], Architecture]] = {
    "mobilenet_v2 x0.35, 32 px": lambda: baseline("mobilenet_v2", width=0.35, input_chw=(3, 32, 32), outputs=10),
    "mobilenet_v3_small x0.5, 32 px": lambda: baseline("mobilenet_v3_small", width=0.5, input_chw=(3, 32, 32), outputs=10),
}
CROP = 4


def main() -> None:
    """Time both loops on each network and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 40), ("rounds", 7), ("batch", 64), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    task = small_task(given.steps * given.batch)
    rows = [row(name, make(), task, given) for name, make in NETWORKS.items()]
    write(rows, given)


def small_task(images: int) -> Task:
    """Photo patches: as many as the timed steps need, and few to validate on, for scoring is not timed."""
    return open_task("classify", "photos", train_images=images, valid_images=50)


def row(name: str, arch: Architecture, task: Task, given: argparse.Namespace) -> dict[str, Any]:  # Any: a row of a csv file
    """Median images per second of both loops on one network, and how many times longer ``fit`` takes."""
    loops = {"bare": bare_seconds, "fit": fit_seconds}
    seconds: dict[str, list[float]] = {loop: [] for loop in loops}
    for i in range(given.rounds + 1):
        for loop in list(loops)[:: 1 if i % 2 else -1]:
            torch.manual_seed(0)
            taken = loops[loop](build(arch), task, given.batch, given.steps)
            if i:  # the first round warms up
                seconds[loop].append(taken)
    middle = {loop: statistics.median(taken) for loop, taken in seconds.items()}
    ratios = [f / b for f, b in zip(seconds["fit"], seconds["bare"], strict=True)]
    images = given.steps * given.batch
    return {
        "network": name, "bare_images_per_second": round(images / middle["bare"], 1), "fit_images_per_second": round(images / middle["fit"], 1),
        "ratio": round(middle["fit"] / middle["bare"], 3), "ratio_low": round(min(ratios), 3), "ratio_high": round(max(ratios), 3),
        "batch": given.batch, "steps": given.steps, "rounds": given.rounds, "threads": given.threads,
    }  # fmt: skip


def fit_seconds(module: nn.Module, task: Task, batch: int, steps: int) -> float:
    """Seconds that ``fit`` spends in one epoch of ``steps`` steps, by its own account of training time."""
    recipe = Recipe(epochs=1, batch=batch, warmup_epochs=0.5, crop_pixels=CROP, flip=True, amp="off")
    done = fit(module, task, recipe, seed=0, device="cpu")
    assert done.steps == steps
    return steps * batch / done.images_per_second


def bare_seconds(module: nn.Module, task: Task, batch: int, steps: int) -> float:
    """Seconds for one epoch of the hand-written loop."""
    split = task.load("train")
    padded = F.pad(split.x, (CROP,) * 4, mode="reflect")
    size = split.x.shape[2]
    module.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's stub lacks this overload
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (task.mean, task.std))
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    order = torch.randperm(len(split))
    for step in range(steps):
        index = order[step * batch : (step + 1) * batch]
        images = []
        for i in index.tolist():
            r, c = rng.integers(0, 2 * CROP + 1, 2)
            image = padded[i, :, r : r + size, c : c + size]
            images.append(image.flip(2) if rng.random() < 0.5 else image)
        x = ((torch.stack(images) - mean) / std).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(module(x), split.y[index], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
    return time.perf_counter() - began


def write(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:  # Any: rows of a csv file
    """Write fit.csv and fit.md and print the latter."""
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "fit.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        f"`fit` against a bare PyTorch loop: batch {given.batch}, {given.steps} steps a round, {given.rounds} rounds in turns, fp32, "
        f"{given.threads} thread(s), torch {torch.__version__}. Ratio: time of `fit` over time of the bare loop; at most 1.15 is wanted.",
        "",
        "| network | bare, images/s | fit, images/s | ratio of medians | lowest and highest round |",
        "| --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        lines.append(
            f"| {r['network']} | {r['bare_images_per_second']} | {r['fit_images_per_second']} | {r['ratio']} | {r['ratio_low']} to {r['ratio_high']} |"
        )
    (given.out / "fit.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
