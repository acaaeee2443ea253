"""Weights from other people's files: safetensors, or what torch loads without running anything; and loading them into a network."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import InvalidTeacher
from nas.weights import InvalidWeights, load

__all__ = ["load_into", "read_state"]

WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which training scripts keep the weights


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a torch checkpoint read with ``weights_only``; a "module." in front is taken off.

    Raises:
        InvalidWeights: no such file, a damaged one, or one that holds objects which only unpickling could make.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidWeights(f"{path}: there is no such file")
    if path.suffix == ".safetensors":
        return _bare(load(path), path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # what cannot be loaded is refused below
            found: Any = torch.load(path, map_location="cpu", weights_only=True)  # Any: what the file holds
    except OSError as error:
        raise InvalidWeights(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise InvalidWeights(
            f"{path}: damaged, or pickled objects beside tensors, which could run code here and are not loaded; save its state_dict() as "
            "safetensors (safetensors.torch.save_file)"
        ) from error
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise InvalidWeights(f"{path}: holds no state_dict of tensors, alone or under {', '.join(WRAPPERS)}")
    return _bare(found, path)


def _bare(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    bare = {name.removeprefix("module."): t for name, t in state.items()}
    broken = [name for name, t in bare.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if broken:
        raise InvalidWeights(f"{path}: {broken[0]} is not finite")
    return bare


def load_into(network: nn.Module, state: Mapping[str, Tensor], name: str, where: str) -> None:
    """Loads weights that must fit tensor by tensor (BN's step counters may be missing); ``name`` and ``where`` are for errors.

    Raises:
        InvalidTeacher: a tensor is missing, too many, or of another shape: another network, or other classes.
    """
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra:
        first = f"it lacks {missing[0]!r}" if missing else f"it has {extra[0]!r}"
        raise InvalidTeacher(f"{where} holds no {name}: {first} ({len(missing)} tensors missing, {len(extra)} too many)")
    for key, tensor in wanted.items():
        if tensor.shape != given[key].shape:
            other = " (a teacher of other classes cannot teach this data)" if _is_last(key, wanted) else ""
            raise InvalidTeacher(f"{where}: {key} must be {tuple(tensor.shape)} for {name} here, got {tuple(given[key].shape)}{other}")
    network.load_state_dict(dict(given), strict=False)


def _is_last(key: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is of the layer that gives the logits."""
    return key.rpartition(".")[0] == list(state)[-1].rpartition(".")[0]
