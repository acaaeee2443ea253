from pathlib import Path

import pytest

from nas.errors import InvalidData
from nas.executors import EXECUTORS
from nas.executors.serial import execute
from tests.nas.executors.sources import Listed
from tests.nas.small import config


def test_jobs_run_in_order_one_at_a_time(tmp_path: Path) -> None:
    source = Listed(["a", "b", "c"])
    execute(source, config(tmp_path), workers=4)
    assert list(source.outcomes) == ["a", "b", "c"]
    assert source.most_out == 1


def test_job_that_raises_becomes_an_outcome_with_its_traceback(tmp_path: Path) -> None:
    # the jobs' network takes two classes at 8 px, the data has three at 16 px
    source = Listed(["a", "b"])
    execute(source, config(tmp_path), workers=1)
    assert all(o.error.startswith("Traceback") for o in source.outcomes.values())


def test_error_of_the_source_ends_the_run(tmp_path: Path) -> None:
    source = Listed(["a", "b", "c"], ends_at="b")
    with pytest.raises(LookupError, match="ends at b"):
        execute(source, config(tmp_path), workers=1)
    assert list(source.outcomes) == ["a", "b"]


def test_data_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidData):
        execute(Listed(["a"]), config(tmp_path, data=f"npz:{tmp_path}/none.npz"), workers=1)


def test_executors_are_the_configurations_choices() -> None:
    assert set(EXECUTORS) == {"ray", "serial"}
