"""The smallest and the largest member of a space, by weights."""

import operator
from collections.abc import Sequence
from typing import Literal

import msgspec

from search_spaces.architecture import Block
from search_spaces.stage import BY_BLOCK, Layer, Pick, PlacedStage, layers

__all__ = ["corner"]

_LIGHT_TO_HEAVY = ("none", "relu", "relu6", "hswish", "swish", "identity", "pool")


def corner(stages: Sequence[PlacedStage], in_ch: int, end: Literal["smallest", "largest"]) -> dict[str, Pick]:
    """Picks with the fewest (most) channels, blocks and then weights, stage after stage; acts and skips break ties."""
    best = min if end == "smallest" else max
    picks: dict[str, Pick] = {}
    for placed in stages:
        stage = placed.stage
        width, delta = best(stage.width), best(stage.depths)
        skip = best(stage.skip, key=_LIGHT_TO_HEAVY.index)
        picks |= {stage.key("width", 1): width, stage.key("depths", 1): delta, stage.key("skip", 1): skip}
        out_ch, nths = placed.out_ch(width), tuple(range(1, stage.max_depth + 1))
        for span in ((nth,) for nth in nths) if stage.vary == "block" else (nths,):
            weighed = [(_heft(placed, layer, (in_ch, out_ch), span), layer) for layer in layers(stage, skip)]
            values = msgspec.structs.asdict(best(weighed, key=operator.itemgetter(0))[1])
            picks |= {stage.key(field, nth): values[field] for nth in span for field in BY_BLOCK}
        in_ch = out_ch
    return picks


def _heft(placed: PlacedStage, layer: Layer, ch: tuple[int, int], span: Sequence[int]) -> tuple[int, int]:
    blocks = (placed.block(layer, ch[0] if nth == 1 else ch[1], ch[1], nth) for nth in span)
    return sum(map(_weights, blocks)), _LIGHT_TO_HEAVY.index(layer.act)


def _weights(block: Block) -> int:
    if block.op == "conv":
        return block.kernel**2 * block.in_ch * block.out_ch + 2 * block.se_ch * block.out_ch
    wide = block.hidden_ch or block.in_ch
    return block.hidden_ch * block.in_ch + wide * (block.kernel**2 + block.out_ch + 2 * block.se_ch)
