"""Small data sets that tests write for themselves: every class has its own colour, so a tiny network can learn it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = {"blue": (30, 30, 220), "green": (30, 220, 30), "red": (220, 30, 30)}


def pixels(count: int, *, size: int = 16, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy images (count, size, size, 3) of three colours in turn, and their labels; no two are equal."""
    rng = np.random.default_rng(seed)
    y = np.arange(count, dtype=np.int64) % len(COLOURS)
    noise = rng.integers(-30, 31, (count, size, size, 3))
    x = np.asarray(list(COLOURS.values()))[y][:, None, None, :] + noise
    return x.clip(0, 255).astype(np.uint8), y


def write_npz(path: Path, *, train: int = 60, test: int = 30) -> Path:
    """An npz as Keras names it."""
    x_train, y_train = pixels(train, seed=1)
    x_test, y_test = pixels(test, seed=2)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def write_classes(top: Path, count: int, *, seed: int, size: int = 24) -> Path:
    """One folder per class below ``top``, ``count`` PNG files in all."""
    x, y = pixels(count, size=size, seed=seed)
    names = list(COLOURS)
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        folder = top / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return top
