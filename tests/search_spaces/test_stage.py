"""Rules of a row and of its numbers."""

import math

import msgspec
import pytest

from search_spaces import BASELINES, InvalidSpace, Stage, make_divisible
from search_spaces.stage import scaled


@pytest.mark.parametrize("width", [0.25, 0.35, 0.5, 0.75, 1.0, 1.25, 1.3, 1.4])
def test_scaled_agrees_with_the_published_rounding(width: float) -> None:
    bases = {stage.out_ch for space in BASELINES.values() for stage in space.stages} | {960, 1280, 576, 1024}
    assert {ch: scaled(ch * width) for ch in bases} == {ch: make_divisible(ch * width) for ch in bases}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kernel", (4,)),
        ("kernel", (-1,)),
        ("kernel", ()),
        ("kernel", (3, 3)),
        ("width", (0.0,)),
        ("width", (math.nan,)),
        ("op", ("mbconv",)),
        ("op", ("mbconv0",)),
        ("op", ("mbconvx",)),
        ("op", ("dwconv",)),
        ("op", ()),
        ("expand", (6.0,)),
        ("se", (1.5,)),
        ("skip", ()),
        ("depths", (1000,)),
        ("depth", 0),
        ("depth", 1000),
        ("out_ch", 0),
        ("name", "a.b"),
        ("name", ""),
    ],
)
def test_broken_row_is_refused(field: str, value: object) -> None:
    row = msgspec.structs.asdict(Stage(name="s1", out_ch=8, op=("conv",)))
    with pytest.raises(InvalidSpace, match=r"allowed: "):
        Stage(**{**row, field: value})
