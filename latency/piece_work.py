"""What a piece has to do, from its numbers alone: what calibrations and predictors of latency go by."""

from functools import lru_cache
from itertools import pairwise
from math import prod

import msgspec

from search_spaces.architecture import Block, Head, Piece

__all__ = ["PieceWork", "piece_work"]


class PieceWork(msgspec.Struct, frozen=True, kw_only=True):
    """Work of one piece at batch 1, in float32 numbers.

    ``macs`` are those of convolutions and linear layers, ``depthwise_macs`` the part of depthwise convolutions. ``weights`` are
    the numbers read of them, biases included and BN folded in. ``in_elements`` and ``out_elements`` are the maps at both ends,
    ``written_elements`` all maps that its layers write; activations on their own are counted again.
    """

    macs: int
    depthwise_macs: int
    weights: int
    in_elements: int
    out_elements: int
    written_elements: int


@lru_cache(maxsize=65536)
def piece_work(piece: Piece) -> PieceWork:
    """The work of a piece."""
    ends = {"in_elements": prod(piece.in_chw), "out_elements": prod(piece.out_chw)}
    if isinstance(piece.layer, Head):
        return _of_head(piece.layer, piece.in_chw, ends)
    return _of_block(piece.layer, piece, ends)


def _of_head(head: Head, in_chw: tuple[int, int, int], ends: dict[str, int]) -> PieceWork:
    widths = [in_chw[0], *([head.width_ch] if head.width_ch else []), head.outputs]
    linear = list(pairwise(widths))
    macs = sum(a * b for a, b in linear)
    return PieceWork(
        macs=macs, depthwise_macs=0, weights=macs + sum(b for _, b in linear), written_elements=sum(widths), **ends
    )  # fmt: skip


def _of_block(b: Block, piece: Piece, ends: dict[str, int]) -> PieceWork:
    pixels, out_pixels = prod(piece.in_chw[1:]), prod(piece.out_chw[1:])
    window = b.kernel**piece.dims
    wide = b.hidden_ch or b.in_ch
    depthwise = wide * window * out_pixels if b.op != "conv" else 0
    convolutions = {  # (inputs to each output, outputs, output pixels)
        "conv": [(b.in_ch * window, b.out_ch, out_pixels)],
        "sepconv": [(window, wide, out_pixels), (wide, b.out_ch, out_pixels)],
        "mbconv": [(b.in_ch, wide, pixels), (window, wide, out_pixels), (wide, b.out_ch, out_pixels)],
    }[b.op]
    gated = b.out_ch if b.op == "conv" else wide
    gate = [(gated, b.se_ch, 1), (b.se_ch, gated, 1)] if b.se_ch else []
    maps = [out * px * (2 if act else 1) for (_, out, px), act in zip(convolutions, _activated(b), strict=True)]
    return PieceWork(
        macs=sum(i * o * px for i, o, px in (*convolutions, *gate)),
        depthwise_macs=depthwise,
        weights=sum(i * o + o for i, o, _ in (*convolutions, *gate)),
        written_elements=sum(maps) + (gated * out_pixels if gate else 0) + (b.out_ch * out_pixels) * (b.skip != "none"),
        **ends,
    )


def _activated(b: Block) -> list[bool]:
    """Which of the convolutions an activation follows: all but the linear last ones."""
    has_act = b.act != "none"
    return {"conv": [has_act], "sepconv": [has_act, False], "mbconv": [has_act, has_act, False]}[b.op]
