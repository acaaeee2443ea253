"""One row of a search space's table: what a stage of equal-resolution blocks may be, and the blocks that a pick makes of it."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from search_spaces.architecture import Act, Block, Op, Skip, make_divisible
from search_spaces.errors import InvalidSpace

__all__ = [
    "ALLOWED", "BY_BLOCK", "MAX_CH", "MAX_KERNEL", "MENUS", "Layer", "Pick", "Picks", "PlacedStage", "SeRule", "Stage", "layers",
    "scaled", "split_op",
]  # fmt: skip

Pick = str | int | float
Picks = Mapping[str, Pick]
SeRule = Literal["mnasnet", "mobilenetv3"]

MENUS = ("op", "expand", "kernel", "se", "skip", "act", "width", "depths")
BY_BLOCK = ("op", "expand", "kernel", "se", "act")
MAX_DEPTH = 64
MAX_CH, MAX_KERNEL, MAX_RATIO = 65_536, 99, 1000.0
_OP = re.compile(r"conv|sepconv|mbconv(?P<ratio>\d+(\.\d+)?)?")

ALLOWED = {
    "name": "letters, digits, _ and -",
    "out_ch": f"a whole number from 1 to {MAX_CH}",
    "depth": f"a whole number from 1 to {MAX_DEPTH}",
    "stride": "1 or 2",
    "op": f"conv, sepconv, mbconv (with an expand menu) or mbconv and its ratio up to {MAX_RATIO:g}, such as mbconv6 or mbconv2.5",
    "expand": f"numbers above 0 and up to {MAX_RATIO:g}, in a row whose op menu has plain mbconv",
    "kernel": f"odd whole numbers from 1 to {MAX_KERNEL}",
    "se": "numbers from 0 (no SE) to 1",
    "skip": "pool, identity, none",
    "act": "relu, relu6, hswish, swish, none",
    "width": f"numbers above 0 and up to {MAX_RATIO:g}",
    "depths": f"whole numbers from -{MAX_DEPTH} to {MAX_DEPTH}, added to depth",
    "vary": "stage or block",
}


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row: blocks at one resolution, the first with ``stride``, the rest with stride 1. Tuples are menus; a menu of one is fixed.

    ``out_ch`` and ``depth`` are the skeleton's; a ``width`` pick multiplies the first, a ``depths`` pick is added to the second
    (at least one block stays). ``se`` is a ratio (0: none). ``vary="block"`` lets op, expand, kernel, se and act differ from
    block to block; skip, width and depth always belong to the stage.

    Raises:
        InvalidSpace: a field breaks its rule (``ALLOWED``).
    """

    name: str
    out_ch: int
    op: tuple[str, ...]
    depth: int = 1
    stride: Literal[1, 2] = 1
    expand: tuple[float, ...] = ()
    kernel: tuple[int, ...] = (3,)
    se: tuple[float, ...] = (0.0,)
    skip: tuple[Skip, ...] = ("identity",)
    act: tuple[Act, ...] = ("relu",)
    width: tuple[float, ...] = (1.0,)
    depths: tuple[int, ...] = (0,)
    vary: Literal["stage", "block"] = "stage"

    def __post_init__(self) -> None:
        for field, value in _broken(self):
            rule = "a menu has at least one entry and no entry twice" if isinstance(value, list) and field != "expand" else ALLOWED[field]
            raise InvalidSpace(f"stage {self.name!r}: {field}: {value!r} is not allowed (allowed: {rule})")

    @property
    def max_depth(self) -> int:
        """Blocks in the deepest version of the stage."""
        return self.blocks_at(max(self.depths))

    def blocks_at(self, delta: int) -> int:
        """Number of blocks for a ``depths`` pick: never below one."""
        return max(1, self.depth + delta)

    def menu(self, field: str) -> tuple[Pick, ...]:
        """The menu of a field named in ``MENUS``; without plain mbconv the expand menu is (0.0,)."""
        menus: dict[str, tuple[Pick, ...]] = {
            "op": self.op, "expand": self.expand or (0.0,), "kernel": self.kernel, "se": self.se,
            "skip": self.skip, "act": self.act, "width": self.width, "depths": self.depths,
        }  # fmt: skip
        return menus[field]

    def choices(self) -> Iterator[tuple[str, str, tuple[Pick, ...]]]:
        """(choice name, field, menu) of every menu with more than one entry, in a fixed order."""
        for field in MENUS:
            menu = self.menu(field)
            if len(menu) > 1:
                nths = range(1, self.max_depth + 1) if self._by_block(field) else (1,)
                yield from ((self.key(field, nth), field, menu) for nth in nths)

    def key(self, field: str, nth: int) -> str:
        """Name of the choice that holds ``field`` for the stage's ``nth`` block, counted from 1."""
        return f"{self.name}.b{nth}.{field}" if self._by_block(field) else f"{self.name}.{field}"

    def _by_block(self, field: str) -> bool:
        return self.vary == "block" and field in BY_BLOCK


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """What is picked for one block, still as ratios; ``expand`` counts for plain mbconv alone."""

    op: str
    expand: float
    kernel: int
    se: float
    skip: Skip
    act: Act


