"""Kernel, expansion, SE and activation block by block around MobileNetV3-Large (Searching for MobileNetV3, table 1)."""

from search_spaces.space import Edge, SearchSpace
from search_spaces.stage import Stage

__all__ = ["MOBILENETV3"]


def _stage(number: int, out_ch: int, depth: int, stride: int) -> Stage:
    return Stage(
        name=f"s{number}", out_ch=out_ch, depth=depth, stride=2 if stride == 2 else 1, vary="block",
        op=("mbconv",), expand=(1.0, 2.3, 2.5, 3.0, 4.0, 6.0), kernel=(3, 5, 7), se=(0.0, 0.25), act=("relu", "hswish"),
        width=(0.75, 1.0, 1.25), depths=(-1, 0, 1),
    )  # fmt: skip


_SKELETON = (  #         at 224 px, out of the stage
    (1, 16, 1, 1),  #    112² × 16
    (2, 24, 2, 2),  #     56² × 24
    (3, 40, 3, 2),  #     28² × 40
    (4, 80, 4, 2),  #     14² × 80
    (5, 112, 2, 1),  #    14² × 112
    (6, 160, 3, 2),  #     7² × 160
)

MOBILENETV3 = SearchSpace(
    name="mobilenetv3",
    stem=Edge(out_ch=16, kernel=3, act="hswish"),
    stages=tuple(_stage(*row) for row in _SKELETON),
    last=Edge(out_ch=960, act="hswish"),
    head=Edge(out_ch=1280, act="hswish", scale="up"),
    se_rule="mobilenetv3",
)
