"""The proposals of one step: at each place the largest size that saves enough latency."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from nas.refinement.places import Place, menu, shrunk
from search_spaces.architecture import Architecture

__all__ = ["PEEKED", "Estimate", "Proposal", "sized"]

PEEKED = 2  # sizes above the one found that are looked at too: a width that is no multiple of 16 can be the slower one

Estimate = Callable[[Sequence[Architecture]], Sequence[float]]
"""Latencies in ms of several architectures at once, such as a table gives."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """An architecture with one place made smaller, and what it is estimated to take."""

    place: Place
    size: int
    arch: Architecture
    ms: float


def sized(arch: Architecture, places: Sequence[Place], limit_ms: float, estimate: Estimate) -> list[Proposal]:
    """At each place the largest size of its menu with an estimate of at most ``limit_ms``; places that do not get there give none.

    All places are searched together by bisection, for which latency has to rise with size; where it does so in stairs, or the two
    sizes above the one found are faster, these are found too.
    """
    menus = {place: menu(arch, place) for place in places}
    tried: dict[tuple[Place, int], Proposal] = {}

    def look(wanted: Iterable[tuple[Place, int]]) -> None:
        """Estimates sizes, given by their index in the place's menu, in one call."""
        new = [(p, i, shrunk(arch, p, menus[p][i])) for p, i in wanted if (p, i) not in tried]
        for (p, i, made), ms in zip(new, estimate([made for _, _, made in new]) if new else [], strict=True):
            tried[p, i] = Proposal(place=p, size=menus[p][i], arch=made, ms=float(ms))

    def meets(place: Place, index: int) -> bool:
        return tried[place, index].ms <= limit_ms

    look((p, len(sizes) - 1) for p, sizes in menus.items())
    brackets = {p: (-1, len(sizes) - 1) for p, sizes in menus.items() if meets(p, len(sizes) - 1)}
    while open_ones := {p: (low + high) // 2 for p, (low, high) in brackets.items() if high - low > 1}:
        look(open_ones.items())
        for place, middle in open_ones.items():
            low, high = brackets[place]
            brackets[place] = (low, middle) if meets(place, middle) else (middle, high)
    look((p, i) for p, (_, high) in brackets.items() for i in _above(high))
    return [tried[p, next(i for i in (*_above(high), high) if meets(p, i))] for p, (_, high) in brackets.items()]


def _above(index: int) -> range:
    """Indices of the next larger sizes, the largest first; the one directly above was tried by the bisection."""
    return range(max(0, index - 1 - PEEKED), index)
