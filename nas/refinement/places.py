"""Where an architecture can be made smaller, and the architectures that this gives; no torch.

Kinds of places, after MobileNetV3 (Howard et al. 2019, section 4.2) and NetAdapt (Yang et al. 2018): an ``expansion`` is the
``hidden_ch`` of one block; a ``bottleneck`` is the output of a block, of all blocks that skips tie to it, and the input of the block
behind. ``head`` is the width of the head's own hidden layer. ``se``: the width of one block's SE, 0 for none. ``kernel``: one block's
kernel. ``depth``: a block that a skip goes past, with or without it (1 or 0).
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from search_spaces.architecture import Architecture, Block
from search_spaces.errors import InvalidArchitecture

__all__ = [
    "KINDS", "MULTIPLE", "Kind", "Place", "described", "goes_by_position", "menu", "nearest", "places", "shrunk", "smallest", "size_at",
]

Kind = Literal["expansion", "bottleneck", "head", "se", "kernel", "depth"]
KINDS: tuple[Kind, ...] = ("expansion", "bottleneck", "head", "se", "kernel", "depth")
CHANNELS = ("expansion", "bottleneck", "head")
MULTIPLE = 8  # channels come in multiples of it, as hardware likes them


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that can be made smaller; ``block`` is the index of its block, the first of those that share a bottleneck, 0 for a head."""

    kind: Kind
    block: int = 0


def places(arch: Architecture, kinds: Sequence[Kind]) -> tuple[Place, ...]:
    """The places of these kinds that can be made smaller at all, block by block."""
    every = [Place(kind=kind, block=i) for i in range(len(arch.blocks)) for kind in kinds if kind != "head"]
    every += [Place(kind="head")] if "head" in kinds else []
    return tuple(place for place in every if menu(arch, place))


def size_at(arch: Architecture, place: Place) -> int:
    """The size of a place: channels, a kernel's side, or 1 for a block that can be left out; 0 where there is nothing to shrink."""
    if place.kind == "head":
        return arch.head.width_ch
    block = arch.blocks[place.block]
    if place.kind == "bottleneck":
        return 0 if _keeps_channels(block) else block.out_ch
    if place.kind == "depth":
        return int(block.skip == "identity" and len(arch.blocks) > 1)
    return {"expansion": block.hidden_ch, "se": block.se_ch, "kernel": block.kernel}[place.kind]


def menu(arch: Architecture, place: Place) -> tuple[int, ...]:
    """The smaller sizes that a place can have, falling.

    Channels: the multiples of 8 from 8; an SE has 0 besides, which is none; a kernel the odd numbers from 3.
    """
    size = size_at(arch, place)
    if place.kind == "kernel":
        return tuple(range(size - 2, 2, -2))
    if place.kind == "depth":
        return (0,) if size else ()
    channels = tuple(range((size - 1) // MULTIPLE * MULTIPLE, 0, -MULTIPLE)) if size else ()
    return (*channels, 0) if place.kind == "se" and size else channels


def shrunk(arch: Architecture, place: Place, size: int) -> Architecture:
    """The architecture with one place made smaller; a block that is left out takes the taps with it.

    Raises:
        InvalidArchitecture: no such place, or no smaller size; a filter count of 0 is none.
    """
    now = size_at(arch, place) if place.block in range(len(arch.blocks)) else 0
    what = described(arch, place) if now else f"{place.kind} of block {place.block}"
    if not now:
        raise InvalidArchitecture(f"{what}: there is nothing to make smaller")
    least = 1 if place.kind in (*CHANNELS, "kernel") else 0
    if not least <= size < now:
        raise InvalidArchitecture(f"{what}: its size must be {least} to {now - 1}, got {size}")
    if place.kind == "head":
        return msgspec.structs.replace(arch, head=msgspec.structs.replace(arch.head, width_ch=size))
    if place.kind == "depth":
        return msgspec.structs.replace(arch, taps=(), blocks=arch.blocks[: place.block] + arch.blocks[place.block + 1 :])
    blocks = list(arch.blocks)
    for i, fields in _changes(arch, place, size).items():
        blocks[i] = msgspec.structs.replace(blocks[i], **fields)
    return msgspec.structs.replace(arch, blocks=tuple(blocks))


def smallest(arch: Architecture, kinds: Sequence[Kind]) -> Architecture:
    """The architecture with every place of these kinds as small as it gets: no refinement can go below."""
    for kind in sorted(kinds, key=KINDS.index):
        for place in reversed(places(arch, (kind,))):
            arch = shrunk(arch, place, menu(arch, place)[-1])
    return arch


def nearest(arch: Architecture, kinds: Sequence[Kind]) -> Architecture:
    """The architecture with its widest place of these kinds one size smaller; without a place the same."""
    widest = max(places(arch, kinds), key=lambda place: size_at(arch, place), default=None)
    return shrunk(arch, widest, menu(arch, widest)[0]) if widest else arch


def described(arch: Architecture, place: Place) -> str:
    """A place for people, such as ``bottleneck of s3b1 to s3b3``."""
    if place.kind == "head":
        return "hidden layer of the head"
    shared = _chain(arch, place.block) if place.kind == "bottleneck" else [place.block]
    first, *more = [arch.blocks[i].name or f"block {i}" for i in shared]
    return f"{place.kind} of {first}" + (f" to {more[-1]}" if more else "")


def goes_by_position(arch: Architecture, place: Place) -> bool:
    """Whether a pooled shortcut between different widths ends or begins at this bottleneck.

    It adds the first channels to the first channels, and nothing to or of the others: other channels than the last may not go.
    """
    chain = _chain(arch, place.block)
    ends, begins = arch.blocks[chain[0]], arch.blocks[chain[-1] + 1 : chain[-1] + 2]
    return any(block.skip == "pool" and block.in_ch != block.out_ch for block in (ends, *begins))


def _changes(arch: Architecture, place: Place, size: int) -> dict[int, dict[str, Any]]:  # Any: values of a block's fields
    """Fields to replace by block."""
    if place.kind == "bottleneck":
        chain = _chain(arch, place.block)
        found: dict[int, dict[str, Any]] = {i: {"out_ch": size} | ({"in_ch": size} if i > chain[0] else {}) for i in chain}
        behind = chain[-1] + 1
        return found | ({behind: {"in_ch": size}} if behind < len(arch.blocks) else {})
    if place.kind == "se":
        return {place.block: {"se_ch": size} | ({"se_gate": "sigmoid"} if not size else {})}
    return {place.block: {"hidden_ch" if place.kind == "expansion" else "kernel": size}}


def _chain(arch: Architecture, first: int) -> range:
    """The blocks whose outputs are added up with that of ``first``, itself among them."""
    last = first
    while last + 1 < len(arch.blocks) and _keeps_channels(arch.blocks[last + 1]):
        last += 1
    return range(first, last + 1)


def _keeps_channels(block: Block) -> bool:
    """Whether the block's input is added to its output channel by channel: then both must lose the same ones."""
    return block.skip != "none" and block.in_ch == block.out_ch
