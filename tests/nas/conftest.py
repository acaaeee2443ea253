"""A finished search, made once and only read by its tests; Ctrl-C as a terminal has it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nas.small import command, config, saved


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    done = command("--config", saved(config(folder, sampler="tpe"), folder), "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> Iterator[None]:
    """A shell starts its background jobs with SIGINT ignored, and their children inherit that: tests that send it need the default."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
