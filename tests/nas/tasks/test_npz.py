import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nas.errors import InvalidConfig, InvalidData
from nas.tasks import open_task
from tests.nas.tasks.samples import pixels

Array = NDArray[Any]


def arrays(**changes: Array) -> dict[str, Array]:
    """A good set of 60 and 30 images, some arrays replaced."""
    (x_train, y_train), (x_test, y_test) = pixels(60, seed=1), pixels(30, seed=2)
    good: dict[str, Array] = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return good | changes


def save(path: Path, **changes: Array) -> str:
    np.savez(path / "set.npz", **arrays(**changes))  # type: ignore[arg-type]  # numpy's stub mixes arrays up with its flag
    return f"npz:{path / 'set.npz'}"


def test_train_and_valid_together_are_the_files_training_images(tmp_path: Path) -> None:
    task = open_task("classify", save(tmp_path))
    both = np.concatenate([task.train.x, task.valid.x])
    assert sorted(row.tobytes() for row in both) == sorted(row.tobytes() for row in arrays()["x_train"])


def test_one_tenth_of_each_class_is_split_off(tmp_path: Path) -> None:
    assert np.bincount(open_task("classify", save(tmp_path)).valid.y).tolist() == [2, 2, 2]


def test_channels_first_gives_the_same_task_as_channels_last(tmp_path: Path) -> None:
    last = open_task("classify", save(tmp_path))
    plain = arrays()
    turned = {key: plain[key].transpose(0, 3, 1, 2) for key in ("x_train", "x_test")}
    first = open_task("classify", save(tmp_path, **turned))
    assert first.data_sha256 == last.data_sha256
    assert torch.equal(first.load("test").x, last.load("test").x)


def test_grey_images_without_a_channel_axis_have_one_channel(tmp_path: Path) -> None:
    plain = arrays()
    task = open_task("classify", save(tmp_path, x_train=plain["x_train"][..., 0], x_test=plain["x_test"][..., 0]))
    assert task.input_chw == (1, 16, 16)


SHAPES = {  # of one sample as it is stored -> of one input (C, H, W)
    (2, 1, 128): (2, 1, 128), (1, 128, 2): (2, 1, 128), (30, 1, 64): (30, 1, 64), (1, 128): (1, 1, 128), (1, 1, 7): (1, 1, 7),  # signals
    (16, 12, 3): (3, 16, 12), (3, 16, 12): (3, 16, 12), (1, 32, 16): (1, 32, 16), (2, 128, 128): (2, 128, 128), (16, 16): (1, 16, 16),
    (16, 1, 3): (3, 16, 1), (128, 1, 2): (2, 128, 1),  # columns, width 1
}  # fmt: skip


@pytest.mark.parametrize(("stored", "chw"), SHAPES.items())
def test_axes_of_images_and_signals_are_told_apart(tmp_path: Path, stored: tuple[int, ...], chw: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (90, *stored)).astype(np.uint8)
    task = open_task("classify", save(tmp_path, x_train=x[:60], x_test=x[60:]))
    assert task.input_chw == chw
    assert task.size == (f"{chw[1]} px" if chw[1] == chw[2] else f"{chw[1]}x{chw[2]} px")
    assert task.flip == (chw[1] > 1)  # a signal backwards is another one
    axes = next(a for a in ((2, 0, 1), (0, 1, 2)) if len(stored) == 2 or tuple(stored[i] for i in a) == chw)
    assert np.array_equal(task.load("test").x.numpy()[0], x[60].reshape(chw) if len(stored) == 2 else x[60].transpose(axes))


def test_column_and_one_hot_labels_mean_the_same_as_plain_ones(tmp_path: Path) -> None:
    plain = arrays()
    want = open_task("classify", save(tmp_path)).data_sha256
    assert open_task("classify", save(tmp_path, y_train=plain["y_train"][:, None])).data_sha256 == want
    assert open_task("classify", save(tmp_path, y_train=np.eye(3)[plain["y_train"]])).data_sha256 == want


def test_float_images_are_normalised_by_their_own_statistics(tmp_path: Path) -> None:
    plain = arrays()
    task = open_task("classify", save(tmp_path, x_train=plain["x_train"] / 255.0, x_test=plain["x_test"] / 255.0))
    bytes_task = open_task("classify", save(tmp_path))
    assert task.load("train").x.dtype == torch.float32
    # float32 holds n/255 to 3e-8
    assert np.allclose(task.mean, bytes_task.mean, atol=1e-5)
    assert np.allclose(task.std, bytes_task.std, atol=1e-5)


def test_normalised_training_bytes_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    task = open_task("classify", save(tmp_path))
    x = task.normaliser()(task.load("train").x).double()
    # the mean is kept to six digits
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_given_validation_images_are_used(tmp_path: Path) -> None:
    x_valid, y_valid = pixels(12, seed=5)
    task = open_task("classify", save(tmp_path, x_valid=x_valid, y_valid=y_valid))
    assert np.array_equal(task.valid.x, x_valid)
    assert len(task.train) == 60


