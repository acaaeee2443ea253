"""digits: 1,797 real grey 8x8 digits that ship with scikit-learn; trains in a second."""

import functools

import numpy as np

from nas.tasks.dataset import Dataset, Images, Request, Seeds, split_off

__all__ = ["load"]


def load(request: Request) -> Dataset:
    """The digits, each pixel repeated to 16x16 (or 8, 24, 32), so that networks of total stride 8 keep a map of 2x2."""
    request.refuse_path()
    request.refuse_size((8, 16, 24, 32))
    every = _digits((request.image_size or 16) // 8)
    rest, test = split_off(every.y, 0.2, np.random.default_rng((0, Seeds.TEST)))
    train, valid = split_off(every.y[rest], 0.1, np.random.default_rng((request.seed, Seeds.VALID)))
    return Dataset(
        classes=tuple("0123456789"), train=every.at(rest[train]), valid=every.at(rest[valid]), test=functools.partial(every.at, test),
        preprocess="grey 0..255, ink bright, each of 8x8 pixels repeated", flip=False,
    )  # fmt: skip


def _digits(repeat: int) -> Images:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = (images.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    return Images(x=x.repeat(repeat, axis=1).repeat(repeat, axis=2), y=labels.astype(np.int64))
