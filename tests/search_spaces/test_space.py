"""Decoding, encoding and walking a small space written out by hand."""

import math

import msgspec
import numpy as np
import pytest

from search_spaces import Block, Edge, Head, InvalidArchitecture, InvalidSpace, Pick, SearchSpace, Stage, UnknownName, pieces

HEAD = Head(outputs=10)
SPACE = SearchSpace(
    name="by-hand",
    stem=Edge(out_ch=16, kernel=3),
    stages=(
        Stage(name="a", out_ch=16, op=("conv", "sepconv", "mbconv3"), skip=("pool", "identity", "none"), se=(0.0, 0.25)),
        Stage(name="b", out_ch=32, stride=2, depth=2, op=("mbconv",), expand=(1.0, 2.5), width=(0.5, 1.0), depths=(-4, 0), vary="block"),
    ),
    last=Edge(out_ch=64),
)
PICKS: dict[str, Pick] = {
    "a.op": "sepconv", "a.skip": "identity", "a.se": 0.0,
    "b.b1.expand": 2.5, "b.b2.expand": 1.0, "b.width": 1.0, "b.depths": 0,
}  # fmt: skip


def decoded(**changed: str | float) -> tuple[Block, ...]:
    return SPACE.decode({**PICKS, **{key.replace("__", "."): value for key, value in changed.items()}}, HEAD).blocks


def test_choices_leave_out_menus_of_one() -> None:
    assert {name: len(menu) for name, menu in SPACE.choices().items()} == {
        "a.op": 3, "a.se": 2, "a.skip": 3, "b.b1.expand": 2, "b.b2.expand": 2, "b.width": 2, "b.depths": 2,
    }  # fmt: skip


def test_blocks_are_named_for_stage_and_place() -> None:
    assert [block.name for block in decoded()] == ["stem", "s1b1", "s2b1", "s2b2", "last"]


def test_decoded_blocks_are_those_worked_out_by_hand() -> None:
    assert decoded() == (
        Block(name="stem", op="conv", in_ch=3, out_ch=16, kernel=3, stride=2),
        Block(name="s1b1", op="sepconv", in_ch=16, out_ch=16, skip="identity"),
        Block(name="s2b1", op="mbconv", in_ch=16, hidden_ch=40, out_ch=32, stride=2),
        Block(name="s2b2", op="sepconv", in_ch=32, out_ch=32, skip="identity"),
        Block(name="last", op="conv", in_ch=32, out_ch=64, kernel=1),
    )


def test_depth_never_falls_below_one_block() -> None:
    assert [block.name for block in decoded(b__depths=-4)] == ["stem", "s1b1", "s2b1", "last"]


def test_picks_of_blocks_beyond_the_depth_change_nothing() -> None:
    assert decoded(b__depths=-4, b__b2__expand=1.0) == decoded(b__depths=-4, b__b2__expand=2.5)


def test_pool_stays_where_identity_cannot_add() -> None:
    stage = Stage(name="a", out_ch=32, stride=2, op=("sepconv",), skip=("pool", "identity"))
    space = SearchSpace(name="x", stem=Edge(out_ch=16, kernel=3), stages=(stage,))
    assert [space.decode({"a.skip": skip}, HEAD).blocks[1].skip for skip in ("pool", "identity")] == ["pool", "none"]


@pytest.mark.parametrize(("op", "se_ch"), [("conv", 4), ("sepconv", 4), ("mbconv3", 4)])
def test_mnasnet_se_is_a_share_of_the_input(op: str, se_ch: int) -> None:
    block = decoded(a__op=op, a__se=0.25)[1]
    assert (block.se_ch, block.se_gate) == (se_ch, "sigmoid")


@pytest.mark.parametrize(("op", "se_ch"), [("conv", 8), ("sepconv", 8), ("mbconv3", 16)])
def test_mobilenetv3_se_is_a_share_of_the_gated_width_in_steps_of_eight(op: str, se_ch: int) -> None:
    space = msgspec.structs.replace(SPACE, se_rule="mobilenetv3")
    block = space.decode({**PICKS, "a.op": op, "a.se": 0.25}, HEAD).blocks[1]
    assert (block.se_ch, block.se_gate) == (se_ch, "hsigmoid")  # 16 / 4 = 4 -> 8; 48 / 4 = 12 -> 16


def test_mnasnet_se_has_at_least_one_channel() -> None:
    space = SearchSpace(name="x", stem=Edge(out_ch=8, kernel=3), stages=(Stage(name="a", out_ch=8, op=("conv",), se=(0.05,)),))
    assert space.decode({}, HEAD).blocks[1].se_ch == 1


@pytest.mark.parametrize(("scale", "narrow_ch", "wide_ch"), [("always", 32, 128), ("up", 64, 128), ("fixed", 64, 64)])
def test_width_multiplier_scales_an_edge_by_its_rule(scale: str, narrow_ch: int, wide_ch: int) -> None:
    edge = msgspec.convert({"out_ch": 64, "scale": scale}, Edge)
    assert (edge.at(0.5), edge.at(2.0)) == (narrow_ch, wide_ch)


def test_one_dimensional_inputs_keep_height_one_and_follow_the_rule_by_length() -> None:
    shapes = [pieces(SPACE.at(input_chw=(2, 1, length)).decode(PICKS, HEAD))[-1].in_chw for length in (40, 80, 160)]
    assert shapes == [(64, 1, 40), (64, 1, 40), (64, 1, 40)]


