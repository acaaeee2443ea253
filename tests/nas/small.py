"""Whole searches in a few seconds: a small data set, a small space, two small baselines, the fake device, one process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
from click.testing import CliRunner, Result

from nas.config import RunConfig
from nas.recipe import BankPlan, Recipe
from nas.search import main
from nas.store import Candidate, read_rows
from nas.tasks import Task, open_task
from search_spaces import SearchSpace, open_space
from tests.nas.tasks.samples import write_npz

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
[stem]
out_ch = 8
kernel = 3

[[stages]]
name = "a"
out_ch = 8
stride = 2
op = ["conv", "sepconv", "mbconv3"]
kernel = [3, 5]
width = [0.5, 1.0, 2.0]

[[stages]]
name = "b"
out_ch = 16
stride = 2
op = ["sepconv", "mbconv3", "mbconv6"]
width = [0.5, 1.0]
depths = [0, 1]

[last]
out_ch = 16
"""
TWO_NETWORKS = """
[stem]
out_ch = 8
kernel = 3

[[stages]]
name = "a"
out_ch = 8
stride = 2
kernel = [3, 5]
op = "sepconv"
"""
RECIPE = Recipe(batch=16, lr=0.05, crop_pixels=0)
TRAINED = ("search", "trained")


def write_inputs(folder: Path, space: str = SPACE) -> dict[str, str]:
    """Writes the data set and the space below ``folder``; the fields of a configuration that name them."""
    (folder / "small.toml").write_text(space)
    data = write_npz(folder / "small.npz", train=100, test=30)
    return {"space": str(folder / "small.toml"), "data": f"npz:{data}"}


def config(folder: Path, space: str = SPACE, **changed: Any) -> RunConfig:  # Any: values of any field
    """A search of eight candidates; writes its inputs below ``folder``."""
    fields: dict[str, Any] = {
        "devices": ("fake",), "executor": "serial", "sampler": "random", "trials": 8, "round_size": 4, "epochs": 1, "final_epochs": 1,
        "front_size": 2, "baselines": ("mobilenet_v3_small_minimal", "mnasnet_small"), "baseline_widths": 1, "recipe": RECIPE,
    }  # fmt: skip
    return RunConfig(**(fields | write_inputs(folder, space) | changed))


def inheriting(folder: Path, space: str = SPACE, **changed: Any) -> RunConfig:  # Any: values of any field
    """The same by inheritance, with a bank of three epochs."""
    return config(folder, space, **({"evaluate": "inherited", "bank_epochs": 3, "bank": BankPlan(randoms=1, recipe=RECIPE)} | changed))


def saved(config: RunConfig, folder: Path) -> Path:
    """The configuration as a file for ``--config``."""
    path = folder / "given.json"
    path.write_bytes(msgspec.json.encode(config))
    return path


def opened(config: RunConfig) -> tuple[Task, SearchSpace]:
    """The task and the space that a configuration names."""
    task = open_task(config.task, config.data)
    return task, open_space(config.space, width=config.width, input_chw=task.input_chw)


def command(*arguments: object) -> Result:
    """``python -m nas.search`` in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def start(*arguments: object, executor: str = "serial") -> subprocess.Popen[str]:
    """``python -m nas.search`` as a process of its own, the leader of a new process group."""
    line = [sys.executable, "-m", "nas.search", *map(str, arguments), "--executor", executor]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=one_thread
    )


def rows(out: Path) -> list[Candidate]:
    """All whole rows of a run, in the order of the file."""
    return list(read_rows(out / "candidates.jsonl"))


def proposals(found: Iterable[Candidate]) -> list[tuple[object, ...]]:
    """What must be equal between two runs of one configuration: all of the search's rows but their seconds, by number."""
    kept = [msgspec.structs.replace(r, seconds=0.0) for r in found if r.stage == "search"]
    return [tuple(msgspec.structs.asdict(r).items()) for r in sorted(kept, key=lambda r: r.number or 0)]


def front(out: Path) -> pd.DataFrame:
    """front.csv without the time that trainings took."""
    return pd.read_csv(out / "front.csv", dtype={"id": str}).drop(columns="train_seconds")


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 240.0) -> None:
    """Polls every millisecond; fails the test, and leaves no process, where the process ends first or time runs out."""
    end = time.monotonic() + seconds
    while not holds():
        if (process.poll() is not None and not holds()) or time.monotonic() > end:
            _, story = kill(process)
            raise AssertionError(f"it did not happen in time, or before the process ended: {story}")
        time.sleep(0.001)


def ended(process: subprocess.Popen[str], seconds: float = 60.0) -> tuple[int, str]:
    """Exit code and stderr of a process that should end by itself; killed where it does not."""
    try:
        _, story = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"it did not end in {seconds:g} s: {kill(process)[1]}") from error
    return process.returncode, story


def kill(process: subprocess.Popen[str]) -> tuple[str, str]:
    """SIGKILL for the whole process group; what it said until then."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()


def kill_at(process: subprocess.Popen[str], holds: Callable[[], bool], seconds: float = 240.0) -> None:
    """SIGKILL for the whole process group as soon as a condition holds; until then it may load torch and data, and train."""
    wait_until(holds, process, seconds)
    kill(process)


def line_count(out: Path) -> int:
    """Line breaks in candidates.jsonl: cheap enough to poll."""
    path = out / "candidates.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
