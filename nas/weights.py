"""Network weights on disk (safetensors, never pickle; of others' files what loads without code) and as numpy arrays for ``emit``."""

import hashlib
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latency.onnx_graph import InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["InvalidWeights", "load", "numpy_weights", "read_state", "save", "state_sha256"]

WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which training scripts keep the weights


def save(state: "Mapping[str, Tensor]", path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a state dict to ``path`` atomically: a reader sees the old file or the whole new one, also after a crash.

    Tensors may live on any device, in any memory format, and may share storage; copies are written.
    """
    from safetensors.torch import save as encode

    from nas.store import write_atomic

    write_atomic(Path(path), encode({name: t.detach().cpu().clone().contiguous() for name, t in state.items()}, dict(metadata or {})))


def load(path: str | Path) -> "dict[str, Tensor]":
    """The state dict written by ``save``, on the CPU.

    Raises:
        InvalidWeights: no such file, or not a whole safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as decode

    try:
        return decode(Path(path).read_bytes())
    except (OSError, SafetensorError) as error:
        raise InvalidWeights(f"{path}: not a readable safetensors file ({error}); train or export the network again") from error


def read_state(path: str | Path) -> "dict[str, Tensor]":
    """The tensors of a .safetensors file, or of a torch checkpoint read with ``weights_only``; a "module." in front is taken off.

    Raises:
        InvalidWeights: no such file, a damaged one, or one that holds objects which only unpickling could make.
    """
    import torch

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
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise InvalidWeights(f"{path}: holds no state_dict of tensors, alone or under {', '.join(WRAPPERS)}")
    return _bare(found, path)


def _bare(state: "Mapping[str, Tensor]", path: Path) -> "dict[str, Tensor]":
    bare = OrderedDict((name.removeprefix("module."), t) for name, t in state.items())
    if isinstance(state, OrderedDict):
        vars(bare).update(vars(state))  # the versions of its modules' formats, which torch keeps beside the tensors
    broken = [name for name, t in bare.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if broken:
        raise InvalidWeights(f"{path}: {broken[0]} is not finite")
    return bare


def state_sha256(state: "Mapping[str, Tensor]") -> str:
    """A hash of tensors, in hex: of their names, types, shapes and bytes, in whatever order and layout in memory they come."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def numpy_weights(module: "nn.Module") -> dict[str, np.ndarray]:
    """Copies of the module's state as float32 arrays (counters keep their integer type), keyed as in ``state_dict``."""
    state = {name: t.detach().cpu() for name, t in module.state_dict().items()}
    return {name: (t.float() if t.is_floating_point() else t).clone().numpy() for name, t in state.items()}
