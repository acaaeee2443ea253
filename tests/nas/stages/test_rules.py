"""Which stages may follow one another, and which flags belong to which."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from nas.config import RESUMABLE, RunConfig, config_from_file
from nas.errors import InvalidConfig, UnknownName
from nas.stages.rules import FIELDS_OF, STAGE_FIELDS, StageName, homeless, parse_stages
from tests.nas.small import command


def test_names_are_read_with_blanks_and_capitals() -> None:
    assert parse_stages("search, Refine,distill") == ("search", "refine", "distill")


def test_unknown_stage_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown stage 'distil'; did you mean 'distill'"):
        parse_stages("search,distil")


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        (("distill",), "search,distill"),
        (("refine", "distill"), "search,refine,distill"),
        (("search", "distill", "refine"), "search,refine,distill"),
        (("search", "search"), "search"),
        ((), "search"),
    ],
)
def test_impossible_order_is_refused_with_the_possible_one(stages: tuple[StageName, ...], wanted: str) -> None:
    with pytest.raises(InvalidConfig, match=f"in order: --stages {wanted};"):
        RunConfig(stages=stages)


def test_search_alone_is_the_default() -> None:
    assert RunConfig().stages == ("search",)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"refine_ratio": 1.0}, "--refine-ratio must lie between 0 and 1, got 1.0"),
        ({"refine_ms": -1.0}, "--refine-ms must be a positive number"),
        ({"refine_ms": 2.0, "refine_ratio": 0.5}, "give one of them"),
        ({"refine_members": 0}, "--refine-members must be at least 1"),
        ({"refine_steps": 0}, r"refine_steps \(in a config file\) must be at least 1"),
        ({"teacher_epochs": 0}, r"teacher_epochs \(in a config file\) must be at least 1"),
    ],
)
def test_value_that_breaks_a_rule_is_named(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        RunConfig(**changed)


def test_flag_of_an_absent_stage_says_which_to_add() -> None:
    said = homeless(["teacher", "seed"], ["search"])
    assert said == "--teacher belongs to the stage distill: add --stages search,distill, or leave it out"
    assert "add --stages search,refine,distill" in homeless(["refine_ms"], ["search", "distill"])
    assert homeless(["teacher", "refine_ms", "seed"], ["search", "refine", "distill"]) == ""


def test_every_knob_of_a_stage_is_a_field_that_may_change_when_a_run_is_taken_up() -> None:
    assert set(RunConfig.__struct_fields__) > STAGE_FIELDS
    assert RESUMABLE > STAGE_FIELDS
    assert all(set(fields) < STAGE_FIELDS for fields in FIELDS_OF.values())


def test_configuration_with_stages_survives_its_file(tmp_path: Path) -> None:
    config = RunConfig(stages=("search", "distill"), teacher="train:resnet20", loss="kd", loss_options={"temperature": 2.0})
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(config))
    assert config_from_file(tmp_path / "config.json", {}) == config


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--stages", "search,distil"], "did you mean 'distill'"),
        (["--stages", "distill,search"], "--stages search,distill"),
        (["--teacher", "train:resnet20"], "--teacher belongs to the stage distill"),
        (["--loss-set", "alpha=0.5"], "--loss-set belongs to the stage distill"),
        (["--stages", "search,distill", "--loss", "skd", "--loss-set", "alpha"], "--loss-set alpha: say NAME=VALUE"),
        (["--refine-ratio", "0.5", "--stages", "search,distill", "--loss", "uskd"], "--refine-ratio belongs to the stage refine"),
    ],
)
def test_mistake_in_a_flag_is_one_line_and_makes_no_folder(tmp_path: Path, flags: list[str], says: str) -> None:
    done = command("--out", tmp_path / "run", *flags)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not (tmp_path / "run").exists()
