"""A bank: one set of weights for every network of a space. Networks are views of it, or ordinary modules with copies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.errors import InvalidArchitecture
from nas.models.network import Network, build, initialise, module_of
from search_spaces.architecture import Architecture, Block, Head, Piece, pieces
from search_spaces.space import SearchSpace

__all__ = [
    "Bank", "Place", "Skeleton", "bank_shapes", "inherit", "laid_out", "new_bank", "parameters", "part", "skeleton", "supernet", "views",
]  # fmt: skip

Bank = Mapping[str, Tensor]
"""Name ("s2b1.mbconv.depthwise.conv.weight", "head.out.bias") → the largest tensor that any network of the space needs there.

The place and the op are part of a name; channels, kernels, expansions, SE widths, skips and acts share one tensor.
"""

_COUNTER, _STATISTICS = "num_batches_tracked", ("running_mean", "running_var")


def bank_shapes(space: SearchSpace, head: Head) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a bank for a space and a task's head, worked out from the menus of its places."""
    with torch.device("meta"):
        return {name: tuple(t.shape) for prefix, piece in _largest(space, head) for name, t in _state(prefix, module_of(piece))}


def new_bank(space: SearchSpace, head: Head, *, generator: torch.Generator, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """A bank of fresh weights, drawn as ``build`` draws those of the largest networks; ``generator`` is a CPU generator."""
    bank: dict[str, Tensor] = {}
    for prefix, piece in _largest(space, head):
        with torch.device("meta"):
            module = module_of(piece)
        module.to_empty(device="cpu")
        initialise(module, generator=generator)
        bank |= {name: t.detach().to(device) for name, t in _state(prefix, module)}
    return bank


def _largest(space: SearchSpace, head: Head) -> Iterator[tuple[str, Piece]]:
    """(beginning of its names, piece with the most of everything) for each op of each place, and for the head."""
    member = pieces(space.decode(space.corners()[0], head))
    menus = space.block_menus()
    for place, menu in menus.items():
        for op in dict.fromkeys(block.op for block in menu):
            most = _most([block for block in menu if block.op == op])
            yield f"{place}.{op}", Piece(layer=most, in_chw=(most.in_ch, *space.input_chw[1:]), dims=member[0].dims)
    channels = max(block.out_ch for block in menus[next(reversed(menus))])
    yield "head", Piece(layer=member[-1].layer, in_chw=(channels, *member[-1].in_chw[1:]), dims=member[-1].dims)


def _most(blocks: Sequence[Block]) -> Block:
    """A block that is as large in every dimension as the largest of these, all of one op."""
    return Block(
        op=blocks[0].op, in_ch=max(b.in_ch for b in blocks), hidden_ch=max(b.hidden_ch for b in blocks),
        out_ch=max(b.out_ch for b in blocks), kernel=max(b.kernel for b in blocks), se_ch=max(b.se_ch for b in blocks),
    )  # fmt: skip


def _state(prefix: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((f"{prefix}.{key}", t) for key, t in module.state_dict().items() if not key.endswith(_COUNTER))


def parameters(bank: Bank) -> dict[str, Tensor]:
    """What of a bank is trained: all but the running statistics of BatchNorm."""
    return {name: t for name, t in bank.items() if not name.endswith(_STATISTICS)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one tensor of a network is: ``key`` in the module's state, ``name`` in the bank, ``shape`` of the slice."""

    key: str
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Skeleton:
    """A network on the meta device, to be called on tensors from elsewhere, and where in a bank they are."""

    module: Network
    places: tuple[Place, ...]


@lru_cache(maxsize=256)
def skeleton(arch: Architecture, *, dropout: float = 0.0, training: bool = False) -> Skeleton:
    """The skeleton of an architecture, kept for the next call; it is shared, so leave it as it is.

    With ``training`` its BatchNorms use the statistics of the batch and keep none, so its places are those of parameters.
    """
    module = build(arch, dropout=dropout, device="meta").train(training)
    for norm in (m for m in module.modules() if training and isinstance(m, nn.BatchNorm2d)):
        norm.track_running_stats, norm.running_mean, norm.running_var, norm.num_batches_tracked = False, None, None, None
    prefixes = {f"blocks.{i}": f"{block.name}.{block.op}" for i, block in enumerate(arch.blocks)} | {"head": "head"}
    places = []
    for key, tensor in module.state_dict().items():
        if not key.endswith(_COUNTER):
            owner = next(p for p in prefixes if key.startswith(f"{p}."))
            places.append(Place(key=key, name=prefixes[owner] + key.removeprefix(owner), shape=tuple(tensor.shape)))
    return Skeleton(module=module, places=tuple(places))


def part(whole: Tensor, shape: Sequence[int]) -> Tensor:
    """The view of a tensor that a smaller network uses: its first channels, and the centre of its kernel.

    >>> part(torch.arange(25).view(1, 1, 5, 5), (1, 1, 3, 3)).flatten().tolist()
    [6, 7, 8, 11, 12, 13, 16, 17, 18]
    """
    starts = ((w - n) // 2 if axis > 1 else 0 for axis, (w, n) in enumerate(zip(whole.shape, shape, strict=True)))
    return whole[tuple(slice(start, start + n) for start, n in zip(starts, shape, strict=True))]


def views(bank: Bank, arch: Architecture) -> dict[str, Tensor]:
    """State key → view of the bank, for every tensor of ``build(arch)`` but BatchNorm's counters.

    Raises:
        InvalidArchitecture: the bank has no such tensor, or a smaller one: it is of another space.
    """
    return {place.key: _taken(bank, place) for place in skeleton(arch).places}


def _taken(bank: Bank, place: Place) -> Tensor:
    whole = bank.get(place.name)
    if whole is None or any(n > w for n, w in zip(place.shape, whole.shape, strict=True)):
        there = "nothing" if whole is None else f"{tuple(whole.shape)}"
        raise InvalidArchitecture(
            f"the bank has {there} for {place.name!r}, and the network needs {place.shape}: it is no member of the bank's space"
        )
    return part(whole, place.shape)


def supernet(bank: Bank, arch: Architecture, x: Tensor) -> Tensor:
    """Logits (N, K) of the network that the bank holds for ``arch``, in eval mode, for normalised images (N, C, H, W).

    Equal to ``inherit(bank, arch)(x)`` bit for bit on a CPU. Gradients reach the network's slices of the bank and nothing else.
    """
    tensors = {key: view.contiguous(memory_format=_format(view)) for key, view in views(bank, arch).items()}
    logits: Tensor = functional_call(skeleton(arch).module, tensors, (x,), tie_weights=False)
    return logits


def laid_out(view: Tensor) -> Tensor:
    """A copy of a view, without its history, in the memory format that networks compute in (channels_last)."""
    return view.detach().clone(memory_format=_format(view))


def _format(tensor: Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.ndim == 4 else torch.contiguous_format


def inherit(bank: Bank, arch: Architecture, *, dropout: float = 0.0) -> Network:
    """An ordinary module with copies of the bank's slices, in eval mode and channels_last, on the bank's device.

    Training a bank leaves the running statistics of BatchNorm as they began: ``nas.sharing.inherited.calibrate`` makes those of a network.

    Raises:
        InvalidArchitecture: the architecture is no member of the bank's space.
    """
    slices = views(bank, arch)
    network = build(arch, dropout=dropout, device="meta").to_empty(device=next(iter(slices.values())).device)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key in slices:
                tensor.copy_(slices[key])
            else:
                tensor.zero_()
    network.to(memory_format=torch.channels_last)
    return network.eval()
