"""What every data set must obey, for those that need no download: photos, digits, and a folder and an npz made here."""

import ast
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import nn

import nas.tasks
from nas.recipe import Recipe
from nas.tasks import DATASETS, TASKS, Task, open_task
from nas.train import fit
from tests.nas.tasks.samples import write_classes, write_npz

SPLITS = ("train", "valid", "test")
DATA = ("photos", "digits", "npz", "folder", "folder with splits")
HELPERS = {"__init__", "dataset", "task"}


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    top = tmp_path_factory.mktemp("data")
    for seed, split in enumerate(SPLITS):
        write_classes(top / "split" / split, 60, seed=seed)
    return {
        "photos": "photos",
        "digits": "digits",
        "npz": f"npz:{write_npz(top / 'set.npz')}",
        "folder": f"folder:{write_classes(top / 'flat', 90, seed=3)}",
        "folder with splits": f"folder:{top / 'split'}",
    }


@pytest.fixture(scope="module", params=DATA)
def spec(request: pytest.FixtureRequest, specs: dict[str, str]) -> str:
    return specs[request.param]


@pytest.fixture(scope="module", params=sorted(TASKS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def task(name: str, spec: str) -> Task:
    return open_task(name, spec)


def tiny(task: Task) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(task.input_chw[0], 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, task.head.outputs))


def test_no_image_is_in_two_splits(task: Task) -> None:
    seen = [{row.numpy().tobytes() for row in task.load(split).x} for split in ("train", "valid", "test")]
    assert [len(a & b) for a, b in combinations(seen, 2)] == [0, 0, 0]


def test_opening_twice_gives_equal_arrays_and_digest(task: Task, name: str, spec: str) -> None:
    again = open_task(name, spec)
    assert again.data_sha256 == task.data_sha256
    for split in ("train", "valid", "test"):
        assert torch.equal(again.load(split).x, task.load(split).x)
        assert torch.equal(again.load(split).y, task.load(split).y)


def test_another_seed_leaves_the_test_split_as_it_is(task: Task, name: str, spec: str) -> None:
    assert torch.equal(open_task(name, spec, seed=1).load("test").x, task.load("test").x)


def test_tensors_have_the_declared_shapes_and_types(task: Task) -> None:
    for split in ("train", "valid", "test"):
        part = task.load(split)
        assert tuple(part.x.shape[1:]) == task.input_chw
        assert part.x.dtype in (torch.uint8, torch.float32)
        assert part.x.is_contiguous(memory_format=torch.channels_last)
        assert part.y.dtype == torch.int64
        assert len(part.x) == len(part.y)


def test_every_class_is_in_every_split(task: Task) -> None:
    for split in ("train", "valid", "test"):
        assert sorted(set(task.load(split).y.tolist())) == list(range(task.head.outputs))


def test_there_is_a_name_for_every_output(task: Task) -> None:
    assert len(task.classes) == len(set(task.classes)) == task.head.outputs


def test_perfect_logits_score_one_and_wrong_ones_zero(task: Task) -> None:
    y = task.load("valid").y
    perfect = nn.functional.one_hot(y, task.head.outputs).float()
    assert (task.score(perfect, y), task.score(-perfect, y)) == (1.0, 0.0)


def test_normalised_training_images_are_near_mean_0_and_deviation_of_order_1(task: Task) -> None:
    x = task.normaliser()(task.load("train").x).double()
    # photos are divided by deviation + 8 per patch: for a deviation of 16 grey levels that is 2/3
    assert x.mean((0, 2, 3)).abs().max() < 1e-3
    assert 0.5 < x.std((0, 2, 3)).min() <= x.std((0, 2, 3)).max() < 1.001


def test_a_tiny_fit_improves_over_chance(name: str, spec: str) -> None:
    task = open_task(name, spec, train_images=400, valid_images=200)
    trained = fit(tiny(task), task, Recipe(epochs=5, batch=16, crop_pixels=1), seed=0, device="cpu")
    assert trained.score > 2 / task.head.outputs


def test_every_file_of_the_folder_is_on_a_menu() -> None:
    folder = Path(nas.tasks.__file__).parent
    used = {loader.__module__.rpartition(".")[2] for loader in (*TASKS.values(), *DATASETS.values())}
    forgotten = sorted({path.stem for path in folder.glob("*.py")} - used - HELPERS)
    assert not forgotten, f"add to nas/tasks/__init__.py: {', '.join(f'{n!r}: {n}.load' for n in forgotten)}"


def test_no_module_imports_torch_before_it_is_needed() -> None:
    for path in Path(nas.tasks.__file__).parent.glob("*.py"):
        imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
        assert not {n.partition(".")[0] for n in names} & {"torch", "torchvision", "sklearn", "skimage", "PIL"}, path
