"""The one value that travels: an immutable, hashable, JSON-able description of a network."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from search_spaces.errors import InvalidArchitecture

__all__ = [
    "Act", "Architecture", "Block", "Gate", "Head", "Op", "Piece", "Skip", "Tap", "from_json", "make_divisible", "pieces", "to_json",
]

Op = Literal["conv", "sepconv", "mbconv"]
Act = Literal["relu", "relu6", "hswish", "swish", "none"]
Gate = Literal["sigmoid", "hsigmoid"]
Skip = Literal["none", "identity", "pool"]
Shape = tuple[int, int, int]


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``value``, never below ``divisor`` nor below 90 % of ``value``.

    Source: the rule shared by TensorFlow slim, tpu/mnasnet and torchvision.

    >>> make_divisible(18), make_divisible(36), make_divisible(4)
    (24, 40, 8)
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that is needed to build and price one layer group; every number is absolute, ratios live in ``Stage``.

    ``op`` says exactly what is there (BN after every convolution, all of them without bias):

    - ``conv``: k×k convolution, BN, act, then SE if ``se_ch``.
    - ``sepconv``: depthwise k×k, BN, act, SE if ``se_ch``, linear 1×1, BN.
    - ``mbconv``: 1×1 to ``hidden_ch``, BN, act, depthwise k×k, BN, act, SE if ``se_ch``, linear 1×1, BN.

    ``se_ch`` is the SE bottleneck width (0: no SE): global mean, 1×1 with bias, ReLU, 1×1 with bias, ``se_gate``, multiply.
    ``skip``: ``identity`` adds the input; ``pool`` adds a 3×3 average pool of it (the block's stride, padding not
    counted), channels cut or zero-padded. ``name`` is a label ("s2b1": stage 2, first block) and no part of the identity.
    """

    op: Op
    in_ch: int
    out_ch: int
    hidden_ch: int = 0
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    se_ch: int = 0
    se_gate: Gate = "sigmoid"
    act: Act = "relu"
    skip: Skip = "none"
    name: str = ""

    def __post_init__(self) -> None:
        for rule, holds in self._rules().items():
            if not holds:
                raise InvalidArchitecture(f"block {self.name or self.op!r}: {rule}, got {_plain(self)}")

    def _rules(self) -> dict[str, bool]:
        return {
            "channels must be at least 1": min(self.in_ch, self.out_ch) >= 1 and min(self.hidden_ch, self.se_ch) >= 0,
            "hidden_ch belongs to mbconv, and to mbconv alone": (self.hidden_ch > 0) == (self.op == "mbconv"),
            "kernel must be odd and positive": self.kernel % 2 == 1 and self.kernel > 0,
            "stride must be 1 or 2": self.stride in (1, 2),
            "dilation must be at least 1": self.dilation >= 1,
            "se_gate is 'sigmoid' where there is no SE": self.se_ch > 0 or self.se_gate == "sigmoid",
            "identity needs stride 1 and in_ch == out_ch": (
                self.skip != "identity" or (self.stride == 1 and self.in_ch == self.out_ch)
            ),
        }


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the task wants at the end. ``classify``: global average pool, then (``width_ch`` > 0) linear + act, then linear.

    Both linear layers have a bias and no BN; ``outputs`` is the number of logits.
    """

    outputs: int
    kind: Literal["classify"] = "classify"
    width_ch: int = 0
    act: Act = "relu"

    def __post_init__(self) -> None:
        if self.outputs < 1 or self.width_ch < 0:
            raise InvalidArchitecture(f"head: outputs must be at least 1 and width_ch at least 0, got {_plain(self)}")
        if not self.width_ch and self.act != "relu":
            raise InvalidArchitecture(f"head: act belongs to a head with width_ch, got {_plain(self)}")


class Tap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A feature map handed out beside the result: a block's index and the point in it (after its BN and act)."""

    block: int
    point: Literal["expand", "depthwise", "output"] = "output"


class Architecture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole network: input (C, H, W), blocks from the stem to the last 1×1 convolution, head. H == 1 means 1-D.

    Everything else (cost, latency, torch module, ONNX graph) is a function of this value.
    """

    input_chw: Shape
    blocks: tuple[Block, ...]
    head: Head
    taps: tuple[Tap, ...] = ()

    def __post_init__(self) -> None:
        if not self.blocks:
            raise InvalidArchitecture("an architecture needs at least one block")
        if min(self.input_chw) < 1:
            raise InvalidArchitecture(f"input_chw must be positive, got {self.input_chw}")
        ch = self.input_chw[0]
        for i, block in enumerate(self.blocks):
            if block.in_ch != ch:
                raise InvalidArchitecture(f"block {i} ({block.name or block.op}): in_ch must be {ch}, got {block.in_ch}")
            ch = block.out_ch
        for tap in self.taps:
            if not 0 <= tap.block < len(self.blocks):
                raise InvalidArchitecture(f"tap: block must be 0 to {len(self.blocks) - 1}, got {tap.block}")

    @property
    def id(self) -> str:
        """First 12 hex digits of SHA-256 over canonical JSON: sorted keys, no spaces; names, taps and defaults left out."""
        bare = msgspec.structs.replace(self, taps=(), blocks=tuple(msgspec.structs.replace(b, name="") for b in self.blocks))
        return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()[:12]


class Piece(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The unit of cost and latency: a block (without its name) or a head, and the (C, H, W) it is fed. Equal pieces cost the same.

    ``dims`` is 1 in 1-D networks, where kernels are 1×k; a map of height 1 in a 2-D network keeps its k×k kernels.
    """

    layer: Block | Head
    in_chw: Shape
    dims: Literal[1, 2] = 2

    @property
    def out_chw(self) -> Shape:
        """Shape (C, H, W) that leaves the piece; a head gives (outputs, 1, 1)."""
        if isinstance(self.layer, Head):
            return self.layer.outputs, 1, 1
        s = self.layer.stride
        return self.layer.out_ch, -(-self.in_chw[1] // s), -(-self.in_chw[2] // s)


def pieces(arch: Architecture) -> tuple[Piece, ...]:
    """The architecture as pieces in running order, the head last: the only walk over shapes (stride 2 halves, rounding up)."""
    dims: Literal[1, 2] = 1 if arch.input_chw[1] == 1 else 2
    found, shape = [], arch.input_chw
    for block in arch.blocks:
        piece = Piece(layer=msgspec.structs.replace(block, name="") if block.name else block, in_chw=shape, dims=dims)
        found.append(piece)
        shape = piece.out_chw
    return *found, Piece(layer=arch.head, in_chw=shape, dims=dims)


def to_json(arch: Architecture) -> str:
    """The architecture as JSON text, names and taps included; fields at their default are left out."""
    return msgspec.json.encode(arch, order="sorted").decode()


def from_json(text: str | bytes | Mapping[str, Any]) -> Architecture:  # Any: parsed JSON
    """The architecture written by ``to_json`` (text, bytes, or the parsed object).

    Raises:
        InvalidArchitecture: not JSON, an unknown or missing field, or a rule broken.
    """
    try:
        if isinstance(text, Mapping):
            return msgspec.convert(text, Architecture)
        return msgspec.json.decode(text, type=Architecture)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidArchitecture(f"not an architecture: {error}") from error


def _plain(value: msgspec.Struct) -> str:
    return ", ".join(f"{k}={v}" for k, v in msgspec.structs.asdict(value).items() if v not in ("", 0))
