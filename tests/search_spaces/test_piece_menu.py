"""The menu of pieces against every member's own pieces, listed or drawn."""

import itertools
from collections.abc import Iterable
from typing import Literal

import msgspec
import numpy as np
import pytest

from search_spaces import SPACES, Architecture, Block, Edge, Head, Piece, SearchSpace, Stage, open_space, pieces

HEAD = Head(outputs=10)


def of(*stages: Stage, side_px: int = 224, width: float = 1.0, last: Edge | None = None, head: Edge | None = None) -> SearchSpace:
    """A space of these stages behind a stem of 8 channels."""
    return SearchSpace(
        name="x", stem=Edge(out_ch=8, kernel=3), stages=stages, last=last, head=head, width_mult=width, input_chw=(3, side_px, side_px)
    )


def pieces_of(networks: Iterable[Architecture]) -> set[Piece]:
    return {piece for network in networks for piece in pieces(network)}


def members(space: SearchSpace) -> Iterable[Architecture]:
    """The network of every combination of picks."""
    choices = space.choices()
    return (space.decode(dict(zip(choices, picks, strict=True)), HEAD) for picks in itertools.product(*choices.values()))


def test_one_stage_has_a_first_block_and_a_repeat_of_each_kind() -> None:
    # stem + (4 firsts at stride 2 + 4 repeats) + head, worked out by hand
    space = of(Stage(name="a", out_ch=16, stride=2, depth=2, op=("conv", "sepconv"), kernel=(3, 5)))
    assert len(space.pieces(HEAD)) == 1 + 4 + 4 + 1


def test_stage_of_one_block_has_no_repeat() -> None:
    assert len(of(Stage(name="a", out_ch=16, stride=2, op=("conv", "sepconv"), kernel=(3, 5))).pieces(HEAD)) == 1 + 4 + 1


def test_next_stage_is_entered_with_every_width() -> None:
    a = Stage(name="a", out_ch=16, stride=2, op=("conv",), width=(0.5, 1.0, 1.5))
    b = Stage(name="b", out_ch=32, stride=2, op=("conv",), width=(0.5, 1.0))
    # a's 3 widths, b's 3 × 2, the head behind 2
    assert len(of(a, b).pieces(HEAD)) == 1 + 3 + 6 + 2


@pytest.mark.parametrize("side_px", [32, 224])
@pytest.mark.parametrize("width", [0.1, 0.4, 1.0])
@pytest.mark.parametrize(("last", "head"), [(None, None), (Edge(out_ch=64), None), (Edge(out_ch=64, kernel=3), Edge(out_ch=32))])
def test_pieces_are_those_of_listing_every_member(side_px: int, width: float, last: Edge | None, head: Edge | None) -> None:
    space = of(
        Stage(name="a", out_ch=8, op=("sepconv", "mbconv3"), skip=("pool", "identity", "none"), depths=(-1, 0, 1)),
        Stage(name="b", out_ch=16, stride=2, op=("sepconv", "mbconv1", "mbconv3"), width=(0.5, 1.0), depths=(0, 1)),
        Stage(name="c", out_ch=24, op=("mbconv",), expand=(1.0, 3.0), se=(0.0, 0.25), depths=(0, 1), vary="block"),
        side_px=side_px, width=width, last=last, head=head,
    )  # fmt: skip
    assert set(space.pieces(HEAD)) == pieces_of(members(space))


def test_pieces_of_sequences_have_one_dimension() -> None:
    stages = (Stage(name="a", out_ch=16, stride=2, op=("conv", "sepconv"), depths=(0, 1)),)
    space = msgspec.structs.replace(of(*stages), input_chw=(12, 1, 100))
    assert set(space.pieces(HEAD)) == pieces_of(members(space))


@pytest.mark.parametrize("side_px", [32, 96])
@pytest.mark.parametrize("name", SPACES)
def test_every_drawn_network_is_made_of_pieces_on_the_menu(name: str, side_px: int) -> None:
    space, rng = open_space(name, input_chw=(3, side_px, side_px)), np.random.default_rng(0)
    drawn = pieces_of(space.decode(space.sample(rng), HEAD) for _ in range(300))
    assert drawn <= set(space.pieces(HEAD))


@pytest.mark.slow
@pytest.mark.parametrize("side_px", [32, 96])
def test_two_thousand_networks_of_mnasnet_use_nearly_the_whole_menu_and_nothing_else(side_px: int) -> None:
    space, rng = open_space("mnasnet", input_chw=(3, side_px, side_px)), np.random.default_rng(1)
    drawn, menu = pieces_of(space.decode(space.sample(rng), HEAD) for _ in range(2000)), set(space.pieces(HEAD))
    assert drawn <= menu
    # a first block is one of at most 48 · 9 in its stage: 2,000 draws miss few, so the menu holds hardly anything that cannot be
    assert len(drawn) > 0.97 * len(menu)


@pytest.mark.parametrize(("side_px", "count"), [(32, 2373), (96, 2453)])
def test_mnasnet_has_fewer_pieces_than_the_plan_allows(side_px: int, count: int) -> None:
    found = open_space("mnasnet", input_chw=(3, side_px, side_px)).pieces(HEAD)
    assert len(found) == len(set(found)) == count <= 2850


def blocks_of(networks: Iterable[Architecture]) -> dict[str, set[Block]]:
    found: dict[str, set[Block]] = {}
    for block in (block for network in networks for block in network.blocks):
        found.setdefault(block.name, set()).add(block)
    return found


@pytest.mark.parametrize("last", [None, Edge(out_ch=32)])
@pytest.mark.parametrize("vary", ["stage", "block"])
def test_block_menus_are_the_blocks_of_all_members_place_by_place(vary: Literal["stage", "block"], last: Edge | None) -> None:
    a = Stage(name="a", out_ch=16, stride=2, op=("conv", "mbconv3"), width=(0.5, 1.0), depths=(0, 1), vary=vary)
    b = Stage(name="b", out_ch=24, op=("mbconv", "sepconv"), expand=(1.0, 2.0), se=(0.0, 0.25), skip=("pool", "none"))
    space = of(a, b, last=last)
    assert {name: set(menu) for name, menu in space.block_menus().items()} == blocks_of(members(space))


def test_block_menus_follow_the_network_from_its_beginning_to_its_end() -> None:
    deepest = SPACES["tiny"].decode(SPACES["tiny"].corners()[1], HEAD)
    assert list(SPACES["tiny"].block_menus()) == [block.name for block in deepest.blocks]


@pytest.mark.parametrize("name", SPACES)
def test_every_drawn_network_is_made_of_blocks_on_their_places_menus(name: str) -> None:
    space, rng = open_space(name, width=0.35, input_chw=(3, 32, 32)), np.random.default_rng(0)
    menus = {place: set(menu) for place, menu in space.block_menus().items()}
    drawn = blocks_of(space.decode(space.sample(rng), HEAD) for _ in range(100))
    assert all(blocks <= menus[place] for place, blocks in drawn.items())
