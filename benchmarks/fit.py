"""How much slower is ``nas.train.fit`` than a bare hand-written PyTorch loop? Side by side, in turns, in one run.

python benchmarks/fit.py [--steps 20] [--rounds 7] [--batch 64] [--threads 1] [--out benchmarks]

The bare loops do the same arithmetic for the network: same images, batch, network, memory layout, normalisation, smoothed cross
entropy and SGD with Nesterov momentum, and no schedule, moving average, gradient clipping or divergence check. ``cropped`` also makes
the same random crops and flips, image by image on images padded beforehand, as a torchvision transform would; ``plain`` augments
nothing, the hardest to keep up with. ``fit`` does all of it. Each round times all three, taking turns at who goes first; a ratio
is that of medians. Writes fit.csv and fit.md.
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
from torch import Tensor, nn
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
Loop = Callable[[nn.Module, Task, int, int], float]


def main() -> None:
    """Time both loops on each network and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 20), ("rounds", 7), ("batch", 64), ("threads", 1)):
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
    """Median images per second of the three loops on one network, and how many times longer ``fit`` takes."""
    loops: Mapping[str, Loop] = {"plain": plain_seconds, "cropped": cropped_seconds, "fit": fit_seconds}
    names = list(loops)
    seconds: dict[str, list[float]] = {loop: [] for loop in loops}
    for i in range(given.rounds + 1):
        for loop in names[i % 3 :] + names[: i % 3]:
            torch.manual_seed(0)
            taken = loops[loop](build(arch), task, given.batch, given.steps)
            if i:  # the first round warms up
                seconds[loop].append(taken)
    middle = {loop: statistics.median(taken) for loop, taken in seconds.items()}
    speeds = {f"{loop}_images_per_second": round(given.steps * given.batch / middle[loop], 1) for loop in loops}
    ratios: dict[str, float] = {}
    for bare in ("plain", "cropped"):
        each = [f / b for f, b in zip(seconds["fit"], seconds[bare], strict=True)]
        ratios |= {f"fit_over_{bare}": round(middle["fit"] / middle[bare], 3)}
        ratios |= {f"fit_over_{bare}_low": round(min(each), 3), f"fit_over_{bare}_high": round(max(each), 3)}
    conditions = {"batch": given.batch, "steps": given.steps, "rounds": given.rounds, "threads": given.threads, "torch": torch.__version__}
    return {"network": name, **speeds, **ratios, **conditions}


def fit_seconds(module: nn.Module, task: Task, batch: int, steps: int) -> float:
    """Seconds that ``fit`` spends in one epoch of ``steps`` steps, by its own account of training time."""
    recipe = Recipe(epochs=1, batch=batch, warmup_epochs=0.5, crop_pixels=CROP, flip=True, amp="off")
    done = fit(module, task, recipe, seed=0, device="cpu")
    assert done.steps == steps
    return steps * batch / done.images_per_second


def plain_seconds(module: nn.Module, task: Task, batch: int, steps: int) -> float:
    """Seconds for one epoch of the hand-written loop without augmentation."""
    return bare_seconds(module, task, batch, steps, is_augmented=False)


def cropped_seconds(module: nn.Module, task: Task, batch: int, steps: int) -> float:
    """Seconds for one epoch of the hand-written loop with crops and flips."""
    return bare_seconds(module, task, batch, steps, is_augmented=True)


def bare_seconds(module: nn.Module, task: Task, batch: int, steps: int, *, is_augmented: bool) -> float:
    """Seconds for one epoch of the hand-written loop."""
    split = task.load("train")
    padded = F.pad(split.x, (CROP,) * 4, mode="reflect")
    module.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (task.mean, task.std))
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    order = torch.randperm(len(split))
    for step in range(steps):
        index = order[step * batch : (step + 1) * batch]
        images = cropped(padded, index, split.x.shape[2], rng) if is_augmented else split.x[index]
        x = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(module(x), split.y[index], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
    return time.perf_counter() - began


def cropped(padded: Tensor, index: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Random windows of the padded images, half of them mirrored, one image after another."""
    images = []
    for i in index.tolist():
        r, c = rng.integers(0, 2 * CROP + 1, 2)
        image = padded[i, :, r : r + size, c : c + size]
        images.append(image.flip(2) if rng.random() < 0.5 else image)
    return torch.stack(images)


def write(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:  # Any: rows of a csv file
    """Write fit.csv and fit.md and print the latter."""
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "fit.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    head = (
        f"`fit` against a bare PyTorch loop: batch {given.batch}, {given.steps} steps a round, {given.rounds} rounds in turns, fp32, "
        f"{given.threads} thread(s), torch {torch.__version__}. Ratio: time of `fit` over that of the bare loop (lowest and highest "
        "round); at most 1.15 is wanted."
    )
    columns = ["network", "plain, images/s", "cropped, images/s", "fit, images/s", "fit / plain", "fit / cropped"]
    lines = [head, "", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns), *map(line, rows)]
    (given.out / "fit.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def line(row: Mapping[str, Any]) -> str:  # Any: a row of a csv file
    """A row of the Markdown table."""
    cells = [row["network"], *(row[f"{loop}_images_per_second"] for loop in ("plain", "cropped", "fit"))]
    for bare in ("plain", "cropped"):
        key = f"fit_over_{bare}"
        cells.append(f"{row[key]} ({row[f'{key}_low']} to {row[f'{key}_high']})")
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
