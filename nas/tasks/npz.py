"""npz:PATH: one file with x_train, y_train, x_test, y_test (optionally x_valid, y_valid), as Keras names them."""

import functools
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import InvalidData
from nas.tasks.dataset import Dataset, Images, Index, Request, Seeds, split_off

__all__ = ["load"]

Array = NDArray[Any]  # whatever the file holds
SIGNAL_CH = 4
FORMATS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load(request: Request) -> Dataset:
    """The file's arrays; without x_valid a seeded, stratified tenth of the training images is split off.

    Images are (N, H, W, C), (N, H, W) grey, or (N, C, H, W), which is recognised by axis 1 being the shortest; signals of length L
    in C channels are images of height 1, (N, C, 1, L), or (N, 1, L, C) with up to 4 channels, and are not mirrored; labels are
    (N,), (N, 1) or one-hot (N, K). Test labels are checked at once, and float test pixels for NaN; none are kept before they are asked for.

    Raises:
        InvalidData: the file is no npz, an array is missing, counts differ, pixels are not finite, labels are not 0 to n-1.
    """
    path = request.path()
    keys = _keys(path)
    train = Images(x=_pixels(path, "x_train"), y=_labels(path, "y_train", None))
    classes = int(train.y.max()) + 1
    _check(path, "train", train.x.shape, train, classes)
    parts = {"train": train}
    if "x_valid" in keys:
        parts["valid"] = Images(x=_pixels(path, "x_valid"), y=_labels(path, "y_valid", classes))
        _check(path, "valid", train.x.shape, parts["valid"], classes)
    else:
        parts["train"], parts["valid"] = _halves(path, train, request.seed)
    test_y = _labels(path, "y_test", classes)
    _check_counts(path, "test", _shape(path, "x_test"), len(test_y), train.x.shape)
    if train.x.dtype == np.float32:
        _pixels(path, "x_test")  # for its NaN check alone: said now, and not after all the training
    size = train.x.shape[1]
    request.refuse_size((size,))
    return Dataset(
        classes=tuple(map(str, range(classes))), train=parts["train"], valid=parts["valid"], test=functools.partial(_test, path, test_y),
        preprocess="the image's own numbers" if train.x.dtype == np.float32 else "0..255",
        flip=size > 1,  # a signal backwards in time is another one
    )  # fmt: skip


def _test(path: Path, y: Index) -> Images:
    return Images(x=_pixels(path, "x_test"), y=y)