class PlacedStage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage at one width multiplier and input size: it turns picks into blocks. ``number`` counts the space's stages from 1."""

    stage: Stage
    number: int
    stride: Literal[1, 2]
    width_mult: float
    se_rule: SeRule

    def out_ch(self, width: float) -> int:
        """Channels that leave the stage for a ``width`` pick."""
        return scaled(self.stage.out_ch * width * self.width_mult)

    def block(self, layer: Layer, in_ch: int, out_ch: int, nth: int) -> Block:
        """The stage's ``nth`` block (from 1), fed ``in_ch`` channels; an expansion that expands nothing makes it a sepconv."""
        op, ratio = split_op(layer.op)
        hidden_ch = scaled(in_ch * (ratio or layer.expand)) if op == "mbconv" else 0
        if hidden_ch == in_ch:
            op, hidden_ch = "sepconv", 0
        stride = self.stride if nth == 1 else 1
        se_ch = self._se_ch(layer.se, in_ch, out_ch if op == "conv" else hidden_ch or in_ch)
        adds = layer.skip != "identity" or (stride == 1 and in_ch == out_ch)
        return Block(
            op=op, in_ch=in_ch, hidden_ch=hidden_ch, out_ch=out_ch, kernel=layer.kernel, stride=stride,
            se_ch=se_ch, se_gate="hsigmoid" if se_ch and self.se_rule == "mobilenetv3" else "sigmoid",
            act=layer.act, skip=layer.skip if adds else "none", name=f"s{self.number}b{nth}",
        )  # fmt: skip

    def blocks(self, picks: Picks, in_ch: int) -> Iterator[Block]:
        """The stage's blocks for checked picks."""
        picked = msgspec.convert({f: self._picked(picks, f, 1) for f in ("width", "depths")}, _Size)
        out_ch = self.out_ch(picked.width)
        for nth in range(1, self.stage.blocks_at(picked.depths) + 1):
            layer = msgspec.convert({f: self._picked(picks, f, nth) for f in (*BY_BLOCK, "skip")}, Layer)
            yield self.block(layer, in_ch, out_ch, nth)
            in_ch = out_ch

    def _picked(self, picks: Picks, field: str, nth: int) -> Pick:
        menu = self.stage.menu(field)
        return menu[0] if len(menu) == 1 else picks[self.stage.key(field, nth)]

    def _se_ch(self, ratio: float, in_ch: int, gated_ch: int) -> int:
        if not ratio:
            return 0
        return max(1, int(in_ch * ratio)) if self.se_rule == "mnasnet" else scaled(gated_ch * ratio)


class _Size(msgspec.Struct, frozen=True, kw_only=True):
    width: float
    depths: int


def layers(stage: Stage, skip: Skip) -> Iterator[Layer]:
    """Every layer that the stage's per-block menus allow under one skip, in menu order."""
    for op, expand, kernel, se, act in itertools.product(stage.op, stage.expand or (0.0,), stage.kernel, stage.se, stage.act):
        yield Layer(op=op, expand=expand, kernel=kernel, se=se, skip=skip, act=act)


def scaled(channels: float) -> int:
    """``make_divisible`` without the noise of float products: 96 × 7/6 × 0.75 is 84 and goes to 88, as 112 × 0.75 does.

    >>> scaled(96 * (7 / 6) * 0.75), scaled(112 * 0.75)
    (88, 88)
    """
    return make_divisible(round(channels, 6))


def split_op(token: str) -> tuple[Op, float]:
    """An op token as (op, expansion ratio); the ratio is 0 where the token names none.

    >>> split_op("mbconv2.5"), split_op("sepconv")
    (('mbconv', 2.5), ('sepconv', 0.0))
    """
    if token == "conv":
        return "conv", 0.0
    return ("sepconv", 0.0) if token == "sepconv" else ("mbconv", float(token.removeprefix("mbconv") or 0))


def _is_op(token: str) -> bool:
    found = _OP.fullmatch(token)
    return found is not None and (not found["ratio"] or _is_ratio(float(found["ratio"])))


def _is_ratio(value: float) -> bool:
    return 0 < value <= MAX_RATIO


_HOLDS: dict[str, Callable[[Any], bool]] = {  # Any: each rule reads its own field's type
    "name": lambda name: bool(re.fullmatch(r"[\w-]+", name)),
    "out_ch": lambda ch: 1 <= ch <= MAX_CH,
    "depth": lambda depth: 1 <= depth <= MAX_DEPTH,
    "op": _is_op,
    "expand": _is_ratio,
    "kernel": lambda kernel: 1 <= kernel <= MAX_KERNEL and kernel % 2 == 1,
    "se": lambda ratio: 0 <= ratio <= 1,
    "width": _is_ratio,
    "depths": lambda delta: abs(delta) <= MAX_DEPTH,
}


def _broken(stage: Stage) -> Iterator[tuple[str, object]]:
    values = msgspec.structs.asdict(stage)
    for field, value in values.items():
        holds = _HOLDS.get(field, lambda _: True)
        if field not in MENUS and not holds(value):
            yield field, value
        elif field in MENUS:
            yield from ((field, entry) for entry in value if not holds(entry))
            if len(set(value)) != len(value) or (not value and field != "expand"):
                yield field, list(value)
    if ("mbconv" in stage.op) != bool(stage.expand):
        yield "expand", list(stage.expand)
