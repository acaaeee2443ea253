import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas.distillation.teacher_files import load_into
from nas.errors import InvalidTeacher
from nas.models.reference import reference
from nas.weights import InvalidWeights, read_state, save


def state(outputs: int = 4) -> dict[str, Tensor]:
    return reference("resnet20", outputs=outputs, generator=torch.Generator().manual_seed(0)).state_dict()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save(state(), tmp_path / "w.safetensors")
    assert equal(read_state(tmp_path / "w.safetensors"), state())


@pytest.mark.parametrize("wrapped", ["", "state_dict", "model"])
def test_torch_checkpoints_are_read_with_or_without_a_wrapper(tmp_path: Path, wrapped: str) -> None:
    torch.save({wrapped: state(), "best": 91.7} if wrapped else state(), tmp_path / "w.th")
    assert equal(read_state(tmp_path / "w.th"), state())


def test_names_that_data_parallel_prefixed_are_bared(tmp_path: Path) -> None:
    torch.save({f"module.{k}": v for k, v in state().items()}, tmp_path / "w.pt")
    assert equal(read_state(tmp_path / "w.pt"), state())


@pytest.mark.parametrize("content", ["evil", "module"])
def test_pickled_objects_are_refused_and_never_run(tmp_path: Path, content: str) -> None:
    marker = tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    path = tmp_path / "w.pth"
    if content == "evil":
        path.write_bytes(pickle.dumps({"weight": Touch()}))
    else:
        torch.save(nn.Linear(2, 2), path)
    with pytest.raises(InvalidWeights, match="could run code"):
        read_state(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_file_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    whole = tmp_path / name
    if name.endswith("pth"):
        torch.save(state(), whole)
    else:
        save(state(), whole)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InvalidWeights, match=name):
        read_state(whole)


def test_pickle_behind_the_name_of_safetensors_is_refused(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.safetensors")
    with pytest.raises(InvalidWeights, match="not a readable safetensors file"):
        read_state(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["none.safetensors", "none.pth"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidWeights, match=name):
        read_state(tmp_path / name)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = {k: torch.full_like(v, torch.nan) if k == "linear.bias" else v for k, v in state().items()}
    save(broken, tmp_path / "w.safetensors")
    with pytest.raises(InvalidWeights, match=r"linear\.bias is not finite"):
        read_state(tmp_path / "w.safetensors")


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(InvalidWeights, match="holds no state_dict"):
        read_state(tmp_path / "w.pt")


def test_weights_are_loaded_tensor_by_tensor() -> None:
    network = reference("resnet20", outputs=4)
    load_into(network, {k: v for k, v in state().items() if "num_batches" not in k}, "resnet20", "here")
    assert equal(network.state_dict(), state())


def test_other_classes_are_said_to_be_the_matter() -> None:
    with pytest.raises(InvalidTeacher, match=r"linear\.weight must be \(4, 64\) for resnet20 here, got \(100, 64\).*other classes"):
        load_into(reference("resnet20", outputs=4), state(100), "resnet20", "w.safetensors")


def test_another_network_is_told_by_its_first_missing_tensor() -> None:
    with pytest.raises(InvalidTeacher, match=r"w holds no resnet32: it lacks 'layer1\.3\.bn1\.bias' \(\d+ tensors missing, 0 too many\)"):
        load_into(reference("resnet32", outputs=4), state(), "resnet32", "w")
