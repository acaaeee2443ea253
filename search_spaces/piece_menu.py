"""Every distinct piece, and every distinct block of a place, that the picks of a space can reach."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec

from search_spaces.architecture import Block, Head, Piece, Shape
from search_spaces.stage import PlacedStage, layers

__all__ = ["reachable_blocks", "reachable_pieces"]


def reachable_pieces(
    stem: Block, stages: Sequence[PlacedStage], last: Callable[[int], Sequence[Block]], head: Head, input_chw: Shape
) -> tuple[Piece, ...]:
    """Each piece once, the same order at every call.

    Exact: of a stage's picks the next stage feels the width alone, and width, skip, layer and depth are picked freely. ``last``
    gives the blocks behind the stages for the channels that reach them.
    """
    dims: Literal[1, 2] = 1 if input_chw[1] == 1 else 2
    found: dict[Piece, None] = {}

    def put(block: Block | Head, in_chw: Shape) -> Piece:
        layer = msgspec.structs.replace(block, name="") if isinstance(block, Block) else block
        return _kept(Piece(layer=layer, in_chw=in_chw, dims=dims), found)

    shapes = [put(stem, input_chw).out_chw]
    for placed in stages:
        outs: dict[Shape, None] = {}
        for block, in_chw in _blocks(placed, shapes):
            outs[put(block, in_chw).out_chw] = None
        shapes = list(outs)
    for shape in shapes:
        for block in last(shape[0]):
            shape = put(block, shape).out_chw
        put(head, shape)
    return tuple(found)


def _kept(piece: Piece, found: dict[Piece, None]) -> Piece:
    found[piece] = None
    return piece


def _blocks(placed: PlacedStage, shapes: Sequence[Shape]) -> Iterator[tuple[Block, Shape]]:
    """Every block of a stage with what it is fed: the first for each shape that reaches the stage, the rest for each width."""
    stage = placed.stage
    is_deep = stage.max_depth > 1
    kinds = [layer for skip in stage.skip for layer in layers(stage, skip)]
    for out_ch in dict.fromkeys(placed.out_ch(width) for width in stage.width):
        for in_chw in shapes:
            yield from ((placed.block(kind, in_chw[0], out_ch, 1), in_chw) for kind in kinds)
        if is_deep:
            _, height, width = shapes[0]
            inside = out_ch, -(-height // placed.stride), -(-width // placed.stride)
            yield from ((placed.block(kind, out_ch, out_ch, 2), inside) for kind in kinds)


def reachable_blocks(stem: Block, stages: Sequence[PlacedStage], last: Callable[[int], Sequence[Block]]) -> dict[str, tuple[Block, ...]]:
    """Every distinct block of each place, by the name that the place gives its blocks, in running order."""
    found: dict[str, tuple[Block, ...]] = {stem.name: (stem,)}
    entering = [stem.out_ch]
    for placed in stages:
        stage = placed.stage
        kinds = [layer for skip in stage.skip for layer in layers(stage, skip)]
        outs = list(dict.fromkeys(placed.out_ch(width) for width in stage.width))
        for nth in range(1, stage.max_depth + 1):
            ch = itertools.product(entering, outs) if nth == 1 else zip(outs, outs, strict=True)
            blocks = dict.fromkeys(placed.block(kind, in_ch, out_ch, nth) for in_ch, out_ch in ch for kind in kinds)
            found[next(iter(blocks)).name] = tuple(blocks)
        entering = outs
    tails = [last(in_ch) for in_ch in entering]
    return found | {place[0].name: tuple(dict.fromkeys(place)) for place in zip(*tails, strict=True)}
