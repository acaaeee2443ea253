"""Does a distillation step cost more than the student's step and the teacher's forward pass? Side by side, in turns, in one run.

python benchmarks/distill.py [--steps 20] [--rounds 7] [--batch 64] [--threads 1] [--out benchmarks]

``student`` is ``nas.train.fit`` without a lesson, ``teacher`` the bare teacher (ResNet-20) on as many batches, ``asked`` is ``fit`` with a
lesson that asks it in every step, ``kept`` with one that reads its outputs from disk. Each round times all four, taking turns at who
goes first; ratios are those of medians: asked over student + teacher (at most 1.05 is wanted), and asked over kept, what keeping saves.
Writes distill.csv and distill.md.
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from latency import open_device
from nas.distillation.lesson import LessonConfig, LessonJob, TeacherSpec
from nas.distillation.teachers import open_teacher, resolve
from nas.distillation.teaching import open_lesson
from nas.losses import LOSSES
from nas.models import build
from nas.models.reference import reference
from nas.recipe import Recipe
from nas.tasks import Task, open_task
from nas.train import fit
from nas.weights import save
from search_spaces.architecture import Architecture
from search_spaces.baselines import baseline

METHODS = ("kd", "dkd", "dist", "nkd")
TEACHER = "resnet20"


def main() -> None:
    """Time the four on a small network for each loss and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("steps", 20), ("rounds", 7), ("batch", 64), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = open_device("local")
    computer = device.info().name
    device.close()
    task = open_task("classify", "photos", train_images=given.steps * given.batch, valid_images=50)
    arch = baseline("mobilenet_v2", width=0.35, input_chw=task.input_chw, outputs=len(task.classes))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "teacher.safetensors"
        save(reference(TEACHER, outputs=len(task.classes), generator=torch.Generator().manual_seed(0)).state_dict(), weights)
        spec = resolve(f"file:{weights}", task, arch=TEACHER, norm="task")
        write([row(loss, arch, task, spec, Path(folder) / loss, given) for loss in METHODS], given, computer)


def row(
    loss: str, arch: Architecture, task: Task, spec: TeacherSpec, folder: Path, given: argparse.Namespace
) -> dict[str, Any]:  # Any: a row of a csv file
    """Median seconds per step of the four for one loss, and the ratios."""
    recipe = Recipe(epochs=1, batch=given.batch, warmup_epochs=0.5, flip=True, amp="off")
    taught = LessonConfig(loss=loss, task_weight=LOSSES[loss].task_weight, weight=LOSSES[loss].weight)
    asked, kept = (LessonJob(config=taught, teacher=spec, cache=cache) for cache in ("", str(folder)))
    fit_seconds(arch, task, recipe, kept)  # fills the kept outputs
    ways: Mapping[str, Callable[[], float]] = {
        "student": lambda: fit_seconds(arch, task, recipe, None),
        "teacher": lambda: teacher_seconds(task, spec, given),
        "asked": lambda: fit_seconds(arch, task, recipe, asked),
        "kept": lambda: fit_seconds(arch, task, recipe, kept),
    }
    names, seconds = list(ways), {name: list[float]() for name in ways}
    for i in range(given.rounds + 1):
        for name in names[i % 4 :] + names[: i % 4]:
            taken = ways[name]()
            if i:  # the first round warms up
                seconds[name].append(taken / given.steps)
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    each = [a / (s + t) for a, s, t in zip(seconds["asked"], seconds["student"], seconds["teacher"], strict=True)]
    return {
        "loss": loss, **{f"{name}_ms": round(1000 * middle[name], 2) for name in names},
        "asked_over_parts": round(middle["asked"] / (middle["student"] + middle["teacher"]), 3),
        "asked_over_parts_low": round(min(each), 3), "asked_over_parts_high": round(max(each), 3),
        "asked_over_kept": round(middle["asked"] / middle["kept"], 2),
        "batch": given.batch, "steps": given.steps, "rounds": given.rounds, "threads": given.threads, "torch": torch.__version__,
    }  # fmt: skip


def fit_seconds(arch: Architecture, task: Task, recipe: Recipe, job: LessonJob | None) -> float:
    """Seconds that ``fit`` spends in its one epoch, by its own account of training time."""
    lesson = open_lesson(job, arch, task, recipe, 0) if job else None
    done = fit(build(arch, generator=torch.Generator().manual_seed(0)), task, recipe, seed=0, device="cpu", lesson=lesson)
    return done.steps * recipe.batch / done.images_per_second


def teacher_seconds(task: Task, spec: TeacherSpec, given: argparse.Namespace) -> float:
    """Seconds of the bare teacher's forward passes on as many batches."""
    module, x = open_teacher(spec, task).module.to(memory_format=torch.channels_last), task.normaliser()(task.load("train").x)
    began = time.perf_counter()
    with torch.no_grad():
        for i in range(given.steps):
            module(x[i * given.batch : (i + 1) * given.batch])
    return time.perf_counter() - began


def write(rows: list[dict[str, Any]], given: argparse.Namespace, computer: str) -> None:  # Any: rows of a csv file
    """Write distill.csv and distill.md and print the latter."""
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "distill.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    head = (
        f"A distillation step on {computer}: mobilenet_v2 x0.35 at 32 px taught by {TEACHER}, batch {given.batch}, "
        f"{given.steps} steps a round, {given.rounds} rounds in turns, fp32, {given.threads} thread(s), torch {torch.__version__}. "
        "Ratio: asked over student + teacher (lowest and highest round); at most 1.05 is wanted."
    )
    columns = ["loss", "student, ms", "teacher, ms", "asked, ms", "kept, ms", "asked / (student + teacher)", "asked / kept"]
    lines = [head, "", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for r in rows:
        ratio = f"{r['asked_over_parts']} ({r['asked_over_parts_low']} to {r['asked_over_parts_high']})"
        cells = [r["loss"], *(r[f"{name}_ms"] for name in ("student", "teacher", "asked", "kept")), ratio, r["asked_over_kept"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    (given.out / "distill.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
