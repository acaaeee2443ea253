"""timm's networks as teachers, by a small stand-in for timm that behaves as version 1.0 does."""

import sys
from fnmatch import fnmatch
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from nas.distillation.teachers import open_teacher, resolve
from nas.errors import InvalidTeacher, UnknownName
from nas.tasks import Task, open_task
from tests.nas.tasks.samples import write_npz

FIGURES = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "input_size": (3, 20, 20)}
CONFIGS = {
    "tiny": SimpleNamespace(**FIGURES, num_classes=3, has_weights="a.pth"),
    "tiny.a": SimpleNamespace(**FIGURES, num_classes=3, has_weights="a.pth"),
    "tiny.many": SimpleNamespace(**FIGURES, num_classes=1000, has_weights="many.pth"),
    "tiny.bare": SimpleNamespace(**FIGURES, num_classes=3, has_weights=None),
}


class Timm(ModuleType):
    """What of timm is asked for; ``error`` is raised by a download."""

    def __init__(self) -> None:
        super().__init__("timm")
        self.error: Exception | None = None
        self.seed = 0

    def is_model(self, name: str) -> bool:
        return name.partition(".")[0] in ("tiny", "unregistered")

    def get_pretrained_cfg(self, name: str) -> SimpleNamespace | None:
        if name.startswith("tiny") and name not in CONFIGS:
            raise RuntimeError(f"Invalid pretrained tag ({name.partition('.')[2]}) for tiny.")
        return CONFIGS.get(name)

    def list_models(self, pattern: str, *, pretrained: bool) -> list[str]:
        return [n for n, config in CONFIGS.items() if fnmatch(n, pattern) and (config.has_weights or not pretrained)]

    def create_model(self, name: str, *, pretrained: bool) -> nn.Module:
        if self.error:
            raise self.error
        torch.manual_seed(self.seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Timm:
    found = Timm()
    monkeypatch.setitem(sys.modules, "timm", found)
    return found


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path_factory.mktemp('data') / 'a.npz')}")


def test_network_is_fed_as_its_configuration_says(timm: Timm, task: Task) -> None:
    teacher = open_teacher(resolve("timm:tiny.a", task), task)
    assert (teacher.spec.mean, teacher.spec.std, teacher.spec.image_hw) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), (20, 20))
    assert teacher.logits(task.normaliser()(task.load("valid").x)).shape == (len(task.valid), 3)


def test_hash_is_of_the_weights(timm: Timm, task: Task) -> None:
    first, again = (resolve("timm:tiny", task).sha256 for _ in range(2))
    timm.seed = 1
    assert first == again != resolve("timm:tiny", task).sha256


def test_unknown_network_is_named_with_the_nearest(timm: Timm, task: Task) -> None:
    with pytest.raises(UnknownName, match="unknown timm network 'tinyy'; did you mean 'tiny'"):
        resolve("timm:tinyy", task)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tiny.zzz", r"^timm:tiny\.zzz: Invalid pretrained tag \(zzz\) for tiny\. \(with weights: tiny, tiny\.a, tiny\.many\)$"),
        ("tiny.bare", r"^timm:tiny\.bare has no pretrained weights \(with weights: tiny, tiny\.a, tiny\.many\)$"),
        ("unregistered", "^timm:unregistered has no pretrained weights$"),
        ("tiny.many", "knows 1000 classes and .* has 3"),
    ],
)
def test_network_that_cannot_teach_is_refused_in_a_line(timm: Timm, task: Task, name: str, says: str) -> None:
    with pytest.raises(InvalidTeacher, match=says):
        resolve(f"timm:{name}", task)


@pytest.mark.parametrize(
    "error", [OSError("no network"), RuntimeError("size mismatch\n for fc"), ValueError("no network"), KeyError("fc"), AssertionError()]
)
def test_weights_that_cannot_be_had_are_an_error_of_the_teacher(timm: Timm, task: Task, error: Exception) -> None:
    timm.error = error
    with pytest.raises(InvalidTeacher, match=r"^timm:tiny: its weights could not be fetched, or are damaged in the cache [^\n]*$"):
        resolve("timm:tiny", task)


def test_timm_is_optional_and_says_how_to_get_it(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InvalidTeacher, match="pip install"):
        resolve("timm:resnet18", task)
