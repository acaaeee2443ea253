"""photos: which of ten photographs is this 32x32 patch from? Real images that need no download.

Eight photographs ship with scikit-image (public domain or CC0, two without known restrictions), two with scikit-learn (CC BY 2.0).
Each is cut into 8 vertical bands and a patch lies within one band: 2 and 6 are test, 4 is validation, the rest training.
A patch has its channel means subtracted and is divided by its deviation + 8, so that colour and brightness do not give the
class away. Flat patches (deviation below one grey level: the black around the retina) show nothing and are drawn again.
"""

import functools
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import InvalidConfig, InvalidData
from nas.tasks import digits
from nas.tasks.dataset import Dataset, Images, Request, Seeds

__all__ = ["load", "photographs"]

FILES = {
    "astronaut": "astronaut.png", "coffee": "coffee.png", "chelsea": "chelsea.png", "retina": "retina.jpg", "rocket": "rocket.jpg",
    "ihc": "ihc.png", "hubble": "hubble_deep_field.jpg", "motorcycle": "motorcycle_left.png", "china": "china.jpg", "flower": "flower.jpg",
}  # fmt: skip
BANDS = 8
TEST_BANDS = (2, 6)
VALID_BANDS = (4,)
TRAIN_BANDS = (0, 1, 3, 5, 7)
TRAIN_PATCHES, VALID_PATCHES, TEST_PATCHES = 5000, 1000, 1500
Photograph = NDArray[Any]  # (H, W, 3) uint8


def load(request: Request) -> Dataset:
    """The patches; ``digits`` instead, with a note saying so, where a photograph is not installed."""
    request.refuse_path()
    paths = photographs()
    if missing := [name for name, path in paths.items() if path is None]:
        note = f"the installed scikit-image or scikit-learn lacks the photograph {', '.join(missing)}: using digits instead of photos"
        fallback = digits.load(replace(request, name="digits", image_size=None))
        return replace(fallback, notes=(note, *fallback.notes))
    size = request.image_size or 32
    pixels = {name: _read(path) for name, path in paths.items() if path is not None}
    widest = min(p.shape[1] // BANDS for p in pixels.values())
    if not 8 <= size <= widest:
        raise InvalidConfig(f"image_size must be 8 to {widest} for 'photos' (the narrowest band), got {size}")
    cut = functools.partial(_patches, pixels, size=size)
    return Dataset(
        classes=tuple(FILES),
        train=cut(bands=TRAIN_BANDS, count=request.train_images or TRAIN_PATCHES, seed=(request.seed, Seeds.SUBSET)),
        valid=cut(bands=VALID_BANDS, count=VALID_PATCHES, seed=(request.seed, Seeds.VALID)),
        test=functools.partial(cut, bands=TEST_BANDS, count=TEST_PATCHES, seed=(0, Seeds.TEST)),
        preprocess="RGB 0..255: subtract the image's own channel means, divide by its deviation + 8",
        normalised=True,
    )


def photographs() -> dict[str, Path | None]:
    """The installed file of each photograph by class name, None where it is missing; nothing is ever fetched."""
    folders = [_folder("skimage", "data"), _folder("sklearn", "datasets/images")]
    return {name: next((f / file for f in folders if f and (f / file).is_file()), None) for name, file in FILES.items()}


def _folder(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent / inside if spec and spec.origin else None


def _read(path: Path) -> Photograph:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _patches(
    pixels: dict[str, Photograph], *, size: int, bands: tuple[int, ...], count: int, seed: tuple[int, int]
) -> Images:
    """``count`` patches (N, size, size, 3), classes and bands taking turns so that both are balanced, in a shuffled order."""
    rng = np.random.default_rng(seed)
    names = tuple(pixels)
    y = np.arange(count, dtype=np.int64) % len(names)
    band = np.asarray(bands)[np.arange(count) // len(names) % len(bands)]
    x = np.stack([_patch(pixels[names[label]], int(b), size, rng) for label, b in zip(y, band, strict=True)])
    order = rng.permutation(count)
    return Images(x=x[order], y=y[order])


def _patch(photo: Photograph, band: int, size: int, rng: np.random.Generator) -> Photograph:
    height, width = photo.shape[:2]
    left, right = width * band // BANDS, width * (band + 1) // BANDS
    for _ in range(1000):
        row, column = rng.integers(height - size + 1), rng.integers(left, right - size + 1)
        patch = photo[row : row + size, column : column + size].astype(np.float32)
        patch -= patch.mean((0, 1))
        if (deviation := patch.std()) >= 1:
            return patch / np.float32(deviation + 8)
    raise InvalidData(f"band {band} of a photograph is flat: no {size}x{size} patch found")
