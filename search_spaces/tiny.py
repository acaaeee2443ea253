"""A space for small images and two CPU cores: every kind of op and menu, networks that train in seconds."""

from search_spaces.space import Edge, SearchSpace
from search_spaces.stage import Stage

__all__ = ["TINY"]

_OPS = ("conv", "sepconv", "mbconv3", "mbconv6")

TINY = SearchSpace(
    name="tiny",
    stem=Edge(out_ch=8, kernel=3),
    stages=(  #                                                    at 32 px, out of the stage
        Stage(name="s1", out_ch=8, stride=2, op=("sepconv",)),  #  32² × 8
        Stage(name="s2", out_ch=16, stride=2, op=_OPS, kernel=(3, 5), width=(0.5, 1.0, 1.5)),  # 16² × 8 to 24
        Stage(
            name="s3", out_ch=24, stride=2, op=_OPS, kernel=(3, 5), se=(0.0, 0.25),
            skip=("pool", "identity", "none"), width=(0.67, 1.0, 1.67), depths=(0, 1, 2),
        ),  # 8² × 16 to 40
        Stage(
            name="s4", out_ch=48, stride=2, op=_OPS, kernel=(3, 5), se=(0.0, 0.25), width=(0.67, 1.0), depths=(0, 1, 2),
        ),  # 4² × 32 to 48
    ),
    last=Edge(out_ch=128),
)  # fmt: skip
