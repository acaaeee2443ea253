"""Published networks as spaces of one member, so that they share the decoder with the spaces that are searched."""

import math

from search_spaces.architecture import Act, Architecture, Head, Shape
from search_spaces.errors import InvalidSpace, UnknownName
from search_spaces.space import Edge, SearchSpace
from search_spaces.stage import Stage

__all__ = ["BASELINES", "baseline", "published"]


def _row(number: int, op: str, out_ch: int, depth: int, stride: int, kernel: int = 3, *, se: bool = False, act: Act = "relu") -> Stage:
    """A fixed row; ``op`` may carry its expansion as a fraction of channels: "mbconv 88/24"."""
    name, _, ratio = op.partition(" ")
    over, _, under = ratio.partition("/")
    return Stage(
        name=f"s{number}", out_ch=out_ch, depth=depth, stride=2 if stride == 2 else 1, op=(name,), kernel=(kernel,),
        expand=(int(over) / int(under),) if ratio else (), se=(0.25 if se else 0.0,), act=(act,),
    )  # fmt: skip


def _without_skips(stage: Stage) -> Stage:
    return Stage(
        name=stage.name, out_ch=stage.out_ch, op=stage.op, depth=stage.depth, stride=stage.stride, kernel=stage.kernel,
        se=stage.se, skip=("none",), act=stage.act,
    )  # fmt: skip


def _mnasnet(name: str, stem_ch: int, stages: tuple[Stage, ...], unskipped: tuple[str, ...]) -> SearchSpace:
    """Source: tensorflow/tpu, models/official/mnasnet; the last convolution keeps 1280 channels at every width."""
    return SearchSpace(
        name=name,
        stem=Edge(out_ch=stem_ch, kernel=3),
        stages=tuple(_without_skips(s) if s.name in unskipped else s for s in stages),
        last=Edge(out_ch=1280, scale="fixed"),
    )


def _mobilenet_v3(name: str, stages: tuple[Stage, ...], last_ch: int, head_ch: int) -> SearchSpace:
    """Source: slim's mobilenet_v3; the width multiplier leaves the head's hidden layer as it is below 1."""
    return SearchSpace(
        name=name,
        stem=Edge(out_ch=16, kernel=3, act="hswish"),
        stages=stages,
        last=Edge(out_ch=last_ch, act="hswish"),
        head=Edge(out_ch=head_ch, act="hswish", scale="up"),
        se_rule="mobilenetv3",
    )


def _minimal(space: SearchSpace) -> SearchSpace:
    """The minimalistic variant: same widths, all kernels 3×3, no SE, ReLU throughout."""
    plain = tuple(
        Stage(name=s.name, out_ch=s.out_ch, depth=s.depth, stride=s.stride, op=s.op, expand=s.expand) for s in space.stages
    )
    return SearchSpace(
        name=f"{space.name}_minimal",
        stem=Edge(out_ch=16, kernel=3),
        stages=plain,
        last=_relu(space.last),
        head=_relu(space.head),
        se_rule=space.se_rule,
    )


def _relu(edge: Edge | None) -> Edge | None:
    return edge and Edge(out_ch=edge.out_ch, kernel=edge.kernel, scale=edge.scale)


_V2 = SearchSpace(
    name="mobilenet_v2",
    stem=Edge(out_ch=32, kernel=3, act="relu6"),
    stages=(
        _row(1, "mbconv1", 16, 1, 1, act="relu6"),
        _row(2, "mbconv6", 24, 2, 2, act="relu6"),
        _row(3, "mbconv6", 32, 3, 2, act="relu6"),
        _row(4, "mbconv6", 64, 4, 2, act="relu6"),
        _row(5, "mbconv6", 96, 3, 1, act="relu6"),
        _row(6, "mbconv6", 160, 3, 2, act="relu6"),
        _row(7, "mbconv6", 320, 1, 1, act="relu6"),
    ),
    last=Edge(out_ch=1280, act="relu6", scale="up"),
)

_A1 = _mnasnet(
    "mnasnet_a1",
    32,
    (
        _row(1, "sepconv", 16, 1, 1),
        _row(2, "mbconv6", 24, 2, 2),
        _row(3, "mbconv3", 40, 3, 2, 5, se=True),
        _row(4, "mbconv6", 80, 4, 2),
        _row(5, "mbconv6", 112, 2, 1, se=True),
        _row(6, "mbconv6", 160, 3, 2, 5, se=True),
        _row(7, "mbconv6", 320, 1, 1),
    ),
    unskipped=("s1",),
)

