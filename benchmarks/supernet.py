"""What a train step of one sub-network costs in a bank, beside the same step of the network by itself; and a score by inheritance.

python benchmarks/supernet.py [--steps 12] [--rounds 7] [--batch 64] [--threads 1] [--out benchmarks]

Step: the same images, network, smoothed cross entropy, SGD with Nesterov momentum, gradient clipping and moving average on both sides;
in the bank the moving average follows all of its weights. Each round times both, taking turns at who goes first; a ratio is that of
medians, at most 1.2 is wanted. Score: inherit, recalibrate on 256 images, score 1,000; at most 1.5 s is wanted of a network of up
to 15M MACs. Images are made up: they cost what real ones cost. Writes supernet.csv and supernet.md.
"""

import argparse
import csv
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.cost import count
from nas.models import build
from nas.recipe import BankPlan, Recipe
from nas.sharing.inherited import CALIBRATION_IMAGES, VALID_IMAGES, inherited_score
from nas.supernet import BankTraining
from nas.tasks import Task, open_task
from nas.tasks.dataset import Images
from nas.train import fit
from search_spaces import SearchSpace, open_space
from search_spaces.architecture import Architecture

WANTED_MACS = (6e6, 9e6, 12e6, 15e6)
SPACE, WIDTH, PX = "mnasnet", 0.35, 32


def main() -> None:
    """Time both on a few networks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 12), ("rounds", 7), ("batch", 64), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    task = made_up_task(given.steps * given.batch)
    space = open_space(SPACE, width=WIDTH, input_chw=task.input_chw)
    rows = [row(arch, space, task, given) for arch in networks(space, task)]
    write(rows, given)


def made_up_task(images: int) -> Task:
    """CIFAR-like arrays: as many training images as the timed steps need, and as many to validate on as a score looks at."""
    rng = np.random.default_rng(0)

    def drawn(number: int) -> Images:
        return Images(x=rng.integers(0, 256, (number, PX, PX, 3), dtype=np.uint8), y=np.arange(number) % 10)

    base = open_task("classify", "digits", image_size=PX)
    return dataclasses.replace(
        base, input_chw=(3, PX, PX), mean=(0.5,) * 3, std=(0.25,) * 3, train=drawn(max(images, CALIBRATION_IMAGES)),
        valid=drawn(VALID_IMAGES),
    )  # fmt: skip


def networks(space: SearchSpace, task: Task) -> Iterable[Architecture]:
    """Of 200 networks drawn, those nearest to the wanted MACs."""
    rng = np.random.default_rng(0)
    drawn = [space.decode(space.sample(rng), task.head) for _ in range(200)]
    return [min(drawn, key=lambda a: abs(count(a).macs - wanted)) for wanted in WANTED_MACS]


def row(arch: Architecture, space: SearchSpace, task: Task, given: argparse.Namespace) -> dict[str, Any]:  # Any: a row of a csv file
    """Median times of a step on both sides, their ratio, and the time of a score."""
    recipe = Recipe(epochs=1, batch=given.batch, warmup_epochs=0.5, flip=True, amp="off")
    plan = BankPlan(randoms=0, teacher="labels", recipe=recipe)
    training = BankTraining(space, task, plan, 0, torch.device("cpu"))

    def in_bank() -> float:
        order = torch.arange(given.steps * given.batch).view(given.steps, given.batch)
        began = time.perf_counter()
        for index in order:
            training.train(index, [arch])
        return float((time.perf_counter() - began) / given.steps)

    def alone() -> float:
        done = fit(build(arch), task, recipe, seed=0, device="cpu")
        return float(given.batch / done.images_per_second)

    sides: Mapping[str, Callable[[], float]] = {"bank": in_bank, "alone": alone}
    seconds = timed(sides, given.rounds)
    scores = timed({"score": lambda: scored(training.average, arch, task)}, given.rounds)["score"]
    middle = {side: statistics.median(taken) for side, taken in seconds.items()}
    each = [b / a for b, a in zip(seconds["bank"], seconds["alone"], strict=True)]
    return {
        "network": arch.id, "macs": count(arch).macs, "params": count(arch).params,
        "bank_params": sum(t.numel() for t in training.live.values()),
        **{f"{side}_step_ms": round(1e3 * taken, 2) for side, taken in middle.items()},
        "bank_over_alone": round(middle["bank"] / middle["alone"], 3),
        "bank_over_alone_low": round(min(each), 3), "bank_over_alone_high": round(max(each), 3),
        "score_s": round(statistics.median(scores), 3), "score_s_low": round(min(scores), 3), "score_s_high": round(max(scores), 3),
        "batch": given.batch, "steps": given.steps, "rounds": given.rounds, "threads": given.threads, "torch": torch.__version__,
    }  # fmt: skip


def scored(bank: Mapping[str, torch.Tensor], arch: Architecture, task: Task) -> float:
    """Seconds of a score by inheritance."""
    began = time.perf_counter()
    inherited_score(bank, arch, task)
    return time.perf_counter() - began


def timed(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side says it took, in rounds that begin with another side each; the first round warms up."""
    names, seconds = list(sides), {side: list[float]() for side in sides}
    for i in range(rounds + 1):
        for side in names[i % len(names) :] + names[: i % len(names)]:
            taken = sides[side]()
            if i:
                seconds[side].append(taken)
    return seconds


def write(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:  # Any: rows of a csv file
    """Write supernet.csv and supernet.md and print the latter."""
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "supernet.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    head = (
        f"Networks of `{SPACE}` x{WIDTH:g} at {PX} px: a train step of one of them in a bank and by itself (batch {given.batch}, "
        f"{given.steps} steps a round, {given.rounds} rounds in turns, fp32, {given.threads} thread(s), torch {torch.__version__}), and a "
        f"score by inheritance ({CALIBRATION_IMAGES} images to recalibrate on, {VALID_IMAGES:,} to score). Lowest and highest round in "
        "brackets. Wanted: at most 1.2 times, and 1.5 s up to 15M MACs."
    )
    columns = ["network", "MACs", "step alone, ms", "step in bank, ms", "bank / alone", "score, s"]
    lines = [head, "", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns), *map(line, rows)]
    (given.out / "supernet.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def line(row: Mapping[str, Any]) -> str:  # Any: a row of a csv file
    """A row of the Markdown table."""
    ratio = f"{row['bank_over_alone']} ({row['bank_over_alone_low']} to {row['bank_over_alone_high']})"
    score = f"{row['score_s']} ({row['score_s_low']} to {row['score_s_high']})"
    cells = [row["network"], f"{row['macs'] / 1e6:.1f}M", row["alone_step_ms"], row["bank_step_ms"], ratio, score]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
