"""CIFAR-10 and Imagenette in torchvision's layouts, written small by the tests; and being offline."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, Imagenette

from nas.errors import InvalidConfig, InvalidData
from nas.tasks import open_task
from tests.nas.tasks.samples import write_classes


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five batches of 20 and one of 20, in the original pickled layout, their checksums made known to torchvision."""
    top = root / CIFAR10.base_folder
    top.mkdir(parents=True)
    rows: dict[str, list[list[str]]] = {"train": [], "test": []}
    for i, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        x = np.random.default_rng(i).integers(0, 256, (20, 3 * 32 * 32), dtype=np.uint8)
        content = pickle.dumps({"data": x, "labels": [(k + i) % 10 for k in range(20)]})
        (top / name).write_bytes(content)
        rows["test" if name == "test_batch" else "train"].append([name, hashlib.md5(content).hexdigest()])
    names = pickle.dumps({"label_names": [f"class{k}" for k in range(10)]})
    (top / "batches.meta").write_bytes(names)
    monkeypatch.setattr(CIFAR10, "train_list", rows["train"])
    monkeypatch.setattr(CIFAR10, "test_list", rows["test"])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": hashlib.md5(names).hexdigest()})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_cifar10_takes_its_last_tenth_for_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    task = open_task("classify", "cifar10", root=tmp_path)
    last = np.random.default_rng(4).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)[10:]
    assert np.array_equal(task.load("valid").x.numpy(), last)
    assert (len(task.train), len(task.load("test"))) == (90, 20)
    assert task.classes[3] == "class3"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("data", ["cifar10", "cifar100", "imagenette"])
def test_offline_is_one_sentence_that_says_what_to_do(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidData, match=f"{data} is not .* could not be downloaded: .*; go online, .* --data photos") as caught:
        open_task("classify", data, root=tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_imagenettes_own_val_split_is_test(tmp_path: Path) -> None:
    ids = {"blue": "n01440764", "green": "n02102040", "red": "n02979186"}
    for seed, (split, count) in enumerate({"train": 60, "val": 12}.items()):
        top = write_classes(tmp_path / "imagenette2-160" / split, count, seed=seed)
        for colour, wnid in ids.items():
            (top / colour).rename(top / wnid)
            for path in (top / wnid).glob("*.png"):
                path.rename(path.with_suffix(".JPEG"))
    task = open_task("classify", "imagenette", root=tmp_path)
    assert task.classes == tuple(Imagenette._WNID_TO_CLASS[wnid][0] for wnid in ids.values())
    assert (len(task.train), len(task.valid), len(task.load("test"))) == (54, 6, 12)
    assert task.input_chw == (3, 64, 64)


def test_cifar10_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="image_size must be 32 for 'cifar10', got 64"):
        open_task("classify", "cifar10", image_size=64, root=tmp_path)