_B1 = _mnasnet(
    "mnasnet_b1",
    32,
    (
        _row(1, "sepconv", 16, 1, 1),
        _row(2, "mbconv3", 24, 3, 2),
        _row(3, "mbconv3", 40, 3, 2, 5),
        _row(4, "mbconv6", 80, 3, 2, 5),
        _row(5, "mbconv6", 96, 2, 1),
        _row(6, "mbconv6", 192, 4, 2, 5),
        _row(7, "mbconv6", 320, 1, 1),
    ),
    unskipped=("s1", "s7"),
)

# Its first block declares 16 input channels where the stem gives 8, so that TensorFlow's residual test fails: no skip.
_SMALL = _mnasnet(
    "mnasnet_small",
    8,
    (
        _row(1, "sepconv", 8, 1, 1),
        _row(2, "mbconv3", 16, 1, 2),
        _row(3, "mbconv6", 16, 2, 2),
        _row(4, "mbconv6", 32, 4, 2, 5, se=True),
        _row(5, "mbconv6", 32, 3, 1, se=True),
        _row(6, "mbconv6", 88, 3, 2, 5, se=True),
        _row(7, "mbconv6", 144, 1, 1),
    ),
    unskipped=("s1",),
)

_V3_LARGE = _mobilenet_v3(
    "mobilenet_v3_large",
    (
        _row(1, "mbconv1", 16, 1, 1),
        _row(2, "mbconv4", 24, 1, 2),
        _row(3, "mbconv3", 24, 1, 1),
        _row(4, "mbconv3", 40, 3, 2, 5, se=True),
        _row(5, "mbconv6", 80, 1, 2, act="hswish"),
        _row(6, "mbconv2.5", 80, 1, 1, act="hswish"),
        _row(7, "mbconv2.3", 80, 2, 1, act="hswish"),
        _row(8, "mbconv6", 112, 2, 1, se=True, act="hswish"),
        _row(9, "mbconv6", 160, 3, 2, 5, se=True, act="hswish"),
    ),
    last_ch=960,
    head_ch=1280,
)

_V3_SMALL = _mobilenet_v3(
    "mobilenet_v3_small",
    (
        _row(1, "mbconv1", 16, 1, 2, se=True),
        _row(2, "mbconv 72/16", 24, 1, 2),
        _row(3, "mbconv 88/24", 24, 1, 1),
        _row(4, "mbconv4", 40, 1, 2, 5, se=True, act="hswish"),
        _row(5, "mbconv6", 40, 2, 1, 5, se=True, act="hswish"),
        _row(6, "mbconv3", 48, 2, 1, 5, se=True, act="hswish"),
        _row(7, "mbconv6", 96, 3, 2, 5, se=True, act="hswish"),
    ),
    last_ch=576,
    head_ch=1024,
)

BASELINES: dict[str, SearchSpace] = {
    "mobilenet_v2": _V2,
    "mnasnet_a1": _A1,
    "mnasnet_b1": _B1,
    "mnasnet_small": _SMALL,
    "mobilenet_v3_large": _V3_LARGE,
    "mobilenet_v3_small": _V3_SMALL,
    "mobilenet_v3_large_minimal": _minimal(_V3_LARGE),
    "mobilenet_v3_small_minimal": _minimal(_V3_SMALL),
}


def published(spec: str) -> tuple[str, float]:
    """Name and width multiplier of ``NAME[@WIDTH]``; without a width 1.

    Raises:
        UnknownName: no baseline of that name.
        InvalidSpace: what stands behind the @ is no positive number.

    >>> published("mobilenet_v2@0.35"), published("mnasnet_a1")
    (('mobilenet_v2', 0.35), ('mnasnet_a1', 1.0))
    """
    name, at, width = spec.partition("@")
    if name not in BASELINES:
        raise UnknownName.among("baseline", name, BASELINES)
    try:
        factor = float(width) if at else 1.0
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise InvalidSpace(f"behind {name}@ stands the width multiplier, such as {name}@0.5; got {width!r}")
    return name, factor


def baseline(name: str, *, width: float = 1.0, input_chw: Shape = (3, 224, 224), outputs: int = 1000) -> Architecture:
    """A published network for ``outputs`` classes, at any width multiplier (each by its own source's rule) and input (C, H, W).

    Raises:
        UnknownName: no baseline of that name.
        InvalidSpace: a width or input that is not positive.
    """
    if name not in BASELINES:
        raise UnknownName.among("baseline", name, BASELINES)
    return BASELINES[name].at(width=width, input_chw=input_chw).decode({}, Head(outputs=outputs))
