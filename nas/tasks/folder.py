"""folder:PATH: a folder of images per class, with or without train, valid and test folders above them."""

import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import InvalidData
from nas.tasks.dataset import Dataset, Images, Index, Request, Seeds, split_off

__all__ = ["Files", "dataset", "files", "load"]

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jpe"))
SPLITS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test", "testing": "test"}
DEFAULT_SIZE = 64
THREADS = 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Files:
    """Image files and their labels (N,), in the order of their paths."""

    paths: tuple[Path, ...]
    y: Index

    def at(self, index: Index) -> "Files":
        """The files at these positions."""
        return Files(paths=tuple(self.paths[i] for i in index), y=self.y[index])


def load(request: Request) -> Dataset:
    """The folder's images as RGB: short side to ``image_size`` (default 64), centre square.

    A missing test split is a stratified fifth (the same for every seed), a missing validation split a seeded, stratified
    tenth of what trains. A file that equals another byte by byte is used once, in test before valid before train.

    Raises:
        InvalidData: no such folder, fewer than two classes, a class without images in a split, unreadable images.
    """
    top = request.path()
    if not top.is_dir():
        raise InvalidData(f"folder: there is no folder {top}")
    found = _split_folders(top)
    classes = _classes(found["train"])
    return dataset(classes, {split: files(path, classes) for split, path in found.items()}, request)


def dataset(classes: tuple[str, ...], found: Mapping[str, Files], request: Request) -> Dataset:
    """The data set of files already listed by split; splits that are missing are split off ``train``."""
    unique, notes = _without_copies(found)
    splits = _filled(unique, request.seed, classes)
    size = request.image_size or DEFAULT_SIZE
    _refuse_unreadable(splits["test"].paths)
    return Dataset(
        classes=classes, train=_decoded(splits["train"], size), valid=_decoded(splits["valid"], size),
        test=functools.partial(_decoded, splits["test"], size), notes=notes,
        preprocess=f"RGB 0..255, upright by EXIF, centre square, resized to {size}x{size} (Pillow ImageOps.fit, bicubic)",
    )  # fmt: skip


def files(folder: Path, classes: Sequence[str]) -> Files:
    """The image files of each class folder, nested ones too, hidden ones left out.

    Raises:
        InvalidData: a class has no image here, or there is a class folder that ``classes`` does not name.
    """
    if strange := sorted({d.name for d in _folders(folder)} - set(classes)):
        raise InvalidData(f"folder: {folder} holds class {strange[0]!r}, which the training split does not have")
    by_class = [_images(folder / name) for name in classes]
    if empty := [name for name, paths in zip(classes, by_class, strict=True) if not paths]:
        raise InvalidData(f"folder: no images ({', '.join(sorted(SUFFIXES))}) of class {', '.join(map(repr, empty[:5]))} in {folder}")
    y = np.repeat(np.arange(len(classes)), [len(paths) for paths in by_class])
    return Files(paths=tuple(path for paths in by_class for path in paths), y=y.astype(np.int64))


def _split_folders(top: Path) -> dict[str, Path]:
    """The folder of each split; the top itself as "train" where its children are classes."""
    children = _folders(top)
    if not children:
        raise InvalidData(f"folder: {top} has no sub-folders; it needs one per class, or train and test folders of such")
    splits = {SPLITS[child.name.lower()] for child in children if child.name.lower() in SPLITS}
    if "train" in splits and len(splits) > 1 and (odd := [c.name for c in children if c.name.lower() not in SPLITS]):
        raise InvalidData(f"folder: {top} holds splits and also {', '.join(map(repr, odd[:5]))}, which is none: move it out of there")
    if not all(child.name.lower() in SPLITS for child in children):
        return {"train": top}
    named = {SPLITS[child.name.lower()]: child for child in children}
    if "train" not in named or len(named) < len(children):
        names = ", ".join(child.name for child in children)
        raise InvalidData(f"folder: {top} needs one train folder and at most one of valid and test each, got {names}")
    return named


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(child.name for child in _folders(folder))
    if len(classes) < 2:
        raise InvalidData(f"folder: {folder} needs at least two class sub-folders, got {', '.join(classes) or 'none'}")
    return classes


def _folders(folder: Path) -> list[Path]:
    hidden = (".", "__")
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(hidden))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def _without_copies(found: Mapping[str, Files]) -> tuple[dict[str, Files], tuple[str, ...]]:
    """The files without those whose bytes were seen before; only files of equal length are opened to compare."""
    sizes: dict[int, int] = {}
    for part in found.values():
        for path in part.paths:
            sizes[path.stat().st_size] = sizes.get(path.stat().st_size, 0) + 1
    seen: set[bytes] = set()
    kept: dict[str, Files] = {}
    for split in ("test", "valid", "train"):
        if split in found:
            index = [i for i, path in enumerate(found[split].paths) if _is_new(path, sizes, seen)]
            kept[split] = found[split].at(np.asarray(index, dtype=np.int64))
    copies = sum(len(found[split].paths) - len(kept[split].paths) for split in kept)
    return kept, (f"{copies:,} image files are copies of others and are left out",) if copies else ()


def _is_new(path: Path, sizes: Mapping[int, int], seen: set[bytes]) -> bool:
    if sizes[path.stat().st_size] == 1:
        return True
    content = path.read_bytes()
    import hashlib

    key = hashlib.sha256(content).digest()
    is_new = key not in seen
    seen.add(key)
    return is_new


def _filled(found: dict[str, Files], seed: int, classes: tuple[str, ...]) -> dict[str, Files]:
    splits = dict(found)
    needed = 1 + ("test" not in splits) + ("valid" not in splits)
    counts = np.bincount(splits["train"].y, minlength=len(classes))
    if counts.min() < needed:
        name = classes[int(counts.argmin())]
        raise InvalidData(f"folder: class {name!r} has {counts.min()} different training images, but its splits need at least {needed}")
    for split, fraction, seeds in (("test", 0.2, (0, Seeds.TEST)), ("valid", 0.1, (seed, Seeds.VALID))):
        if split not in splits:
            kept, held = split_off(splits["train"].y, fraction, np.random.default_rng(seeds))
            splits["train"], splits[split] = splits["train"].at(kept), splits["train"].at(held)
    return splits


def _refuse_unreadable(paths: Sequence[Path]) -> None:
    """Refuse files that are no images, by their first bytes alone: test pixels stay unread."""
    from PIL import Image

    bad = []
    for path in paths:
        try:
            Image.open(path).close()
        except (OSError, ValueError, SyntaxError):
            bad.append(path)
    _raise_unreadable(bad)


def _raise_unreadable(bad: Sequence[Path]) -> None:
    if bad:
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        raise InvalidData(f"folder: unreadable images: {', '.join(map(str, bad[:3]))}{more}; repair or remove them")


def _decoded(found: Files, size: int) -> Images:
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        decoded = list(pool.map(functools.partial(_decode, size=size), found.paths))
    _raise_unreadable([path for path, pixels in zip(found.paths, decoded, strict=True) if pixels is None])
    return Images(x=np.stack([pixels for pixels in decoded if pixels is not None]), y=found.y)


def _decode(path: Path, size: int) -> NDArray[Any] | None:
    """The centre square of the image (size, size, 3) uint8, its short side resized; None where it cannot be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * size, 2 * size))
            upright = ImageOps.exif_transpose(image)
            rgb = (upright.convert("RGBA") if "transparency" in upright.info else upright).convert("RGB")
            return np.asarray(ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
