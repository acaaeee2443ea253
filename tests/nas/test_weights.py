"""Weights files: round trip, atomicity, refusal of broken ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from nas.weights import InvalidWeights, load, numpy_weights, save, state_sha256
from tests.nas.models.networks import network, single


def test_a_state_dict_comes_back_equal(tmp_path: Path) -> None:
    state = network(single("mbconv", se_ch=3)).state_dict()
    save(state, tmp_path / "a.safetensors")
    found = load(tmp_path / "a.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_views_and_channels_last_tensors_are_written_by_value(tmp_path: Path) -> None:
    bank = torch.randn(8, 8, 3, 3)
    state = {"view": bank[:4, :2], "twin": bank, "last": bank.to(memory_format=torch.channels_last)}
    save(state, tmp_path / "a.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in load(tmp_path / "a.safetensors").items())


def test_metadata_is_kept(tmp_path: Path) -> None:
    save({"x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"arch": "abc"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"arch": "abc"}


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save({"x": torch.zeros(1)}, tmp_path / "a.safetensors")

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        save({"x": torch.ones(1)}, tmp_path / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert load(tmp_path / "a.safetensors")["x"].item() == 0


@pytest.mark.parametrize("content", [b"", b"not a file", b"\xff" * 100], ids=["empty", "text", "garbage"])
def test_a_corrupt_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(InvalidWeights, match=r"a\.safetensors: not a readable safetensors file"):
        load(tmp_path / "a.safetensors")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save({"x": torch.zeros(100)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-7])
    with pytest.raises(InvalidWeights):
        load(tmp_path / "a.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="nowhere"):
        load(tmp_path / "nowhere.safetensors")


def test_numpy_weights_do_not_share_memory_with_the_module() -> None:
    module = network(single())
    arrays = numpy_weights(module)
    before = arrays["head.out.bias"].copy()
    torch.nn.init.constant_(module.get_parameter("head.out.bias"), 9.0)
    np.testing.assert_array_equal(arrays["head.out.bias"], before)


def test_hash_of_a_state_is_of_what_its_tensors_hold() -> None:
    state = {"a": torch.arange(36.0).view(1, 4, 3, 3), "steps": torch.tensor(3)}
    elsewhere = {"steps": torch.tensor(3), "a": state["a"].to(memory_format=torch.channels_last)}
    assert state_sha256(elsewhere) == state_sha256(state)


@pytest.mark.parametrize("other", [{"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4).int()}, {"a": -torch.zeros(4)}])
def test_hash_of_another_state_is_another(other: dict[str, torch.Tensor]) -> None:
    assert state_sha256(other) != state_sha256({"a": torch.zeros(4)})
