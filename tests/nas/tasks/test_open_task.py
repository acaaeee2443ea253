from pathlib import Path

import numpy as np
import pytest

from nas.errors import InvalidConfig, NasError, UnknownName
from nas.tasks import open_task
from nas.tasks.dataset import pick, split_off
from tests.nas.tasks.samples import write_classes, write_npz


@pytest.mark.parametrize(("task", "data", "message"), [
    ("classify", "photo", "did you mean 'photos'"),
    ("classfy", "photos", "did you mean 'classify'"),
    ("classify", "", "unknown data set ''"),
])  # fmt: skip
def test_unknown_name_gets_a_suggestion(task: str, data: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        open_task(task, data)


def test_a_bare_path_is_answered_with_the_prefix_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=f"say folder:{tmp_path}"):
        open_task("classify", str(tmp_path))


@pytest.mark.parametrize("data", ["folder", "npz", "folder:"])
def test_folder_and_npz_need_a_path(data: str) -> None:
    with pytest.raises(InvalidConfig, match="needs a path"):
        open_task("classify", data)


def test_a_path_where_none_belongs_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="'photos' takes no path"):
        open_task("classify", "photos:/tmp")


@pytest.mark.parametrize(("field", "value"), [("image_size", 4), ("train_images", 1), ("valid_images", 0), ("train_images", -5)])
def test_sizes_and_counts_below_their_floor_are_refused(field: str, value: int) -> None:
    with pytest.raises(InvalidConfig, match=field):
        open_task("classify", "digits", **{field: value})  # type: ignore[arg-type]  # the names come from the table above


def test_fewer_training_images_than_classes_are_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"at least one per class \(10\), got 5"):
        open_task("classify", "digits", train_images=5)


def test_training_subset_is_stratified_seeded_and_noted(tmp_path: Path) -> None:
    data = f"npz:{write_npz(tmp_path / 'a.npz', train=300)}"
    task = open_task("classify", data, train_images=90, seed=3)
    assert np.bincount(task.train.y).tolist() == [30, 30, 30]
    assert task.notes == ("training on 90 of 270 images (stratified, seed 3)",)
    assert open_task("classify", data, train_images=90, seed=4).data_sha256 != task.data_sha256


def test_validation_is_capped_and_noted(tmp_path: Path) -> None:
    task = open_task("classify", f"npz:{write_npz(tmp_path / 'a.npz', train=300)}", valid_images=9)
    assert np.bincount(task.valid.y).tolist() == [3, 3, 3]
    assert task.notes == ("validating on 9 of 30 images (stratified, seed 0)",)


def test_test_pixels_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "valid", "test")):
        write_classes(tmp_path / split, 12, seed=seed)
    task = open_task("classify", f"folder:{tmp_path}")
    (tmp_path / "test" / "red" / "002.png").unlink()
    task.load("train"), task.load("valid")
    with pytest.raises(NasError):
        task.load("test")


def test_unknown_split_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'valid'"):
        open_task("classify", "digits").load("val")  # type: ignore[arg-type]  # the mistake under test


def test_pick_takes_each_class_in_proportion() -> None:
    y = np.repeat([0, 1, 2], [600, 300, 100])
    assert np.bincount(y[pick(y, 100, np.random.default_rng(0))]).tolist() == [60, 30, 10]


def test_pick_takes_at_least_one_of_a_rare_class() -> None:
    y = np.repeat([0, 1, 2], [998, 1, 1])
    assert set(y[pick(y, 3, np.random.default_rng(0))].tolist()) == {0, 1, 2}


def test_a_smaller_pick_is_part_of_a_larger_one() -> None:
    y = np.random.default_rng(1).integers(0, 5, 400)
    small, large = (set(pick(y, n, np.random.default_rng(0)).tolist()) for n in (40, 150))
    assert small < large


def test_split_off_leaves_every_class_on_both_sides() -> None:
    y = np.repeat([0, 1], [2, 50])
    kept, held = split_off(y, 0.1, np.random.default_rng(0))
    assert set(y[kept].tolist()) == set(y[held].tolist()) == {0, 1}
    assert sorted([*kept, *held]) == list(range(52))
