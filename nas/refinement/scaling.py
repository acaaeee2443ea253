"""Uniform width scaling: every channel count of an architecture by one factor, the plain way to make it faster."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from nas.refinement.sizing import Estimate
from search_spaces.architecture import Architecture, Block, make_divisible

__all__ = ["scaled", "scaled_to"]

FACTORS = tuple(i / 100 for i in range(2, 100))
RUNGS = 16


def scaled(arch: Architecture, factor: float) -> Architecture:
    """The architecture with all channels but the input's times ``factor``, each to the nearest multiple of 8; the head's width too.

    SE widths that were no multiples of 8 are rounded to whole numbers. Skips stay, for equal channels stay equal.
    """
    blocks: list[Block] = []
    ch = arch.input_chw[0]
    for block in arch.blocks:
        out_ch = ch if block.in_ch == block.out_ch and block.skip == "identity" else make_divisible(block.out_ch * factor)
        hidden_ch = make_divisible(block.hidden_ch * factor) if block.hidden_ch else 0
        blocks.append(msgspec.structs.replace(block, in_ch=ch, out_ch=out_ch, hidden_ch=hidden_ch, se_ch=_se(block.se_ch, factor)))
        ch = out_ch
    width_ch = make_divisible(arch.head.width_ch * factor) if arch.head.width_ch else 0
    return msgspec.structs.replace(arch, blocks=tuple(blocks), head=msgspec.structs.replace(arch.head, width_ch=width_ch))


def scaled_to(arch: Architecture, targets_ms: Sequence[float], measure: Estimate) -> list[tuple[float, Architecture]]:
    """For each latency the (factor, architecture) that comes nearest to it; equal architectures stand once, at the largest factor.

    ``measure`` is asked once, for a ladder of factors; between its rungs latencies are interpolated. Infinite ones are left out.
    """
    made = {a.id: (f, a) for f in FACTORS if (a := scaled(arch, f)).id != arch.id}
    choices = list(made.values())
    rungs = sorted({*range(0, len(choices), -(-len(choices) // RUNGS) or 1), len(choices) - 1}) if choices else []
    measured = measure([choices[i][1] for i in rungs]) if rungs else []
    known = {i: ms for i, ms in zip(rungs, measured, strict=True) if ms < math.inf}
    if not known:
        return []
    ms = np.interp(range(len(choices)), list(known), list(known.values()))
    return [choices[i] for i in dict.fromkeys(int(np.abs(ms - target).argmin()) for target in targets_ms)]


def _se(se_ch: int, factor: float) -> int:
    if se_ch % 8 == 0:
        return make_divisible(se_ch * factor) if se_ch else 0
    return max(1, round(se_ch * factor))
