"""``count``: parameters, MACs and peak activation memory of an architecture, exact, from the modules that ``build`` makes."""

from functools import lru_cache

import msgspec

from search_spaces.architecture import Architecture, Piece, pieces

__all__ = ["Cost", "count"]


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an architecture costs whatever the device.

    ``params`` are trainable numbers (BN running statistics are none). ``macs`` are the multiply-accumulates of convolutions
    and linear layers at batch 1; BN, activations, pooling and additions count nothing. ``peak_activation_bytes`` is the
    largest sum of float32 tensors alive at once: batch 1, run in order, every op writes a tensor of its own (no fusion, not
    in place), a tensor dies after its last use, a skip keeps the block's input until the addition; weights not counted.
    """

    params: int
    macs: int
    peak_activation_bytes: int


def count(arch: Architecture) -> Cost:
    """The cost of an architecture: summed over its pieces, the peak being the worst piece's. Taps cost nothing.

    Raises:
        UnknownName: a layer that the counter does not know; it never counts 0.
    """
    costs = [_of_piece(piece) for piece in pieces(arch)]
    return Cost(
        params=sum(c.params for c in costs),
        macs=sum(c.macs for c in costs),
        peak_activation_bytes=max(c.peak_activation_bytes for c in costs),
    )


@lru_cache(maxsize=65536)
def _of_piece(piece: Piece) -> Cost:
    import torch

    from nas.models.counting import params_macs_peak
    from nas.models.network import module_of

    with torch.device("meta"):
        params, macs, peak_activation_bytes = params_macs_peak(module_of(piece), piece.in_chw)
    return Cost(params=params, macs=macs, peak_activation_bytes=peak_activation_bytes)
