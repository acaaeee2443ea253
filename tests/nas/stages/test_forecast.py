from pathlib import Path
from typing import Any

import pytest

from nas.jobs import open_config_task
from nas.stages.forecast import say_stages
from tests.nas.small import config
from tests.nas.test_refine import SPACE


def said(folder: Path, *, is_new: bool = True, is_sized: bool = True, **changed: Any) -> list[str]:  # Any: values of any field
    given = config(folder, SPACE, **({"front_size": 2, "final_epochs": 3, "baselines": ("mobilenet_v2",)} | changed))
    lines: list[str] = []
    say_stages(given, open_config_task(given), lines.append, is_new=is_new, is_sized=is_sized)
    return lines


def test_each_stage_after_the_search_has_a_line(tmp_path: Path) -> None:
    stages, refine, distill = said(tmp_path, stages=("search", "refine", "distill"), loss="uskd", refine_members=2)
    assert stages == "stages   search, refine, distill"
    assert refine.startswith("refine   the 2 most accurate of the front, each to 0.7 of its latency (up to ~")
    assert distill.startswith("distill  up to 4 networks with uskd, without a teacher, 3 epochs each (~")


def test_no_more_is_refined_than_the_front_has(tmp_path: Path) -> None:
    _, refine = said(tmp_path, stages=("search", "refine"), refine_members=5, refine_ratio=0.5)
    assert refine.startswith("refine   the 2 most accurate of the front, each to 0.5 of its latency")


def test_time_to_an_absolute_target_is_not_guessed(tmp_path: Path) -> None:
    _, refine = said(tmp_path, stages=("search", "refine"), refine_ms=0.25)
    assert refine == "refine   the most accurate of the front to 0.25 ms (how long depends on where they begin)"


@pytest.mark.parametrize(
    ("changed", "count", "epochs"),
    [({}, 2, "3 epochs"), ({"distill_baselines": True}, 3, "3 epochs"), ({"distill_epochs": 1}, 2, "1 epoch")],
)
def test_students_are_counted(tmp_path: Path, changed: dict[str, Any], count: int, epochs: str) -> None:
    _, distill = said(tmp_path, stages=("search", "distill"), loss="kd", teacher="train:resnet20", **changed)
    assert distill.startswith(f"distill  up to {count} networks with kd from train:resnet20, {epochs} each (~")


def test_what_a_budget_has_yet_to_decide_is_left_open(tmp_path: Path) -> None:
    stages, refine, distill = said(
        tmp_path, stages=("search", "refine", "distill"), loss="uskd", budget_s=300.0, is_sized=False, is_new=False
    )
    assert stages.startswith("stages   search, refine, distill; --budget is for the search alone, and what follows comes on top; ")
    assert stages.endswith("; what is done of them is not done again")
    assert refine == "refine   the most accurate of the front to 0.7 of its latency"
    assert distill == "distill  the networks with uskd, without a teacher, for as many epochs as the budget gives full trainings"
