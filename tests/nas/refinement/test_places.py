import msgspec
import pytest

from latency.piece_work import piece_work
from nas.refinement.places import KINDS, Place, described, menu, places, shrunk, size_at, smallest
from search_spaces import Architecture, Block, Head, InvalidArchitecture, Tap, pieces
from tests.nas.refinement.samples import CHAIN, many

MANY = many()


def weights(arch: Architecture) -> int:
    return sum(piece_work(piece).weights for piece in pieces(arch))


def changed(before: Architecture, after: Architecture) -> dict[str, dict[str, object]]:
    """The fields that differ, by the block's name."""
    found = {}
    for old, new in zip(before.blocks, after.blocks, strict=True):
        was, now = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
        if different := {k: now[k] for k in now if was[k] != now[k]}:
            found[old.name] = different
    return found


def test_expansion_is_the_hidden_width_of_one_block_alone() -> None:
    assert changed(CHAIN, shrunk(CHAIN, Place(kind="expansion", block=3), 40)) == {"c": {"hidden_ch": 40}}


def test_bottleneck_is_shared_by_the_blocks_that_skips_tie_and_feeds_the_next() -> None:
    found = changed(CHAIN, shrunk(CHAIN, Place(kind="bottleneck", block=1), 16))
    assert found == {
        "a": {"out_ch": 16}, "b": {"in_ch": 16, "out_ch": 16}, "c": {"in_ch": 16, "out_ch": 16}, "d": {"in_ch": 16},
    }  # fmt: skip


def test_pooled_input_of_equal_width_ties_two_blocks() -> None:
    found = changed(CHAIN, shrunk(CHAIN, Place(kind="bottleneck", block=4), 32))
    assert found == {"d": {"out_ch": 32}, "e": {"in_ch": 32, "out_ch": 32}, "last": {"in_ch": 32}}


def test_last_bottleneck_has_no_block_behind_it() -> None:
    assert changed(CHAIN, shrunk(CHAIN, Place(kind="bottleneck", block=6), 8)) == {"last": {"out_ch": 8}}


def test_every_shared_bottleneck_is_one_place() -> None:
    assert [p.block for p in places(CHAIN, ("bottleneck",))] == [0, 1, 4, 6]
    assert [p.block for p in places(CHAIN, ("expansion",))] == [2, 3, 4]


def test_output_that_is_added_to_the_image_cannot_shrink() -> None:
    arch = Architecture(input_chw=(16, 8, 8), blocks=(Block(op="conv", in_ch=16, out_ch=16, skip="identity"),), head=Head(outputs=2))
    assert places(arch, KINDS[:2]) == ()
    with pytest.raises(InvalidArchitecture, match="nothing to make smaller"):
        shrunk(arch, Place(kind="bottleneck", block=0), 8)


@pytest.mark.parametrize(("width", "sizes"), [(24, (16, 8)), (20, (16, 8)), (9, (8,)), (8, ()), (3, ())])
def test_menu_has_the_multiples_of_eight_below(width: int, sizes: tuple[int, ...]) -> None:
    arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=width),), head=Head(outputs=2))
    assert menu(arch, Place(kind="bottleneck", block=0)) == sizes


@pytest.mark.parametrize(
    ("place", "sizes"),
    [
        (Place(kind="se", block=2), (16, 8, 0)), (Place(kind="se", block=6), (0,)), (Place(kind="se", block=3), ()),
        (Place(kind="kernel", block=4), (5, 3)), (Place(kind="kernel", block=3), ()), (Place(kind="kernel", block=6), ()),
        (Place(kind="depth", block=3), (0,)), (Place(kind="depth", block=5), ()), (Place(kind="depth", block=0), ()),
        (Place(kind="head"), (24, 16, 8)),
    ],
)  # fmt: skip
def test_menus_of_the_other_kinds(place: Place, sizes: tuple[int, ...]) -> None:
    assert menu(CHAIN, place) == sizes


def test_block_without_its_se_has_no_gate() -> None:
    assert changed(CHAIN, shrunk(CHAIN, Place(kind="se", block=2), 0)) == {"b": {"se_ch": 0, "se_gate": "sigmoid"}}


def test_left_out_block_takes_the_taps_with_it() -> None:
    tapped = msgspec.structs.replace(CHAIN, taps=(Tap(block=5),))
    found = shrunk(tapped, Place(kind="depth", block=3), 0)
    assert [b.name for b in found.blocks] == ["stem", "a", "b", "d", "e", "last"]
    assert found.taps == ()


def test_head_loses_its_hidden_width_alone() -> None:
    assert shrunk(CHAIN, Place(kind="head"), 8) == msgspec.structs.replace(CHAIN, head=Head(outputs=5, width_ch=8, act="hswish"))


@pytest.mark.parametrize("place", [Place(kind="expansion", block=3), Place(kind="bottleneck", block=1), Place(kind="head")])
@pytest.mark.parametrize("size", [0, -8, 1000])
def test_filter_count_of_zero_or_more_than_there_are_is_refused(place: Place, size: int) -> None:
    with pytest.raises(InvalidArchitecture, match=f"its size must be 1 to {size_at(CHAIN, place) - 1}, got {size}$"):
        shrunk(CHAIN, place, size)


@pytest.mark.parametrize("place", [Place(kind="expansion", block=0), Place(kind="bottleneck", block=2), Place(kind="expansion", block=99)])
def test_place_that_is_none_is_refused(place: Place) -> None:
    with pytest.raises(InvalidArchitecture, match=f"{place.kind} of .*nothing to make smaller"):
        shrunk(CHAIN, place, 8)


@pytest.mark.parametrize("name", MANY)
def test_every_size_of_every_place_gives_a_valid_network_with_fewer_weights(name: str) -> None:
    arch = MANY[name]
    for place in places(arch, KINDS):
        sizes = [weights(shrunk(arch, place, size)) for size in menu(arch, place)]
        assert weights(arch) > sizes[0], place
        assert sizes == sorted(sizes, reverse=True), place


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("kinds", [("expansion",), ("expansion", "bottleneck"), KINDS])
def test_smallest_network_has_nothing_left_to_shrink(name: str, kinds: tuple[str, ...]) -> None:
    assert places(smallest(MANY[name], kinds), kinds) == ()  # type: ignore[arg-type]  # the parameters are kinds


def test_smallest_network_keeps_its_strides_and_outputs() -> None:
    found = smallest(CHAIN, KINDS)
    assert [b.stride for b in found.blocks if b.stride == 2] == [2, 2, 2]
    assert {b.out_ch for b in found.blocks} == {8}
    assert found.head == Head(outputs=5, width_ch=8, act="hswish")


def test_places_are_described_by_their_blocks_names() -> None:
    assert described(CHAIN, Place(kind="bottleneck", block=1)) == "bottleneck of a to c"
    assert described(CHAIN, Place(kind="bottleneck", block=0)) == "bottleneck of stem"
    assert described(CHAIN, Place(kind="kernel", block=4)) == "kernel of d"
    assert described(CHAIN, Place(kind="head")) == "hidden layer of the head"
