"""Exact sizes against counting by hand and against listing every member."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import SPACES, Edge, Head, SearchSpace, Stage, open_space

HEAD = Head(outputs=10)


def listed(space: SearchSpace) -> int:
    """Distinct architecture ids among all picks."""
    choices = space.choices()
    return len({space.decode(dict(zip(choices, picks, strict=True)), HEAD).id for picks in itertools.product(*choices.values())})


def of(*stages: Stage, width: float = 1.0, side_px: int = 224) -> SearchSpace:
    return SearchSpace(name="x", stem=Edge(out_ch=8, kernel=3), stages=stages, width_mult=width, input_chw=(3, side_px, side_px))


def test_skip_that_cannot_add_is_counted_once() -> None:
    stage = Stage(name="a", out_ch=16, op=("conv",), skip=("pool", "identity", "none"))
    assert of(stage).size().distinct == 2


def test_depth_that_cannot_shrink_is_counted_once() -> None:
    assert of(Stage(name="a", out_ch=16, op=("conv",), depths=(-1, 0, 1))).size().distinct == 2


def test_picks_of_absent_blocks_are_counted_once() -> None:
    stage = Stage(name="a", out_ch=16, op=("conv",), kernel=(3, 5), depth=2, depths=(-1, 0), vary="block")
    assert (of(stage).size().raw, of(stage).size().distinct) == (8, 2 + 4)


def test_stages_that_look_the_same_are_counted_once() -> None:
    # 2 to 6 equal blocks of conv, whichever stage they belong to.
    a = Stage(name="a", out_ch=8, op=("conv",), depths=(0, 1, 2))
    assert of(a, msgspec.structs.replace(a, name="b")).size().distinct == 5


def test_factorized_stages_multiply_where_nothing_coincides() -> None:
    a = Stage(name="a", out_ch=16, stride=2, op=("conv", "sepconv"), kernel=(3, 5), width=(1.0, 2.0))
    assert of(a, msgspec.structs.replace(a, name="b")).size().distinct == 8 * 8


@pytest.mark.parametrize("side_px", [32, 224])
@pytest.mark.parametrize("width", [0.1, 0.4, 1.0])
def test_distinct_is_what_listing_every_member_gives(width: float, side_px: int) -> None:
    space = of(
        Stage(name="a", out_ch=8, op=("sepconv", "mbconv3"), skip=("pool", "identity", "none"), depths=(-1, 0, 1)),
        Stage(name="b", out_ch=16, stride=2, op=("sepconv", "mbconv1", "mbconv3"), width=(0.5, 1.0), depths=(0, 1)),
        Stage(name="c", out_ch=24, op=("mbconv",), expand=(1.0, 3.0), se=(0.0, 0.25), depths=(0, 1), vary="block"),
        width=width,
        side_px=side_px,
    )
    assert space.size().distinct == listed(space)


def _menu(*entries: object) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(entries), min_size=1, max_size=2, unique=True).map(tuple)


ROWS = st.fixed_dictionaries(
    {
        "out_ch": st.sampled_from([8, 16]), "depth": st.integers(1, 2), "stride": st.sampled_from([1, 1, 2]),
        "op": _menu("conv", "sepconv", "mbconv1", "mbconv2"), "kernel": _menu(1, 3), "skip": _menu("pool", "identity", "none"),
        "width": _menu(0.5, 1.0), "depths": _menu(-1, 0, 1), "vary": st.sampled_from(["stage", "block"]),
    }
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=st.lists(ROWS, min_size=1, max_size=3), width=st.sampled_from([0.1, 0.5, 1.0]), side_px=st.sampled_from([32, 224]))
def test_distinct_is_what_listing_gives_for_any_small_space(rows: list[dict[str, object]], width: float, side_px: int) -> None:
    stages = [msgspec.convert({"name": f"s{i}", **row}, Stage) for i, row in enumerate(rows)]
    fitting = next(of(*stages[:n], width=width, side_px=side_px) for n in (3, 2, 1) if of(*stages[:n]).size().raw <= 1500 or n == 1)
    assert fitting.size().distinct == listed(fitting)


@pytest.mark.parametrize("width", [0.05, 0.35, 1.0])
@pytest.mark.parametrize("name", [name for name in SPACES if name != "tiny"])
def test_large_spaces_are_counted_without_listing(name: str, width: float) -> None:
    size = open_space(name, width=width, input_chw=(3, 32, 32)).size()
    assert 1e12 < size.distinct < size.raw


def test_deepest_space_is_counted() -> None:
    stages = [Stage(name=f"s{i}", out_ch=8, op=("conv",), kernel=(3, 5), depth=64) for i in range(4)]
    assert of(*stages).size().distinct == 2**4
