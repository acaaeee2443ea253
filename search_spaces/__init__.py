"""What can be built: architectures, search spaces and published baselines. Nothing here needs torch."""

from pathlib import Path

from search_spaces.architecture import (
    Architecture,
    Block,
    Head,
    Piece,
    Shape,
    Tap,
    from_json,
    make_divisible,
    pieces,
    to_json,
)
from search_spaces.baselines import BASELINES, baseline
from search_spaces.errors import InvalidArchitecture, InvalidSpace, NasError, UnknownName
from search_spaces.mnasnet import MNASNET, MNASNET_OFFGRID
from search_spaces.mobilenetv3 import MOBILENETV3
from search_spaces.size import SpaceSize
from search_spaces.space import Edge, SearchSpace
from search_spaces.stage import Pick, Picks, Stage
from search_spaces.table import from_toml
from search_spaces.tiny import TINY

__all__ = [
    "Architecture", "baseline", "BASELINES", "Block", "Edge", "from_json", "from_toml", "Head", "InvalidArchitecture", "InvalidSpace",
    "make_divisible", "NasError", "open_space", "Pick", "Picks", "Piece", "pieces", "SearchSpace", "Shape", "SPACES", "SpaceSize",
    "Stage", "Tap", "to_json", "UnknownName",
]  # fmt: skip

SPACES: dict[str, SearchSpace] = {
    "mnasnet": MNASNET,
    "mnasnet-offgrid": MNASNET_OFFGRID,
    "mobilenetv3": MOBILENETV3,
    "tiny": TINY,
}


def open_space(name_or_path: str | Path, *, width: float = 1.0, input_chw: Shape = (3, 224, 224)) -> SearchSpace:
    """A built-in space by name, or the space of a TOML file (a path that ends in .toml), at a width multiplier and input (C, H, W).

    >>> open_space("tiny", input_chw=(3, 32, 32)).name
    'tiny'

    Raises:
        UnknownName: neither a built-in name nor a .toml path.
        InvalidSpace: the file cannot be read or has a mistake, or width or input is not positive.
    """
    name = str(name_or_path)
    if not name.endswith(".toml") and name not in SPACES:
        raise UnknownName.among("search space", name, [*SPACES, "or a path that ends in .toml"])
    space = SPACES[name] if name in SPACES else from_toml(name)
    return space.at(width=width, input_chw=input_chw)
