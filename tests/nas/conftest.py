"""Finished searches, made once and only read by their tests."""

from pathlib import Path

import pytest

from tests.nas.small import command, config, inheriting, saved


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
