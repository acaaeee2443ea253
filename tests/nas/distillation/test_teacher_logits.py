from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas.distillation.teacher_logits import AskedLogits, StoredLogits
from nas.distillation.teachers import Teacher, open_teacher, resolve
from nas.distillation.teaching import TaughtByTeacher, TeacherLogits, Weights
from nas.losses import KD
from nas.models.reference import reference
from nas.recipe import Recipe
from nas.tasks import Task, open_task
from nas.train import fit
from nas.weights import load, save
from tests.nas.tasks.samples import write_npz

RECIPE = Recipe(epochs=2, batch=16, lr=0.05, crop_pixels=2, cutout_pixels=4, flip=True, amp="off")
STEPS = 2 * (144 // 16)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path_factory.mktemp('data') / 'a.npz', train=160)}")


class Counting(nn.Module):
    """A teacher that counts how often it is asked."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.asked = network, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        logits: Tensor = self.network(x)
        return logits


def teacher(task: Task, folder: Path, seed: int = 0) -> tuple[Teacher, Counting]:
    save(reference("resnet20", outputs=3, generator=torch.Generator().manual_seed(seed)).state_dict(), folder / f"t{seed}.safetensors")
    opened = open_teacher(resolve(f"file:{folder / f't{seed}.safetensors'}", task, arch="resnet20", norm="imagenet"), task)
    counting = Counting(opened.module)
    return Teacher(spec=opened.spec, module=counting, scale=opened.scale, shift=opened.shift), counting


def trained(task: Task, logits: TeacherLogits, *, seed: int = 7, classes: int = 3) -> Tensor:
    """The weights of a small student that this teacher taught."""
    torch.manual_seed(1)
    student = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))
    fit(student, task, RECIPE, seed=seed, device="cpu", lesson=TaughtByTeacher("kd", KD(), logits, Weights()))
    return torch.cat([p.detach().flatten() for p in student.parameters()])


def test_kept_outputs_give_the_weights_of_a_teacher_that_is_asked(task: Task, tmp_path: Path) -> None:
    opened, counting = teacher(task, tmp_path)
    asked = trained(task, AskedLogits(opened))
    writing = trained(task, StoredLogits(opened, tmp_path / "kept", "views", 3))
    counting.asked = 0
    reading = trained(task, StoredLogits(opened, tmp_path / "kept", "views", 3))
    assert torch.equal(asked, writing)
    assert torch.equal(asked, reading)
    assert counting.asked == 1  # the first step's check


def test_story_says_what_was_saved(task: Task, tmp_path: Path) -> None:
    opened, _ = teacher(task, tmp_path)
    first, second = (StoredLogits(opened, tmp_path / "kept", "views", 3) for _ in range(2))
    trained(task, first)
    trained(task, second)
    assert "kept for further trainings" in first.story
    assert "read from disk, which saved" in second.story


def test_outputs_for_other_views_are_noticed_and_made_anew(task: Task, tmp_path: Path) -> None:
    opened, counting = teacher(task, tmp_path)
    trained(task, StoredLogits(opened, tmp_path / "kept", "views", 3), seed=7)
    counting.asked = 0
    # another seed sees other images; its key would say so, were it not for this test
    wrong = trained(task, StoredLogits(opened, tmp_path / "kept", "views", 3), seed=8)
    assert counting.asked == STEPS + 1
    assert torch.equal(wrong, trained(task, AskedLogits(opened), seed=8))


def test_another_teachers_outputs_are_noticed(task: Task, tmp_path: Path) -> None:
    one, _ = teacher(task, tmp_path)
    two, _ = teacher(task, tmp_path, seed=1)
    trained(task, StoredLogits(one, tmp_path / "kept", "views", 3))
    assert torch.equal(trained(task, StoredLogits(two, tmp_path / "kept", "views", 3)), trained(task, AskedLogits(two)))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_damaged_file_is_made_anew(task: Task, tmp_path: Path, content: bytes) -> None:
    opened, counting = teacher(task, tmp_path)
    trained(task, StoredLogits(opened, tmp_path / "kept", "views", 3))
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(content)
    counting.asked = 0
    trained(task, StoredLogits(opened, tmp_path / "kept", "views", 3))
    assert counting.asked == STEPS
    assert load(path)["logits"].shape == (STEPS, 16, 3)


def test_training_that_was_cut_short_keeps_nothing(task: Task, tmp_path: Path) -> None:
    opened, _ = teacher(task, tmp_path)
    student = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    lesson = TaughtByTeacher("kd", KD(), StoredLogits(opened, tmp_path / "kept", "views", 3), Weights())
    fit(student, task, RECIPE, seed=0, device="cpu", lesson=lesson, on_epoch=lambda e: e.number == 1)
    assert not (tmp_path / "kept").exists()


def test_outputs_too_large_to_keep_are_asked_each_time(task: Task, tmp_path: Path) -> None:
    opened, _ = teacher(task, tmp_path)
    logits = StoredLogits(opened, tmp_path / "kept", "views", 3)
    logits.prepare(torch.device("cpu"), precision="fp32", steps=10_000_000, batch=64)
    assert "are not kept" in logits.story


def test_folder_that_cannot_be_written_costs_no_training(task: Task, tmp_path: Path) -> None:
    opened, _ = teacher(task, tmp_path)
    (tmp_path / "kept").write_text("a file is in the way")
    logits = StoredLogits(opened, tmp_path / "kept", "views", 3)
    trained(task, logits)
    assert "could not be kept" in logits.story
