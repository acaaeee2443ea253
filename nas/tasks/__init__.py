"""Tasks and data sets by name: ``TASKS`` says what is learned and how it is judged, ``DATASETS`` where images come from."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.errors import InvalidConfig, UnknownName
from nas.tasks import classify, digits, downloads, folder, npz, photos
from nas.tasks.dataset import Dataset, Request, Seeds, capped, without_copies
from nas.tasks.task import Split, Task

__all__ = ["DATASETS", "TASKS", "Split", "Task", "open_task"]

TASKS: Mapping[str, Callable[..., Task]] = {"classify": classify.task}

DATASETS: Mapping[str, Callable[[Request], Dataset]] = {
    "photos": photos.load,
    "digits": digits.load,
    "cifar10": downloads.cifar10,
    "cifar100": downloads.cifar100,
    "imagenette": downloads.imagenette,
    "folder": folder.load,
    "npz": npz.load,
}


def open_task(
    task: str, data: str, *, image_size: int | None = None, train_images: int | None = None, valid_images: int = 5000, seed: int = 0,
    root: Path | str = "data",
) -> Task:  # fmt: skip
    """The task ``task`` on the data set ``data``: a name of ``DATASETS``, ``folder:PATH`` or ``npz:PATH``.

    Training and validation images are read now, test images when asked for. ``train_images`` takes a seeded, stratified
    subset of the training split; validation is capped at ``valid_images`` the same way. ``seed`` chooses subsets and split-off
    validation sets, never the test split. Downloads go to ``root``.

    Raises:
        UnknownName: no such task or data set.
        InvalidConfig: a size or count that the data set cannot serve, a path missing or not wanted.
        InvalidData: the data set is missing, broken or too small.
    """
    if task not in TASKS:
        raise UnknownName.among("task", task, TASKS)
    name, _, rest = data.partition(":")
    if name not in DATASETS:
        raise _unknown(data, name)
    if image_size is not None and image_size < 8:
        raise InvalidConfig(f"image_size must be at least 8 pixels, got {image_size}")
    if min(train_images or 2, valid_images) < 2:
        raise InvalidConfig(f"train_images and valid_images must be at least 2, got {train_images} and {valid_images}")
    request = Request(name=name, rest=rest, image_size=image_size, train_images=train_images, seed=seed, root=Path(root))
    loaded = DATASETS[name](request)
    return TASKS[task](_sized(loaded, train_images, valid_images, seed), spec=data)


def _unknown(data: str, name: str) -> UnknownName:
    path = Path(data).expanduser()
    if path.exists():
        return UnknownName(f"unknown data set {data!r}; to read that path say {'folder' if path.is_dir() else 'npz'}:{data}")
    return UnknownName.among("data set", name, DATASETS)


def _sized(data: Dataset, train_images: int | None, valid_images: int, seed: int) -> Dataset:
    if (train_images or len(data.classes)) < len(data.classes):
        raise InvalidConfig(f"train_images must be at least one per class ({len(data.classes)}), got {train_images}")
    valid = capped(data.valid, valid_images, np.random.default_rng((seed, Seeds.VALID_CAP)))
    bare = without_copies(replace(data, valid=valid))
    train = capped(bare.train, train_images or len(bare.train), np.random.default_rng((seed, Seeds.SUBSET)))
    notes = list(bare.notes)
    if len(train) < len(bare.train):
        notes.append(f"training on {len(train):,} of {len(bare.train):,} images (stratified, seed {seed})")
    if len(valid) < len(data.valid):
        notes.append(f"validating on {len(valid):,} of {len(data.valid):,} images (stratified, seed {seed})")
    return replace(bare, train=train, notes=tuple(notes))
