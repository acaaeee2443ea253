"""A search space: a table of stages that turns picks into architectures, at any width multiplier and input size."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from search_spaces.architecture import Act, Architecture, Block, Head, Piece, Shape
from search_spaces.corners import corner
from search_spaces.encode import encode_stages
from search_spaces.errors import InvalidArchitecture, InvalidSpace, UnknownName
from search_spaces.piece_menu import reachable_blocks, reachable_pieces
from search_spaces.size import SpaceSize, count_distinct
from search_spaces.stage import MAX_CH, MAX_KERNEL, Pick, Picks, PlacedStage, SeRule, Stage, scaled

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Edge", "SearchSpace"]

MAX_BLOCKS = 256


class Edge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer outside the stages: the stem, the last convolution, or the hidden linear layer of the head (kernel 1).

    ``scale`` says what the width multiplier does to it: ``up`` lets it widen but never narrow it, ``fixed`` leaves it.
    """

    out_ch: int
    kernel: int = 1
    act: Act = "relu"
    scale: Literal["always", "up", "fixed"] = "always"

    def __post_init__(self) -> None:
        if not 1 <= self.out_ch <= MAX_CH:
            raise InvalidSpace(f"out_ch: {self.out_ch} is not allowed (allowed: a whole number from 1 to {MAX_CH})")
        if not 1 <= self.kernel <= MAX_KERNEL or self.kernel % 2 == 0:
            raise InvalidSpace(f"kernel: {self.kernel} is not allowed (allowed: an odd whole number from 1 to {MAX_KERNEL})")

    def at(self, width_mult: float) -> int:
        """Channels at a width multiplier."""
        if self.scale == "fixed":
            return self.out_ch
        return scaled(self.out_ch * (max(1.0, width_mult) if self.scale == "up" else width_mult))