def _keys(path: Path) -> set[str]:
    if path.is_dir():
        raise InvalidData(f"npz: {path} is a folder; to read it say folder:{path}")
    if not path.is_file():
        raise InvalidData(f"npz: there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            keys = {Path(name).stem for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise InvalidData(f"npz: {path} is not an npz file (np.savez writes one): {error}") from error
    needed = {"x_train", "y_train", "x_test", "y_test"} | ({"x_valid", "y_valid"} if keys & {"x_valid", "y_valid"} else set())
    if missing := sorted(needed - keys):
        raise InvalidData(f"npz: {path} has no {', '.join(missing)}; it has {', '.join(sorted(keys)) or 'nothing'}")
    return keys


def _array(path: Path, key: str) -> Array:
    try:
        with np.load(path, allow_pickle=False) as file:
            array: Array = file[key]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidData(f"npz: {key} in {path} cannot be read (plain arrays only, no objects): {error}") from error
    return array


def _shape(path: Path, key: str) -> tuple[int, ...]:
    """Shape (N, H, W, C) of an image array from its header alone, without reading a pixel."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
            head = io.BytesIO(file.read(65_536))
            shape, _, dtype = FORMATS[np.lib.format.read_magic(head)](head)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidData(f"npz: {key} in {path} cannot be read: {error}") from error
    _check_type(path, key, dtype)
    return _layout(path, key, shape)[1]


def _layout(path: Path, key: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How to transpose to (N, H, W, C), and the shape this gives."""
    if len(shape) == 3:
        return (0, 1, 2), (*shape, 1)
    if len(shape) != 4 or 0 in shape:
        raise InvalidData(f"npz: {key} in {path} must be (N, H, W, C) or (N, H, W) and not empty, got shape {shape}")
    axes = (0, 2, 3, 1) if _channels_first(shape) else (0, 1, 2, 3)
    return axes, tuple(shape[a] for a in axes)


def _channels_first(shape: tuple[int, ...]) -> bool:
    _, a, b, c = shape
    if a == 1 and c <= SIGNAL_CH < b:
        return False  # a signal (N, 1, L, C), and no grey image so narrow
    return a < min(b, c) or (b == 1 and a < c)  # the latter a signal (N, C, 1, L), and no image of width 1 and so many channels


def _check_type(path: Path, key: str, dtype: np.dtype[Any]) -> None:  # Any: the file's own type
    if dtype.kind not in "buif":
        raise InvalidData(f"npz: {key} in {path} must hold numbers, got type {dtype}; np.unique(y, return_inverse=True)[1] numbers names")


def _pixels(path: Path, key: str) -> Array:
    """Images (N, H, W, C): uint8 where every value is a whole number of 0 to 255 of an integer type, else float32."""
    raw = _array(path, key)
    _check_type(path, key, raw.dtype)
    axes, shape = _layout(path, key, raw.shape)
    x = raw.transpose(axes).reshape(shape)
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if bad := np.flatnonzero(~np.isfinite(x).all((1, 2, 3))).tolist():
            more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
            raise InvalidData(f"npz: {key} in {path} holds NaN or infinity in image {bad[0]}{more}")
    elif raw.dtype != np.uint8:
        x = x.astype(np.uint8 if raw.min() >= 0 and raw.max() <= 255 else np.float32)
    return np.ascontiguousarray(x)


def _labels(path: Path, key: str, classes: int | None) -> Index:
    """Labels (N,), checked to be whole numbers from 0, below ``classes`` where that is known."""
    raw = _array(path, key)
    _check_type(path, key, raw.dtype)
    if raw.ndim == 2 and raw.shape[1] > 1:
        if not (np.isin(raw, (0, 1)).all() and (raw.sum(1) == 1).all()):
            raise InvalidData(f"npz: {key} in {path} has shape {raw.shape} but is not one-hot: each row needs one 1 and zeros")
        raw = raw.argmax(1)
    elif raw.ndim != 1 and raw.shape[1:] != (1,):
        raise InvalidData(f"npz: {key} in {path} must be (N,), (N, 1) or one-hot (N, K), got shape {raw.shape}")
    raw = raw.reshape(-1)
    if not len(raw):
        raise InvalidData(f"npz: {key} in {path} is empty")
    if not (np.isfinite(raw).all() and (raw == np.floor(raw)).all() and raw.min() >= 0):
        raise InvalidData(f"npz: {key} in {path} must hold whole numbers from 0, got {raw[:5].tolist()}...")
    if classes is not None and raw.max() >= classes:
        raise InvalidData(f"npz: {key} in {path} holds class {raw.max():g}, but y_train only has classes 0 to {classes - 1}")
    return raw.astype(np.int64)


def _check(path: Path, split: str, like: tuple[int, ...], images: Images, classes: int) -> None:
    _check_counts(path, split, images.x.shape, len(images.y), like)
    if classes < 2:
        raise InvalidData(f"npz: y_train in {path} holds one class only; at least two are needed")
    if missing := sorted(set(range(classes)) - set(images.y.tolist())):
        raise InvalidData(f"npz: y_{split} in {path} has no image of class {missing[0]}: each of 0 to {classes - 1} must be used")


def _check_counts(path: Path, split: str, shape: tuple[int, ...], labels: int, like: tuple[int, ...]) -> None:
    if shape[0] != labels:
        raise InvalidData(f"npz: {path} has {shape[0]:,} images in x_{split} but {labels:,} labels in y_{split}")
    if shape[1:] != like[1:]:
        raise InvalidData(f"npz: {path} has images of (H, W, C) {like[1:]} in x_train but {shape[1:]} in x_{split}")


def _halves(path: Path, train: Images, seed: int) -> tuple[Images, Images]:
    counts = np.bincount(train.y)
    if counts.min() < 2:
        raise InvalidData(f"npz: class {counts.argmin()} in {path} has one training image; two are needed to split off validation")
    kept, held = split_off(train.y, 0.1, np.random.default_rng((seed, Seeds.VALID)))
    return train.at(kept), train.at(held)
