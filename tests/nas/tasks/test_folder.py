from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.errors import InvalidData
from nas.tasks import Task, open_task
from tests.nas.tasks.samples import COLOURS, write_classes


def opened(top: Path, *, image_size: int | None = None) -> Task:
    return open_task("classify", f"folder:{top}", image_size=image_size)


def image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_class_folders_alone_are_split_70_10_20(tmp_path: Path) -> None:
    task = opened(write_classes(tmp_path, 150, seed=0))
    # a fifth of 150 is test, a tenth of the remaining 120 validation
    assert (len(task.train), len(task.valid), len(task.load("test"))) == (108, 12, 30)


def test_classes_are_the_folder_names_in_order(tmp_path: Path) -> None:
    assert opened(write_classes(tmp_path, 30, seed=0)).classes == tuple(sorted(COLOURS))


@pytest.mark.parametrize("valid", ["val", "valid", "Validation"])
def test_given_splits_are_used_under_any_usual_name(tmp_path: Path, valid: str) -> None:
    for seed, (name, count) in enumerate({"train": 30, valid: 9, "test": 12}.items()):
        write_classes(tmp_path / name, count, seed=seed)
    task = opened(tmp_path)
    assert (len(task.train), len(task.valid), len(task.load("test"))) == (30, 9, 12)


def test_missing_validation_split_is_taken_from_train_alone(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 60, seed=0)
    write_classes(tmp_path / "test", 12, seed=1)
    task = opened(tmp_path)
    assert (len(task.train), len(task.valid), len(task.load("test"))) == (54, 6, 12)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for kind, shade in (("train", 0), ("bus", 100)):
        for i in range(5):
            image(tmp_path / kind / f"{i}.png", (shade, i, 0))
    assert opened(tmp_path).classes == ("bus", "train")


def test_short_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        for i in range(5):
            stripes = np.zeros((32, 96, 3), np.uint8)
            stripes[:, :32, 0], stripes[:, 32:64, 1], stripes[:, 64:, 2] = 200, 200 + i + 10 * (kind == "b"), 200
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(stripes).save(tmp_path / kind / f"{i}.png")
    task = opened(tmp_path, image_size=16)
    assert task.input_chw == (3, 16, 16)
    # red, green, blue, 32 pixels wide each: the centre square is the green stripe (bicubic reaches one pixel over)
    assert task.train.x[:, :, 2:-2].max((0, 1, 2)).tolist()[::2] == [0, 0]
    assert task.train.x[:, :, 2:-2, 1].min() >= 200


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for i, mode in enumerate(("L", "P", "RGBA", "LA", "1", "CMYK", "I;16")):
            shade = Image.new("L", (20, 20), 40 * i + ord(kind) % 2)
            suffix = "tif" if mode == "CMYK" else "png"
            (shade.convert("I").convert(mode) if mode == "I;16" else shade.convert(mode)).save(tmp_path / kind / f"{i}.{suffix}")
    assert opened(tmp_path).input_chw == (3, 64, 64)


def test_order_does_not_depend_on_how_files_were_written(tmp_path: Path) -> None:
    write_classes(tmp_path / "one", 60, seed=0)
    for path in sorted((tmp_path / "one").rglob("*.png"), reverse=True):
        copy = tmp_path / "two" / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert opened(tmp_path / "one").data_sha256 == opened(tmp_path / "two").data_sha256


def test_copies_across_splits_are_used_once_in_test(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 60, seed=0)
    write_classes(tmp_path / "test", 12, seed=0)
    task = opened(tmp_path)
    assert len(task.train) + len(task.valid) == 48
    assert task.notes == ("12 image files are copies of others and are left out",)


def test_unreadable_images_are_named_three_at_most(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 30, seed=0)
    write_classes(tmp_path / "test", 12, seed=1)
    for i in range(5):
        (tmp_path / "train" / "red" / f"broken{i}.jpg").write_bytes(b"not an image" + bytes([i]))
    with pytest.raises(InvalidData, match=r"unreadable images: .*broken.*, .*broken.*, .*broken.*(jpg| more); repair"):
        opened(tmp_path)


def test_truncated_image_is_unreadable(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 30, seed=0)
    whole = next((tmp_path / "train" / "red").glob("*.png"))
    (tmp_path / "train" / "red" / "half.png").write_bytes(whole.read_bytes()[:-400])
    write_classes(tmp_path / "valid", 9, seed=1)
    write_classes(tmp_path / "test", 9, seed=2)
    with pytest.raises(InvalidData, match=r"half\.png"):
        opened(tmp_path)


def test_test_file_that_is_no_image_is_met_before_the_search(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 30, seed=0)
    write_classes(tmp_path / "test", 12, seed=1)
    (tmp_path / "test" / "red" / "notes.png").write_text("not an image")
    with pytest.raises(InvalidData, match=r"notes\.png"):
        opened(tmp_path)


def test_class_without_images_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, 30, seed=0)
    (tmp_path / "yellow").mkdir()
    with pytest.raises(InvalidData, match=r"no images .* of class 'yellow'"):
        opened(tmp_path)


def test_class_missing_from_one_split_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 30, seed=0)
    image(tmp_path / "test" / "red" / "0.png", (255, 0, 0))
    with pytest.raises(InvalidData, match=r"class 'blue', 'green' in .*test"):
        opened(tmp_path)


def test_class_that_only_test_has_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 30, seed=0)
    write_classes(tmp_path / "test", 9, seed=1)
    image(tmp_path / "test" / "yellow" / "0.png", (255, 255, 0))
    with pytest.raises(InvalidData, match="'yellow', which the training split does not have"):
        opened(tmp_path)


def test_class_too_small_to_split_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, 30, seed=0)
    image(tmp_path / "yellow" / "0.png", (255, 255, 0))
    with pytest.raises(InvalidData, match="'yellow' has 1 different training images, but its splits need at least 3"):
        opened(tmp_path)


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"there is no folder .*nowhere"):
        opened(tmp_path / "nowhere")


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="has no sub-folders"):
        opened(tmp_path)


def test_one_class_is_refused(tmp_path: Path) -> None:
    image(tmp_path / "red" / "0.png", (255, 0, 0))
    with pytest.raises(InvalidData, match="needs at least two class sub-folders, got red"):
        opened(tmp_path)


def test_split_folders_without_train_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "test", 12, seed=0)
    with pytest.raises(InvalidData, match="needs one train folder"):
        opened(tmp_path)


def test_split_folders_beside_another_folder_are_refused(tmp_path: Path) -> None:
    for split in ("train", "test", "unlabeled"):
        (tmp_path / split / "a").mkdir(parents=True)
    with pytest.raises(InvalidData, match="holds splits and also 'unlabeled'"):
        open_task("classify", f"folder:{tmp_path}")
