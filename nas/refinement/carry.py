"""A network's weights in a smaller architecture: of every channel that goes, nothing is left in any tensor that had it.

Which axes of which tensors share a place's channels is read from the shapes that ``build`` gives before and after.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nas.models import Network, build
from nas.refinement.importance import Scores, channel_scores
from nas.refinement.places import Place, goes_by_position
from search_spaces.architecture import Architecture

__all__ = ["carried", "matched"]

State = Mapping[str, Tensor]
CHANNEL_AXES = 2  # of a convolution or linear layer: (out, in, …)


def carried(network: Network, place: Place, arch: Architecture, scores: Scores, *, generator: torch.Generator | None = None) -> Network:
    """A network of ``arch``, which is ``network``'s with ``place`` made smaller, on the CPU, with the weights that are left.

    The channels with the highest scores stay, in their order, or the first ones where a shortcut goes by position
    (``goes_by_position``); kernels keep their centre. What ``arch`` has and the network had not
    is drawn anew.
    """
    small = build(arch, generator=generator)
    before, after = _renamed(network.state_dict(), place), small.state_dict()
    axes = {key: _changed(before[key], tensor) for key, tensor in after.items() if key in before}
    axes = {key: dims for key, dims in axes.items() if dims}
    kept = _kept(network, place, axes, after, scores)
    with torch.no_grad():
        for key, tensor in after.items():
            if key in before:
                tensor.copy_(_cut(before[key], tensor.shape, kept))
    return small


def matched(arch: Architecture, state: State, *, generator: torch.Generator | None = None) -> tuple[Network, tuple[str, ...]]:
    """A network of ``arch`` with those tensors of ``state`` that fit it by name and shape, and the names of those drawn anew."""
    network = build(arch, generator=generator)
    own = network.state_dict()
    fitting = {key for key, tensor in own.items() if key in state and state[key].shape == tensor.shape}
    with torch.no_grad():
        for key in fitting:
            own[key].copy_(state[key])
    return network, tuple(key for key in own if key not in fitting)


def _kept(network: Network, place: Place, axes: Mapping[str, Sequence[int]], after: State, scores: Scores) -> Tensor | None:
    """Indices of the channels that stay, rising; None where no channels go."""
    if not axes or place.kind in ("kernel", "depth"):
        return None
    key, dims = next(iter(axes.items()))
    size = after[key].shape[dims[0]]
    if place.kind == "bottleneck" and goes_by_position(network.arch, place):
        return torch.arange(size)
    of_channel = channel_scores(network, axes, scores)
    best = torch.sort(of_channel, descending=True, stable=True).indices[:size]
    return best.sort().values


def _changed(before: Tensor, after: Tensor) -> tuple[int, ...]:
    """The channel axes in which two tensors differ."""
    sizes = list(zip(before.shape, after.shape, strict=True))[:CHANNEL_AXES]
    return tuple(dim for dim, (old, new) in enumerate(sizes) if old != new)


def _cut(tensor: Tensor, shape: torch.Size, kept: Tensor | None) -> Tensor:
    """The part of a tensor that has this shape: the kept channels, the centre of a kernel."""
    for dim, size in enumerate(shape):
        if tensor.shape[dim] == size:
            continue
        if dim < CHANNEL_AXES:
            assert kept is not None, "channels go only where scores say which"
            tensor = tensor.index_select(dim, kept)
        else:
            tensor = tensor.narrow(dim, (tensor.shape[dim] - size) // 2, size)
    return tensor


def _renamed(state: State, place: Place) -> dict[str, Tensor]:
    """The state by the names that it has once a left-out block no longer counts; as it is for other kinds of places."""
    moved = {key: tensor.detach().cpu() for key, tensor in state.items()}
    if place.kind != "depth":
        return moved
    found = {}
    for key, tensor in moved.items():
        top, _, rest = key.partition(".")
        index, _, inner = rest.partition(".")
        if top != "blocks" or int(index) < place.block:
            found[key] = tensor
        elif int(index) > place.block:
            found[f"blocks.{int(index) - 1}.{inner}"] = tensor
    return found
