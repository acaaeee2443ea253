"""A finished search, made once and only read by its tests."""

from pathlib import Path

import pytest

from tests.nas.small import command, config, saved


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    done = command("--config", saved(config(folder, sampler="tpe"), folder), "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"
