"""What a data set hands over (arrays, class names, how to split), and the few rules that all of them share."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import InvalidConfig, InvalidData

__all__ = ["Dataset", "Images", "Request", "Seeds", "capped", "channel_stats", "digest", "pick", "split_off", "without_copies"]

Index = NDArray[np.int64]


class Seeds:
    """Streams of randomness: the test split never depends on the user's seed, so that runs with other seeds compare."""

    TEST, VALID, SUBSET, VALID_CAP = range(4)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Images:
    """Images (N, H, W, C), uint8 or float32, and their labels (N,), int64."""

    x: NDArray[Any]  # uint8 or float32
    y: Index

    def __len__(self) -> int:
        return len(self.y)

    def at(self, index: Index) -> "Images":
        """The images at these positions, in this order (copies)."""
        return Images(x=np.ascontiguousarray(self.x[index]), y=self.y[index])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dataset:
    """Arrays ready to train on. ``test`` is a function, so that test pixels are only read when somebody asks.

    ``flip`` says whether a mirrored image keeps its class; ``normalised`` that pixels have mean 0 and deviation near 1 already.
    ``preprocess`` tells a user of the exported model what was done to an image before the mean and deviation.
    """

    classes: tuple[str, ...]
    train: Images
    valid: Images
    test: Callable[[], Images]
    preprocess: str
    flip: bool = True
    normalised: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a loader is asked for: ``rest`` is the text after the colon of ``folder:PATH``."""

    name: str
    rest: str = ""
    image_size: int | None = None
    train_images: int | None = None
    seed: int = 0
    root: Path = field(default_factory=lambda: Path("data"))

    def path(self) -> Path:
        """The path after the colon.

        Raises:
            InvalidConfig: there is none.
        """
        if not self.rest:
            raise InvalidConfig(f"data set {self.name!r} needs a path: --data {self.name}:PATH")
        return Path(self.rest).expanduser()

    def refuse_path(self) -> None:
        """Refuse a path where the data set takes none."""
        if self.rest:
            raise InvalidConfig(f"data set {self.name!r} takes no path, got {self.rest!r}; for your own images: folder:PATH or npz:PATH")

    def refuse_size(self, sizes: Sequence[int]) -> None:
        """Refuse an ``image_size`` that is not among ``sizes``."""
        if self.image_size not in (None, *sizes):
            raise InvalidConfig(f"image_size must be {' or '.join(map(str, sizes))} for {self.name!r}, got {self.image_size}")


def pick(y: Index, count: int, rng: np.random.Generator) -> Index:
    """Sorted positions of ``count`` labels, each class in proportion and with at least one where ``count`` allows it.

    Of two draws with equal generators, the smaller is part of the larger.
    """
    order = rng.permutation(len(y))
    key = np.empty(len(y))
    for label in np.unique(y):
        of_class = order[y[order] == label]
        key[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
        key[of_class[0]] = -1
    return np.sort(order[np.argsort(key[order], kind="stable")[:count]]).astype(np.int64)


def split_off(y: Index, fraction: float, rng: np.random.Generator) -> tuple[Index, Index]:
    """Positions to keep and positions split off: a stratified ``fraction``, at least one of each class on either side."""
    held = pick(y, max(round(len(y) * fraction), len(np.unique(y))), rng)
    kept = np.setdiff1d(np.arange(len(y)), held)
    return kept, held


def capped(images: Images, count: int, rng: np.random.Generator) -> Images:
    """A stratified ``count`` of the images, or all of them where there are not more."""
    return images if len(images) <= count else images.at(pick(images.y, count, rng))


def without_copies(data: Dataset) -> Dataset:
    """The data set without those training images that equal, pixel for pixel, a validation image."""
    held = {row.tobytes() for row in data.valid.x}
    keep = np.array([row.tobytes() not in held for row in data.train.x], dtype=bool)
    if keep.all():
        return data
    train = data.train.at(np.flatnonzero(keep))
    if missing := set(range(len(data.classes))) - set(train.y.tolist()):
        names = ", ".join(data.classes[i] for i in sorted(missing))
        raise InvalidData(f"every training image of class {names} equals a validation image: the splits must be disjoint")
    return replace(data, train=train, notes=(*data.notes, f"{(~keep).sum():,} training images equal a validation image and are left out"))


def channel_stats(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, uint8 in units of 0..1; a constant channel gets deviation 1."""
    scale = 255.0 if images.x.dtype == np.uint8 else 1.0
    channels = images.x.shape[-1]
    sums, squares = np.zeros(channels), np.zeros(channels)
    for start in range(0, len(images), 256):
        part = images.x[start : start + 256].reshape(-1, channels).astype(np.float64) / scale
        sums, squares = sums + part.sum(0), squares + (part**2).sum(0)
    count = images.x.size / channels
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std < 1e-6 * np.maximum(1.0, np.abs(mean))] = 1.0
    return tuple(mean.round(6).tolist()), tuple(std.tolist())


def digest(data: Dataset) -> str:
    """SHA-256 (hex) over class names, training and validation arrays; the test split is left unread."""
    sha = hashlib.sha256("\0".join(data.classes).encode())
    for array in (data.train.x, data.train.y, data.valid.x, data.valid.y):
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
