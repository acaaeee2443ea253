"""torchvision's networks read without unpickling, held against torchvision's own way to open them."""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models._api import WeightsEnum

from nas.models.torchvision_weights import fresh_network, published_network, published_weights
from nas.weights import InvalidWeights
from tests.nas.hubs import empty_hub, publish, publish_pickle

TESTED = [name for name in models.list_models(module=models) if not name.startswith("regnet")]  # which need numbers to be laid out


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_hub(tmp_path, monkeypatch)


def drawn(name: str, **arguments: Any) -> nn.Module:  # Any: of torchvision's builders
    """torchvision's own network with weights that are none of its file's."""
    torch.manual_seed(0)
    network: nn.Module = models.get_model(name, weights=None, **arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return network


def logits(network: nn.Module, size: int) -> Tensor:
    with torch.no_grad():
        found: Tensor = network.eval()(torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)))
    return found


@pytest.mark.parametrize(
    ("name", "size"), [("squeezenet1_1", 64), ("mnasnet0_5", 32), ("googlenet", 32), ("inception_v3", 75), ("densenet121", 32)]
)
def test_network_computes_what_torchvisions_own_does(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    more = {"aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    torch.save(drawn(name, **more).state_dict(), tmp_path / "w.pth")
    publish(tmp_path / "w.pth", hub, monkeypatch)
    theirs = models.get_model(name, weights="DEFAULT")  # of the same file, which is sound
    assert torch.equal(logits(published_network(name), size), logits(theirs, size))


@pytest.mark.parametrize("name", TESTED)
def test_network_is_laid_out_as_torchvisions_with_weights(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
    with torch.device("meta"):
        ours, theirs = fresh_network(name), models.get_model(name, weights="DEFAULT")
    given = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert {k: t.shape for k, t in ours.state_dict().items() if name != "googlenet" or not k.startswith("aux")} == given
    assert [vars(ours).get(flag) for flag in ("transform_input", "image_size")] == [
        vars(theirs).get(flag) for flag in ("transform_input", "image_size")
    ]


def test_densenets_file_of_an_older_format_is_read(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = drawn("densenet121")
    state = network.state_dict()
    old = OrderedDict((re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key), tensor) for key, tensor in state.items())
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "w.pth")
    publish(tmp_path / "w.pth", hub, monkeypatch)
    assert torch.equal(logits(published_network("densenet121"), 32), logits(network, 32))


def test_pickled_file_runs_no_code_and_is_refused_in_a_line(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = publish_pickle(tmp_path, hub, monkeypatch)
    with pytest.raises(InvalidWeights, match=r"^.*could run code.*$"):
        published_network("squeezenet1_1")
    assert not marker.exists()


def test_file_whose_hash_is_not_that_of_its_name_is_refused(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(drawn("squeezenet1_1").state_dict(), tmp_path / "w.pth")
    path = publish(tmp_path / "w.pth", hub, monkeypatch)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidWeights, match=rf"{path.name}: damaged in the cache"):
        published_weights("squeezenet1_1")


def test_file_of_another_network_is_refused_in_a_line(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(drawn("squeezenet1_0").state_dict(), tmp_path / "w.pth")
    publish(tmp_path / "w.pth", hub, monkeypatch)
    with pytest.raises(InvalidWeights, match=r"^.*holds no squeezenet1_1: [^\n]*$"):
        published_network("squeezenet1_1")


@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("invalid hash value"), ConnectionResetError()])
def test_download_that_fails_says_where_to_put_the_file(hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def offline(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InvalidWeights, match=rf"put https://\S+/squeezenet1_1-b8a52dc0.pth into {hub}"):
        published_weights("squeezenet1_1")
