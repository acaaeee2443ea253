"""Network weights on disk (safetensors, never pickle) and as numpy arrays for ``latency.onnx_graph.emit``."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latency.onnx_graph import InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["InvalidWeights", "load", "numpy_weights", "save"]


def save(state: "Mapping[str, Tensor]", path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a state dict to ``path`` atomically: a reader sees the old file or the whole new one, also after a crash.

    Tensors may live on any device, in any memory format, and may share storage; copies are written.
    """
    from safetensors.torch import save as encode

    content = encode({name: t.detach().cpu().clone().contiguous() for name, t in state.items()}, dict(metadata or {}))
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private to their owner
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


def numpy_weights(module: "nn.Module") -> dict[str, np.ndarray]:
    """Copies of the module's state as float32 arrays (counters keep their integer type), keyed as in ``state_dict``."""
    state = {name: t.detach().cpu() for name, t in module.state_dict().items()}
    return {name: (t.float() if t.is_floating_point() else t).clone().numpy() for name, t in state.items()}