def test_training_images_that_equal_validation_images_are_left_out_with_a_note(tmp_path: Path) -> None:
    plain = arrays()
    task = open_task("classify", save(tmp_path, x_valid=plain["x_train"][:6], y_valid=plain["y_train"][:6]))
    assert len(task.train) == 54
    assert task.notes == ("6 training images equal a validation image and are left out",)


def test_nan_in_test_pixels_is_only_met_when_test_is_loaded(tmp_path: Path) -> None:
    x_test = arrays()["x_test"].astype(np.float32)
    x_test[3, 0, 0, 0] = np.nan
    task = open_task("classify", save(tmp_path, x_test=x_test))
    with pytest.raises(InvalidData, match=r"x_test .* NaN or infinity in image 3"):
        task.load("test")


def _with_nan() -> Array:
    x = arrays()["x_train"].astype(np.float64)
    x[[7, 9], 0, 0, 0] = np.nan, np.inf
    return x


Y = arrays()["y_train"]
BAD: dict[str, tuple[dict[str, Array], str]] = {
    "NaN and infinity": ({"x_train": _with_nan()}, "NaN or infinity in image 7 and 1 more"),
    "too large for float32": ({"x_train": np.full((60, 8, 8, 3), 1e300)}, "NaN or infinity"),
    "fewer labels": ({"y_train": Y[:-1]}, "60 images in x_train but 59 labels in y_train"),
    "fewer test labels": ({"y_test": arrays()["y_test"][:-2]}, "30 images in x_test but 28 labels"),
    "another test size": ({"x_test": np.zeros((30, 8, 8, 3), np.uint8)}, r"\(16, 16, 3\) in x_train but \(8, 8, 3\) in x_test"),
    "fractional labels": ({"y_train": Y + 0.5}, "whole numbers from 0"),
    "negative labels": ({"y_train": Y - 1}, "whole numbers from 0"),
    "NaN labels": ({"y_train": np.full(60, np.nan)}, "whole numbers from 0"),
    "labels from 1": ({"y_train": Y + 1}, "no image of class 0"),
    "one class": ({"y_train": np.zeros(60, np.int64)}, "one class only"),
    "one image in a class": ({"y_train": np.where(np.arange(60) == 0, 0, 1 + Y % 2)}, "class 0 .* one training image"),
    "unknown test class": ({"y_test": arrays()["y_test"] + 1}, "class 3, but y_train only has classes 0 to 2"),
    "text labels": ({"y_train": np.array(["cat"] * 60)}, "must hold numbers"),
    "text pixels": ({"x_test": np.array(["cat"] * 30)}, "must hold numbers"),
    "soft labels": ({"y_train": np.full((60, 3), 1 / 3)}, "not one-hot"),
    "flat images": ({"x_train": np.zeros((60, 768), np.uint8)}, r"must be \(N, H, W, C\)"),
    "no images": ({"x_train": np.zeros((0, 8, 8, 3), np.uint8)}, "not empty"),
    "pickled objects": ({"y_train": np.array([None] * 60, dtype=object)}, "plain arrays only"),
}


@pytest.mark.parametrize("mistake", sorted(BAD))
def test_bad_array_is_named_with_what_is_wrong(tmp_path: Path, mistake: str) -> None:
    changes, message = BAD[mistake]
    with pytest.raises(InvalidData, match=message):
        open_task("classify", save(tmp_path, **changes))


def test_missing_array_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    plain = arrays()
    np.savez(tmp_path / "a.npz", x_train=plain["x_train"], y_train=plain["y_train"])
    with pytest.raises(InvalidData, match="has no x_test, y_test; it has x_train, y_train"):
        open_task("classify", f"npz:{tmp_path / 'a.npz'}")


def test_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(pickle.dumps({"x_train": 1}))
    with pytest.raises(InvalidData, match="is not an npz file"):
        open_task("classify", f"npz:{tmp_path / 'a.npz'}")


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = Path(save(tmp_path).removeprefix("npz:"))
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InvalidData, match="is not an npz file"):
        open_task("classify", f"npz:{whole}")


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="there is no file"):
        open_task("classify", f"npz:{tmp_path / 'a.npz'}")


def test_image_size_other_than_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="image_size must be 16"):
        open_task("classify", save(tmp_path), image_size=32)


def test_nan_in_the_test_images_is_said_when_the_file_is_opened(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 8, 8, 3)).astype(np.float32)
    y, broken = np.arange(40) % 2, x.copy()
    broken[3] = np.nan
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=broken, y_test=y)
    with pytest.raises(InvalidData, match=r"x_test in .* holds NaN or infinity in image 3"):
        open_task("classify", f"npz:{tmp_path / 'a.npz'}")
