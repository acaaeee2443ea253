"""torchvision's downloaded weights as the beginning of a refinement."""

from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v3_small

from nas.refinement.seeds import named_seed
from nas.tasks import Task, open_task
from nas.weights import InvalidWeights
from tests.nas.hubs import empty_hub, publish, publish_pickle
from tests.nas.tasks.samples import write_npz


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path / 'a.npz')}")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_hub(tmp_path, monkeypatch)


def test_downloaded_weights_are_the_seeds(task: Task, tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = mobilenet_v3_small(weights=None).state_dict()
    torch.save(theirs, tmp_path / "w.pth")
    publish(tmp_path / "w.pth", hub, monkeypatch)
    seed = named_seed("torchvision:mobilenet_v3_small", task)
    assert seed.state is not None
    assert torch.equal(seed.state["blocks.0.conv.conv.weight"], theirs["features.0.0.weight"])


def test_pickled_download_runs_no_code_and_names_the_other_way(
    task: Task, tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = publish_pickle(tmp_path, hub, monkeypatch)
    with pytest.raises(InvalidWeights, match=r"could run code.*; or say torchvision:mobilenet_v3_small:FILE$"):
        named_seed("torchvision:mobilenet_v3_small", task)
    assert not marker.exists()
