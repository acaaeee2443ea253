import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latency.console import open_console
from nas.distillation.lesson import TeacherSpec
from nas.distillation.teachers import NORMS, Teacher
from nas.distillation.worth import compare_with_students
from nas.store import Candidate
from nas.tasks import Task, open_task
from nas.tasks.dataset import Images
from search_spaces import baseline
from tests.nas.tasks.samples import write_npz


class Colours(nn.Module):
    """Knows the classes by the channel that is brightest: they are blue, green and red."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).flip(1)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Of 40 validation images every fourth, the first among them, has another label than its colour's."""
    found = open_task("classify", f"npz:{write_npz(tmp_path_factory.mktemp('data') / 'a.npz', train=420)}")
    valid = found.valid.at(np.arange(40))
    y = np.where(np.arange(40) % 4 == 0, (valid.y + 1) % 3, valid.y)
    return dataclasses.replace(found, valid=Images(x=valid.x, y=y))


def teacher(module: nn.Module, **changed: object) -> Teacher:
    spec = TeacherSpec(name="colours", net="", **changed)  # type: ignore[arg-type]  # its fields
    return Teacher(spec=spec, module=module, scale=torch.ones(1, 3, 1, 1), shift=torch.zeros(1, 3, 1, 1))


def student(task: Task, score: float) -> Candidate:
    arch = baseline("mobilenet_v3_small_minimal", width=0.1, input_chw=task.input_chw, outputs=3)
    return Candidate(stage="final", status="trained", arch=arch, seed=0, score=score)


def said(task: Task, score: float, capsys: pytest.CaptureFixture[str], most: int = 1000, **changed: object) -> str:
    compare_with_students(teacher(Colours(), **changed), [student(task, score)], task, open_console(), most=most)
    return capsys.readouterr().err


def test_teacher_no_better_than_a_student_is_warned_about(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no better than 1 of 1 students" in said(task, 0.75, capsys)
    assert "no better than" not in said(task, 0.74, capsys)


def test_few_images_that_leave_it_open_are_followed_by_all_of_them(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    # every other image: half of those are mislabelled, 0.5 with a standard error of 0.11; on all of them it scores 0.75
    story = said(task, 0.7, capsys, most=20)
    assert "0.750 on 40 validation images" in story
    assert "no better than" not in story


def test_few_images_are_enough_where_the_students_are_far_off(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0.500 on 20 validation images" in said(task, 0.1, capsys, most=20)


def test_teacher_that_is_never_wrong_is_suspected_of_having_seen_the_images(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    assert "was it trained on these images?" not in said(task, 0.1, capsys)
    right = dataclasses.replace(task, valid=task.train)
    assert "was it trained on these images?" in said(right, 0.1, capsys)


def test_teacher_that_guesses_is_asked_for_the_order_of_its_classes(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    other = dataclasses.replace(task, valid=Images(x=task.valid.x, y=(task.valid.y + 1) % 3))
    assert "are its classes in this order" in said(other, 0.1, capsys)
    assert "are its classes in this order" not in said(task, 0.1, capsys)


def test_normalisation_is_said(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    mean, std = NORMS["cifar10"]
    assert "normalisation task, " in said(task, 0.1, capsys)
    assert "normalisation cifar10, " in said(task, 0.1, capsys, mean=mean, std=std)
    assert "normalisation own, " in said(task, 0.1, capsys, mean=(0.1, 0.2, 0.3), std=std)
