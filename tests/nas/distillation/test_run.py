"""What a search that will distil asks of its teacher before it begins."""

from io import StringIO
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latency.console import open_console
from nas.distillation.run import Request, refuse_unteachable
from nas.errors import InvalidTeacher
from nas.models.reference import reference
from nas.tasks import Task, open_task
from nas.weights import save
from tests.nas.tasks.samples import write_npz


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path_factory.mktemp('data') / 'a.npz')}")


def state(**changed: float) -> dict[str, Tensor]:
    """A network's weights, some tensors of which have one value everywhere."""
    found = reference("resnet20", outputs=3, generator=torch.Generator().manual_seed(0)).state_dict()
    return {k: torch.full_like(t, changed[name]) if (name := k.replace(".", "_")) in changed else t for k, t in found.items()}


def asked(task: Task, folder: Path, weights: dict[str, Tensor]) -> str:
    """What is told of a teacher with these weights."""
    save(weights, folder / "t.safetensors")
    request = Request(losses=("kd",), teacher=f"file:{folder / 't.safetensors'}", teacher_arch="resnet20", settings={}, sweep={})
    said = StringIO()
    refuse_unteachable(request, task, open_console(err=said))
    return said.getvalue()


def test_teacher_whose_outputs_are_not_finite_cannot_teach(task: Task, tmp_path: Path) -> None:
    with pytest.raises(InvalidTeacher, match="not finite"):
        asked(task, tmp_path, state(bn1_running_var=-1.0))


def test_teacher_that_guesses_is_warned_about(task: Task, tmp_path: Path) -> None:
    said = asked(task, tmp_path, state(linear_weight=0.0, linear_bias=0.0))
    assert "scores 0.3" in said
    assert "and guessing 0.333: are its classes in this order" in said
