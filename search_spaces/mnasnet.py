"""The factorized hierarchical space of MnasNet over MobileNetV2's skeleton (MnasNet: Platform-Aware Neural Architecture Search, 4.1)."""

from search_spaces.space import Edge, SearchSpace
from search_spaces.stage import Stage

__all__ = ["MNASNET", "MNASNET_OFFGRID"]

_GRID = (0.75, 1.0, 1.25)


def _stage(number: int, out_ch: int, depth: int, stride: int, off_grid: tuple[float, ...] = ()) -> Stage:
    """4 ops × 2 kernels × 2 SE × 3 skips × 3 widths × 3 depths = 432 picks, the paper's S; the widths off the grid come on top."""
    return Stage(
        name=f"s{number}", out_ch=out_ch, depth=depth, stride=2 if stride == 2 else 1,
        op=("conv", "sepconv", "mbconv3", "mbconv6"), kernel=(3, 5), se=(0.0, 0.25), skip=("pool", "identity", "none"),
        width=tuple(sorted((*_GRID, *off_grid))), depths=(-1, 0, 1),
    )  # fmt: skip


def _space(name: str, off_grid: dict[int, tuple[float, ...]]) -> SearchSpace:
    skeleton = (  #          at 224 px, out of the stage
        (1, 16, 1, 1),  #    112² × 16
        (2, 24, 2, 2),  #     56² × 24
        (3, 32, 3, 2),  #     28² × 32
        (4, 64, 4, 2),  #     14² × 64
        (5, 96, 3, 1),  #     14² × 96
        (6, 160, 3, 2),  #     7² × 160
        (7, 320, 1, 1),  #     7² × 320
    )
    return SearchSpace(
        name=name,
        stem=Edge(out_ch=32, kernel=3),
        stages=tuple(_stage(*row, off_grid.get(row[0], ())) for row in skeleton),
        last=Edge(out_ch=1280, scale="fixed"),
    )


MNASNET = _space("mnasnet", {})

# The published A1 (112 channels) and B1 (192) lie off the paper's own grid of widths.
MNASNET_OFFGRID = _space("mnasnet-offgrid", {5: (7 / 6,), 6: (1.2,)})
