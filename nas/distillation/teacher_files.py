"""Weights from other people's files loaded into a network."""

from collections.abc import Mapping

from torch import Tensor, nn

from nas.errors import InvalidTeacher

__all__ = ["load_into"]


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
