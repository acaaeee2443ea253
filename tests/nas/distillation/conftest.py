import pytest
import torch

from nas.distillation.lesson import TeacherSpec
from nas.distillation.teachers import resolve
from nas.models.reference import reference
from nas.tasks import Task, open_task
from nas.weights import save
from search_spaces import Architecture, baseline
from tests.nas.tasks.samples import write_npz


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path_factory.mktemp('data') / 'a.npz', train=160)}")


@pytest.fixture(scope="module")
def spec(task: Task, tmp_path_factory: pytest.TempPathFactory) -> TeacherSpec:
    path = tmp_path_factory.mktemp("teacher") / "t.safetensors"
    save(reference("resnet20", outputs=3, generator=torch.Generator().manual_seed(0)).state_dict(), path)
    return resolve(f"file:{path}", task, arch="resnet20", norm="imagenet")


@pytest.fixture(scope="module")
def arch(task: Task) -> Architecture:
    return baseline("mobilenet_v3_small_minimal", width=0.1, input_chw=task.input_chw, outputs=3)