def test_space_gives_its_hidden_layer_to_a_bare_head() -> None:
    space = msgspec.structs.replace(SPACE, head=Edge(out_ch=128, act="hswish"))
    assert space.decode(PICKS, HEAD).head == Head(outputs=10, width_ch=128, act="hswish")


def test_task_keeps_a_hidden_layer_of_its_own() -> None:
    space, own = msgspec.structs.replace(SPACE, head=Edge(out_ch=128, act="hswish")), Head(outputs=10, width_ch=32)
    assert space.decode(PICKS, own).head == own


def test_unknown_pick_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown pick .*'a\.opp'; did you mean 'a\.op'"):
        SPACE.decode({**PICKS, "a.opp": "conv"}, HEAD)


def test_unknown_value_lists_the_menu() -> None:
    with pytest.raises(UnknownName, match=r"'a\.op'.*'mbconv4'.*mbconv3.*known: conv, sepconv, mbconv3"):
        SPACE.decode({**PICKS, "a.op": "mbconv4"}, HEAD)


def test_missing_pick_is_named() -> None:
    with pytest.raises(UnknownName, match=r"pick 'a\.se' is missing"):
        SPACE.decode({name: value for name, value in PICKS.items() if name != "a.se"}, HEAD)


def test_encode_ignores_names() -> None:
    arch = SPACE.decode(PICKS, HEAD)
    bare = msgspec.structs.replace(arch, blocks=tuple(msgspec.structs.replace(b, name="") for b in arch.blocks))
    assert SPACE.encode(bare) == PICKS


def test_encode_names_the_block_without_pick() -> None:
    arch = SPACE.decode(PICKS, HEAD)
    odd = msgspec.structs.replace(arch, blocks=(*arch.blocks[:3], msgspec.structs.replace(arch.blocks[3], kernel=5), arch.blocks[4]))
    with pytest.raises(InvalidArchitecture, match=r"block 3 has no pick.*kernel=5"):
        SPACE.encode(odd)


@pytest.mark.parametrize("kept", [(0, 1, 4), (0, 1, 2)])
def test_encode_refuses_an_architecture_that_ends_early(kept: tuple[int, ...]) -> None:
    arch = SPACE.decode({**PICKS, "b.width": 0.5}, HEAD)
    with pytest.raises(InvalidArchitecture, match="no member of 'by-hand'"):
        SPACE.encode(msgspec.structs.replace(arch, blocks=tuple(arch.blocks[i] for i in kept)))


def test_encode_refuses_another_input_size() -> None:
    with pytest.raises(InvalidArchitecture, match="input must be"):
        SPACE.encode(SPACE.at(input_chw=(3, 32, 32)).decode(PICKS, HEAD))


def test_encode_tries_again_when_a_stage_took_too_many_blocks() -> None:
    same = {"out_ch": 16, "op": ("sepconv", "conv"), "depths": (1, 0)}
    stages = (msgspec.convert({"name": "a", **same}, Stage), msgspec.convert({"name": "b", **same}, Stage))
    space = SearchSpace(name="x", stem=Edge(out_ch=16, kernel=3), stages=stages)
    arch = space.decode({"a.op": "conv", "a.depths": 0, "b.op": "conv", "b.depths": 0}, HEAD)
    assert space.decode(space.encode(arch), HEAD) == arch


def test_corners_take_every_choice_to_its_end() -> None:
    assert SPACE.corners() == (
        {"a.op": "sepconv", "a.se": 0.0, "a.skip": "none", "b.b1.expand": 1.0, "b.b2.expand": 1.0, "b.width": 0.5, "b.depths": -4},
        {"a.op": "conv", "a.se": 0.25, "a.skip": "pool", "b.b1.expand": 2.5, "b.b2.expand": 2.5, "b.width": 1.0, "b.depths": 0},
    )


def test_neighbours_differ_in_exactly_one_choice() -> None:
    changed = [[name for name in PICKS if near[name] != PICKS[name]] for near in SPACE.neighbours(PICKS)]
    assert sorted(changed) == sorted([["a.op"]] * 2 + [["a.skip"]] * 2 + [[n] for n in PICKS if n not in ("a.op", "a.skip")])


def test_samples_are_the_same_for_the_same_seed() -> None:
    drawn = [[SPACE.sample(np.random.default_rng(seed)) for _ in range(3)] for seed in (7, 7)]
    assert drawn[0] == drawn[1]


def test_samples_take_every_menu_entry_about_as_often() -> None:
    rng = np.random.default_rng(0)
    ops = [SPACE.sample(rng)["a.op"] for _ in range(3000)]
    assert all(abs(ops.count(op) - 1000) < 130 for op in ("conv", "sepconv", "mbconv3"))  # 5 standard deviations


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_width_must_be_positive(width: float) -> None:
    with pytest.raises(InvalidSpace, match="width must be a number above 0"):
        SPACE.at(width=width)


@pytest.mark.parametrize("input_chw", [(0, 32, 32), (3, 32, -1)])
def test_input_must_be_positive(input_chw: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidSpace, match="input_chw must be three positive numbers"):
        SPACE.at(input_chw=input_chw)


def test_stage_names_must_differ() -> None:
    with pytest.raises(InvalidSpace, match=r"every row's must be its own, and row 2 \('a'\) repeat"):
        SearchSpace(name="x", stem=SPACE.stem, stages=(SPACE.stages[0], SPACE.stages[0]))


def test_space_needs_a_stage() -> None:
    with pytest.raises(InvalidSpace, match="at least one is needed"):
        SearchSpace(name="x", stem=SPACE.stem, stages=())
