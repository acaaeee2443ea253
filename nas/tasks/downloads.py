"""CIFAR-10, CIFAR-100 and Imagenette through torchvision, downloaded into the data root where they are missing."""

import contextlib
import functools
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nas.errors import InvalidData
from nas.tasks import folder
from nas.tasks.dataset import Dataset, Images, Request

__all__ = ["cifar10", "cifar100", "imagenette"]

VALID_IMAGES = 5000


def cifar10(request: Request) -> Dataset:
    """50,000 + 10,000 RGB images of 32x32 in 10 classes; the last 5,000 training images validate."""
    from torchvision.datasets import CIFAR10

    return _cifar(CIFAR10, request)


def cifar100(request: Request) -> Dataset:
    """50,000 + 10,000 RGB images of 32x32 in 100 classes; the last 5,000 training images validate."""
    from torchvision.datasets import CIFAR100

    return _cifar(CIFAR100, request)


def imagenette(request: Request) -> Dataset:
    """Ten easy ImageNet classes (the 160 px edition), resized to ``image_size`` (default 64); its official val split is test."""
    from torchvision.datasets import Imagenette

    request.refuse_path()
    with _downloading(request):
        train = Imagenette(request.root, split="train", size="160px", download=True)
        held = Imagenette(request.root, split="val", size="160px", download=False)
    tops = {"train": train, "test": held}
    found = {split: folder.files(Path(top.root) / "imagenette2-160" / top._split, train.wnids) for split, top in tops.items()}
    return folder.dataset(tuple(names[0] for names in train.classes), found, request)


def _cifar(source: Any, request: Request) -> Dataset:  # Any: a torchvision data set class
    request.refuse_path()
    request.refuse_size((32,))
    with _downloading(request):
        data = source(request.root, train=True, download=True)
    every = _images(data)
    held = min(VALID_IMAGES, len(every) // 10)
    order = np.arange(len(every))
    return Dataset(
        classes=tuple(data.classes), train=every.at(order[:-held]), valid=every.at(order[-held:]),
        test=functools.partial(_cifar_test, source, request), preprocess="RGB 0..255",
    )  # fmt: skip


def _cifar_test(source: Any, request: Request) -> Images:  # Any: a torchvision data set class
    with _downloading(request):
        return _images(source(request.root, train=False, download=True))


def _images(data: Any) -> Images:  # Any: a torchvision data set
    return Images(x=np.ascontiguousarray(data.data), y=np.asarray(data.targets, dtype=np.int64))


@contextlib.contextmanager
def _downloading(request: Request) -> Iterator[None]:
    """Keep torchvision's progress off stdout and turn whatever goes wrong into one sentence."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidData(
            f"{request.name} is not (whole) in {request.root} and could not be downloaded: {reason}; go online, point --data-root at a "
            "copy as torchvision keeps it, or use --data photos, folder:PATH or npz:PATH"
        ) from error
