"""From blocks back to picks: which entries of the stages' menus make exactly these blocks."""

from collections.abc import Iterator, Sequence

import msgspec

from search_spaces.architecture import Block, Skip
from search_spaces.errors import InvalidArchitecture
from search_spaces.stage import BY_BLOCK, Layer, Pick, PlacedStage, layers

__all__ = ["encode_stages"]


def encode_stages(stages: Sequence[PlacedStage], body: Sequence[Block], in_ch: int) -> dict[str, Pick]:
    """Picks (of the blocks that exist) for nameless blocks between stem and last convolution; backtracks over the stages.

    Raises:
        InvalidArchitecture: no picks give these blocks; names the first block that none of the attempts got past.
    """
    dead: set[tuple[int, int]] = set()
    furthest = 0

    def fit(i: int, at: int) -> dict[str, Pick] | None:
        nonlocal furthest
        furthest = max(furthest, at)
        if i == len(stages):
            return {} if at == len(body) else None
        if (i, at) in dead:
            return None
        for picks, taken in _fits(stages[i], body[at:], body[at - 1].out_ch if at else in_ch):
            rest = fit(i + 1, at + taken)
            if rest is not None:
                return {**picks, **rest}
        dead.add((i, at))
        return None

    found = fit(0, 0)
    if found is None:
        where = f"block {furthest + 1} has no pick: {body[furthest]}" if furthest < len(body) else "blocks are missing at the end"
        raise InvalidArchitecture(where)
    return found


def _fits(placed: PlacedStage, body: Sequence[Block], in_ch: int) -> Iterator[tuple[dict[str, Pick], int]]:
    """(picks, blocks taken) of every way in which the stage can be the beginning of ``body``."""
    stage = placed.stage
    for width in stage.width:
        out_ch = placed.out_ch(width)
        for delta in stage.depths:
            blocks = body[: stage.blocks_at(delta)]
            if len(blocks) < stage.blocks_at(delta) or blocks[0].out_ch != out_ch:
                continue
            for skip in stage.skip:
                for layers_by_block in _layers(placed, blocks, (in_ch, out_ch), skip):
                    picks: dict[str, Pick] = {
                        stage.key("width", 1): width, stage.key("depths", 1): delta, stage.key("skip", 1): skip,
                    }  # fmt: skip
                    for nth, layer in enumerate(layers_by_block, 1):
                        values = msgspec.structs.asdict(layer)
                        picks |= {stage.key(field, nth): values[field] for field in BY_BLOCK}
                    yield picks, len(blocks)


def _layers(placed: PlacedStage, blocks: Sequence[Block], ch: tuple[int, int], skip: Skip) -> Iterator[tuple[Layer, ...]]:
    """For each way to make ``blocks``: their layers; where the stage varies as a whole, one layer makes them all."""
    in_ch, out_ch = ch

    def makes(layer: Layer, nth: int) -> bool:
        made = placed.block(layer, in_ch if nth == 1 else out_ch, out_ch, nth)
        return msgspec.structs.replace(made, name="") == blocks[nth - 1]

    nths = range(1, len(blocks) + 1)
    if placed.stage.vary == "stage":
        yield from ((layer,) * len(blocks) for layer in layers(placed.stage, skip) if all(makes(layer, nth) for nth in nths))
        return
    first = [next((layer for layer in layers(placed.stage, skip) if makes(layer, nth)), None) for nth in nths]
    found = tuple(layer for layer in first if layer is not None)
    if len(found) == len(blocks):
        yield found
