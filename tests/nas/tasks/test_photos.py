import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nas.errors import InvalidConfig
from nas.tasks import open_task, photos
from nas.tasks.dataset import Request


@pytest.mark.parametrize(("split", "count"), [("train", 5000), ("valid", 1000), ("test", 1500)])
def test_splits_have_the_published_sizes_with_balanced_classes(split: str, count: int) -> None:
    data = photos.load(Request(name="photos"))
    part = {"train": data.train, "valid": data.valid, "test": data.test()}[split]
    assert np.bincount(part.y).tolist() == [count // 10] * 10


def test_patches_have_no_channel_means_and_a_deviation_of_sd_over_sd_plus_8() -> None:
    x = photos.load(Request(name="photos", train_images=100)).train.x.astype(np.float64)
    assert np.abs(x.mean((1, 2))).max() < 1e-5
    assert x.std((1, 2, 3)).max() < 1


def test_a_patch_equals_the_photograph_at_one_place_within_its_band() -> None:
    data = photos.load(Request(name="photos", train_images=10))
    path = photos.photographs()["chelsea"]
    assert path is not None
    photo = np.asarray(Image.open(path).convert("RGB")).astype(np.float32)
    label = data.classes.index("chelsea")
    for part, bands in ((data.train, photos.TRAIN_BANDS), (data.valid, (4,)), (data.test(), (2, 6))):
        patch = part.x[part.y == label][0]
        assert any(_holds(photo[:, 451 * b // 8 : 451 * (b + 1) // 8], patch) for b in bands)


def _holds(band: NDArray[np.float32], patch: NDArray[np.float32]) -> bool:
    """Whether the patch, made by the recipe written out again, is at some place of the band."""
    windows = np.lib.stride_tricks.sliding_window_view(band, (32, 32), (0, 1))  # (rows, columns, 3, 32, 32)
    for row in windows:
        centred = row - row.mean((2, 3), keepdims=True)
        made = centred / (centred.std((1, 2, 3), keepdims=True) + 8)
        # float32 sums of 3,072 terms in another order
        if np.abs(made - patch.transpose(2, 0, 1)).max((1, 2, 3)).min() < 1e-4:
            return True
    return False


def test_bands_of_the_splits_do_not_overlap() -> None:
    assert sorted((*photos.TRAIN_BANDS, *photos.VALID_BANDS, *photos.TEST_BANDS)) == list(range(photos.BANDS))


def test_more_patches_are_drawn_when_asked_for() -> None:
    assert len(open_task("classify", "photos", train_images=5100).train) == 5100


def test_missing_photograph_falls_back_to_digits_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photos.FILES, "retina", "no_such_file.jpg")
    task = open_task("classify", "photos")
    assert task.input_chw == (1, 16, 16)
    assert "retina" in task.notes[0]
    assert "digits" in task.notes[0]


def test_patch_wider_than_a_band_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="image_size must be 8 to 56"):
        open_task("classify", "photos", image_size=64)
