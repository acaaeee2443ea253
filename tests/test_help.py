"""``--help`` answers at once, and says what there is to say."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from nas.search import main

ROOT = Path(__file__).resolve().parent.parent
VERBS = ("nas.search", "nas.export", "nas.rank", "latency.build_table")


def help_of(verb: str) -> tuple[float, str]:
    """Seconds that the help took, from nothing, and its text."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", verb, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_in_under_half_a_second(verb: str) -> None:
    # the best of five: other work on the computer only ever adds
    assert min(help_of(verb)[0] for _ in range(5)) < 0.5


@pytest.mark.parametrize("verb", VERBS)
def test_help_loads_nothing_heavy(verb: str) -> None:
    heavy = ("torch", "ray", "optuna", "pandas", "matplotlib", "sklearn", "skimage", "onnxruntime")
    code = f"import sys, {verb}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_search_has_the_flags_it_promises() -> None:
    promised = (
        "space", "task", "data", "device", "sampler", "reward", "target-ms", "w", "max-ms", "epochs", "trials", "budget", "workers",
        "seed", "config", "out", "executor", "ray-address",
    )  # fmt: skip
    shown = CliRunner().invoke(main, ["--help"]).stdout
    assert not [flag for flag in promised if f"--{flag} " not in shown]
