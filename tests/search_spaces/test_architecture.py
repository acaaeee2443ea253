"""Rules, identity and shapes of architectures written out by hand."""

import hashlib

import msgspec
import pytest

from search_spaces import Architecture, Block, Head, InvalidArchitecture, Tap, from_json, make_divisible, pieces, to_json

STEM = Block(name="stem", op="conv", in_ch=3, out_ch=8, stride=2)
BODY = Block(name="s1b1", op="mbconv", in_ch=8, hidden_ch=24, out_ch=16, stride=2, se_ch=2)
ARCH = Architecture(input_chw=(3, 33, 20), blocks=(STEM, BODY), head=Head(outputs=5), taps=(Tap(block=1),))


@pytest.mark.parametrize(("value", "rounded"), [(18, 24), (30, 32), (36, 40), (60, 64), (4, 8), (1, 8), (84, 88), (960 * 0.75, 720)])
def test_make_divisible_gives_the_published_examples(value: float, rounded: int) -> None:
    assert make_divisible(value) == rounded


def test_json_comes_back_with_names_and_taps() -> None:
    assert from_json(to_json(ARCH)) == ARCH


def test_json_is_read_from_parsed_objects_too() -> None:
    assert from_json(msgspec.json.decode(to_json(ARCH))) == ARCH


def test_id_is_the_hash_of_canonical_json_written_by_hand() -> None:
    text = (
        '{"blocks":[{"in_ch":3,"op":"conv","out_ch":8,"stride":2},'
        '{"hidden_ch":24,"in_ch":8,"op":"mbconv","out_ch":16,"se_ch":2,"stride":2}],"head":{"outputs":5},"input_chw":[3,33,20]}'
    )
    assert ARCH.id == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_id_changes_with_the_input() -> None:
    assert msgspec.structs.replace(ARCH, input_chw=(3, 32, 20)).id != ARCH.id


def test_stride_two_halves_rounding_up() -> None:
    assert [piece.in_chw for piece in pieces(ARCH)] == [(3, 33, 20), (8, 17, 10), (16, 9, 5)]


def test_pieces_forget_names() -> None:
    assert {getattr(piece.layer, "name", "") for piece in pieces(ARCH)} == {""}


def test_height_one_is_one_dimensional() -> None:
    assert {piece.dims for piece in pieces(msgspec.structs.replace(ARCH, input_chw=(3, 1, 20)))} == {1}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", to_json(ARCH).replace("stride", "strode"), to_json(ARCH).replace('"mbconv"', '"mbcnv"')],
)
def test_text_that_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(InvalidArchitecture, match="not an architecture"):
        from_json(text)


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"hidden_ch": 0}, "hidden_ch belongs to mbconv"),
        ({"op": "conv"}, "hidden_ch belongs to mbconv"),
        ({"kernel": 4}, "kernel must be odd"),
        ({"stride": 3}, "stride must be 1 or 2"),
        ({"dilation": 0}, "dilation must be at least 1"),
        ({"out_ch": 0}, "channels must be at least 1"),
        ({"skip": "identity"}, "identity needs stride 1"),
        ({"se_ch": 0, "se_gate": "hsigmoid"}, "se_gate is 'sigmoid' where there is no SE"),
    ],
)
def test_block_that_breaks_a_rule_is_refused(changed: dict[str, object], rule: str) -> None:
    with pytest.raises(InvalidArchitecture, match=rule):
        msgspec.structs.replace(BODY, **changed)


def test_channels_must_meet() -> None:
    with pytest.raises(InvalidArchitecture, match=r"block 1 \(stem\): in_ch must be 8, got 3"):
        Architecture(input_chw=(3, 32, 32), blocks=(STEM, STEM), head=Head(outputs=5))


def test_architecture_needs_a_block() -> None:
    with pytest.raises(InvalidArchitecture, match="at least one block"):
        Architecture(input_chw=(3, 32, 32), blocks=(), head=Head(outputs=5))


def test_tap_must_name_a_block_that_exists() -> None:
    with pytest.raises(InvalidArchitecture, match="tap: block must be 0 to 1, got 2"):
        msgspec.structs.replace(ARCH, taps=(Tap(block=2),))


def test_head_needs_outputs() -> None:
    with pytest.raises(InvalidArchitecture, match="outputs must be at least 1"):
        Head(outputs=0)
