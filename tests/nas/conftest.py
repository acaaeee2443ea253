"""Finished searches, made once and only read by their tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.nas.small import command, config, inheriting, saved


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums are the same in each run with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    done = command("--config", saved(config(folder, sampler="tpe"), folder), "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture(scope="session")
def inherited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose candidates' scores are inherited from its bank."""
    folder = tmp_path_factory.mktemp("inherited")
    done = command("--config", saved(inheriting(folder), folder), "--out", folder / "run")
    assert done.exit_code == 0, done.output
    assert "plan     train one bank of weights for 3 epochs" in done.stderr
    assert "bank     15 of its 15 steps" in done.stderr
    return folder / "run"