class SearchSpace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stem (stride 2), stages, last convolution, hidden layer of the head: pure data, every pick of which decodes.

    Images of up to 40 px (longest side) meet stride 1 in the stem and the first stride-2 stage, up to 80 px in the stem alone.
    ``se_rule``: ``mnasnet`` takes the ratio of the block's input, unrounded, behind a sigmoid; ``mobilenetv3`` that of the
    width it gates, in steps of 8, behind an h-sigmoid.

    Raises:
        InvalidSpace: no stages, stage names that repeat, a width multiplier or input that is not positive.
    """

    name: str
    stem: Edge
    stages: tuple[Stage, ...]
    last: Edge | None = None
    head: Edge | None = None
    se_rule: SeRule = "mnasnet"
    width_mult: float = 1.0
    input_chw: Shape = (3, 224, 224)

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        rules = {
            "stages: at least one is needed": bool(names),
            f"stages: name: every row's must be its own, and {_repeated(names)} repeat one": len(set(names)) == len(names),
            f"stages: at most {MAX_BLOCKS} blocks in all": sum(s.max_depth for s in self.stages) <= MAX_BLOCKS,
            "head: kernel must be 1": self.head is None or self.head.kernel == 1,
            f"width must be a number above 0, got {self.width_mult}": math.isfinite(self.width_mult) and self.width_mult > 0,
            f"input_chw must be three positive numbers, got {self.input_chw}": len(self.input_chw) == 3 and min(self.input_chw) > 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise InvalidSpace(f"space {self.name!r}: {rule}")

    def at(self, *, width: float | None = None, input_chw: Shape | None = None) -> "SearchSpace":
        """The same space at another width multiplier or input shape (C, H, W)."""
        return msgspec.structs.replace(
            self,
            width_mult=self.width_mult if width is None else width,
            input_chw=self.input_chw if input_chw is None else input_chw,
        )

    def choices(self) -> dict[str, tuple[Pick, ...]]:
        """Name -> menu of everything to pick: always the same names, flat; menus of one are left out.

        Names are "stage.field", or "stage.b2.field" where the field varies by block; a ``depths`` pick is a difference.
        """
        return {name: menu for stage in self.stages for name, _, menu in stage.choices()}

    def decode(self, picks: Picks, head: Head) -> Architecture:
        """The architecture of a full set of picks; those of blocks beyond the picked depth change nothing.

        A classify head without hidden layer gets the space's own, if it has one.

        Raises:
            UnknownName: a pick that is missing, has no menu, or is not on it.
        """
        picks = self._checked(picks)
        blocks = [self._stem()]
        for placed in self._placed():
            blocks += placed.blocks(picks, blocks[-1].out_ch)
        return Architecture(input_chw=self.input_chw, blocks=(*blocks, *self._last(blocks[-1].out_ch)), head=self._with_hidden(head))

    def encode(self, arch: Architecture) -> dict[str, Pick]:
        """Picks that decode to the architecture's blocks (names and taps aside); of several, the first in menu order.

        Raises:
            InvalidArchitecture: it is no member; the text names the first block that has no pick.
        """
        tail = self._last(arch.blocks[-1].in_ch)
        ends = {
            "input": (self.input_chw, arch.input_chw),
            "stem": (_nameless(self._stem()), _nameless(arch.blocks[0])),
            "last block": (tuple(map(_nameless, tail)), tuple(map(_nameless, arch.blocks[len(arch.blocks) - len(tail) :]))),
            "head": (self._with_hidden(arch.head), arch.head),
        }
        for part, (ours, theirs) in ends.items():
            if ours != theirs:
                raise InvalidArchitecture(f"no member of {self.name!r}: {part} must be {ours}, got {theirs}")
        body = tuple(map(_nameless, arch.blocks[1 : len(arch.blocks) - len(tail)]))
        try:
            found = encode_stages(self._placed(), body, arch.blocks[0].out_ch)
        except InvalidArchitecture as error:
            raise InvalidArchitecture(f"no member of {self.name!r}: {error}") from error
        return {name: found.get(name, menu[0]) for name, menu in self.choices().items()}

    def size(self) -> SpaceSize:
        """Raw picks and distinct architectures, both exact."""
        raw = math.prod(len(menu) for menu in self.choices().values())
        return SpaceSize(raw=raw, distinct=count_distinct(self._placed(), self._stem().out_ch))

    def pieces(self, head: Head) -> tuple[Piece, ...]:
        """Every distinct piece of every member, each once: what a latency table has to hold."""
        return reachable_pieces(self._stem(), self._placed(), self._last, self._with_hidden(head), self.input_chw)

    def block_menus(self) -> dict[str, tuple[Block, ...]]:
        """Every distinct block that members have in each place, by its name ("stem", "s2b1", "last"), in running order."""
        return reachable_blocks(self._stem(), self._placed(), self._last)

    def corners(self) -> tuple[dict[str, Pick], dict[str, Pick]]:
        """Picks of the (smallest, largest) member: fewest (most) channels and blocks, then weights in each block."""
        placed, in_ch, names = self._placed(), self._stem().out_ch, self.choices()
        smallest, largest = corner(placed, in_ch, "smallest"), corner(placed, in_ch, "largest")
        return {name: smallest[name] for name in names}, {name: largest[name] for name in names}

    def neighbours(self, picks: Picks) -> tuple[dict[str, Pick], ...]:
        """All picks that differ from these in exactly one choice."""
        here = self._checked(picks)
        return tuple({**here, name: entry} for name, menu in self.choices().items() for entry in menu if entry != here[name])

    def sample(self, rng: "np.random.Generator") -> dict[str, Pick]:
        """Picks drawn evenly from every menu (not evenly over distinct architectures)."""
        return {name: menu[int(rng.integers(len(menu)))] for name, menu in self.choices().items()}

    def _checked(self, picks: Picks) -> dict[str, Pick]:
        menus = self.choices()
        for name in picks:
            if name not in menus:
                raise UnknownName.among(f"pick of space {self.name!r}", name, menus)
        return {name: _entry(name, menu, picks) for name, menu in menus.items()}

    def _placed(self) -> tuple[PlacedStage, ...]:
        halving = [i for i, stage in enumerate(self.stages) if stage.stride == 2]
        kept = halving[:1] if self._longest_px() <= 40 else []
        return tuple(
            PlacedStage(
                stage=stage, number=i + 1, stride=1 if i in kept else stage.stride,
                width_mult=self.width_mult, se_rule=self.se_rule,
            )
            for i, stage in enumerate(self.stages)
        )  # fmt: skip

    def _longest_px(self) -> int:
        return max(self.input_chw[1:])

    def _stem(self) -> Block:
        return Block(
            op="conv", in_ch=self.input_chw[0], out_ch=self.stem.at(self.width_mult), kernel=self.stem.kernel,
            stride=1 if self._longest_px() <= 80 else 2, act=self.stem.act, name="stem",
        )  # fmt: skip

    def _last(self, in_ch: int) -> tuple[Block, ...]:
        if self.last is None:
            return ()
        out_ch = self.last.at(self.width_mult)
        return (Block(op="conv", in_ch=in_ch, out_ch=out_ch, kernel=self.last.kernel, act=self.last.act, name="last"),)

    def _with_hidden(self, head: Head) -> Head:
        if self.head is None or head.kind != "classify" or head.width_ch:
            return head
        return msgspec.structs.replace(head, width_ch=self.head.at(self.width_mult), act=self.head.act)


def _repeated(names: Sequence[str]) -> str:
    """The rows (from 1) whose name an earlier row has."""
    return ", ".join(f"row {i} ({name!r})" for i, name in enumerate(names, 1) if name in names[: i - 1]) or "none"


def _nameless(block: Block) -> Block:
    return msgspec.structs.replace(block, name="")


def _entry(name: str, menu: tuple[Pick, ...], picks: Mapping[str, Pick]) -> Pick:
    if name not in picks:
        raise UnknownName(f"pick {name!r} is missing (menu: {', '.join(map(str, menu))})")
    if picks[name] not in menu:
        raise UnknownName.among(f"value of pick {name!r}", picks[name], menu)
    return menu[menu.index(picks[name])]

