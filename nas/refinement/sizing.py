"""The proposals of one step: at each place the largest size that saves enough latency."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from nas.refinement.places import Place, menu, shrunk
from search_spaces.architecture import Architecture

__all__ = ["Estimate", "Proposal", "reachable", "sized"]

PEEKED = 2  # sizes above the one found that are looked at too: a width that is no multiple of 16 can be the slower one
HALVINGS = 3  # of a step that no single proposal reaches
STRIDE = 4  # at most so many times as far down as before: of much smaller sizes an estimate may know little

Estimate = Callable[[Sequence[Architecture]], Sequence[float]]
"""Latencies in ms of several architectures at once, such as a table gives; infinite where it has none."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """An architecture with one place made smaller, and what it is estimated to take."""

    place: Place
    size: int
    arch: Architecture
    ms: float


def sized(arch: Architecture, places: Sequence[Place], limit_ms: float, estimate: Estimate) -> list[Proposal]:
    """At each place the largest size of its menu with an estimate of at most ``limit_ms``; places that do not get there give none.

    All places are searched together, in a few calls of ``estimate``: downwards by extrapolation until a size meets the limit, then
    between that one and the last that did not. From there up latency has to rise with size; where it does so in stairs, the two
    sizes above the one found are tried as well.
    """
    bare = msgspec.structs.replace(arch, blocks=tuple(msgspec.structs.replace(b, name="") for b in arch.blocks))  # quicker to estimate
    menus = {place: menu(arch, place) for place in places}
    ms: dict[tuple[Place, int], float] = {}

    def look(wanted: Iterable[tuple[Place, int]]) -> None:
        """Estimates sizes, given by their index in the place's menu, in one call."""
        new = [item for item in wanted if item not in ms]
        ms.update(zip(new, map(float, estimate([shrunk(bare, p, menus[p][i]) for p, i in new])), strict=True) if new else [])

    (own_ms,) = estimate([bare])
    brackets = {place: _Bracket(high=len(sizes), count=len(sizes), low_ms=own_ms, own_ms=own_ms) for place, sizes in menus.items()}
    while wanted := [(place, b.next(limit_ms)) for place, b in brackets.items() if b.high - b.low > 1]:
        look(wanted)
        for place, index in wanted:
            brackets[place].take(index, ms[place, index], limit_ms)
    found = {place: b.high for place, b in brackets.items() if b.high < b.count}
    look((place, i) for place, high in found.items() for i in _above(high))
    best = {place: next(i for i in (*_above(high), high) if ms[place, i] <= limit_ms) for place, high in found.items()}
    return [Proposal(place=p, size=menus[p][i], arch=shrunk(arch, p, menus[p][i]), ms=ms[p, i]) for p, i in best.items()]


def reachable(
    arch: Architecture, places: Sequence[Place], now_ms: float, cut_ms: float, estimate: Estimate, floor_ms: float = 0.0
) -> tuple[list[Proposal], float]:
    """The proposals that save ``cut_ms`` of ``now_ms``; where there are none, those that save half of it, and so on to an eighth.

    Nothing below ``floor_ms`` is tried, which ``cut_ms`` is not below.

    Returns:
        The proposals, and what they save at least; none where no place saves the least that was tried.
    """
    for halving in range(HALVINGS + 1):
        least_ms = max(cut_ms / 2**halving, floor_ms)
        if found := sized(arch, places, now_ms - least_ms, estimate):
            return found, least_ms
        if least_ms <= floor_ms:
            break
    return [], least_ms


def _above(index: int) -> range:
    """Indices of the next larger sizes, the largest first; the one directly above is known not to meet the limit."""
    return range(max(0, index - 1 - PEEKED), index)


@dataclass(kw_only=True, slots=True)
class _Bracket:
    """Where in a falling menu of ``count`` sizes the first lies that meets the limit: behind ``low``, at or before ``high``.

    ``low`` -1 is the size as it is; ``high`` is ``count`` as long as none is known.
    """

    high: int
    count: int
    low_ms: float
    own_ms: float
    low: int = -1
    high_ms: float = 0.0
    turns: int = 0

    def next(self, limit_ms: float) -> int:
        """The index to try: as a straight line has it, and in every other turn between two known ones the middle."""
        if self.high < self.count:
            slope = (self.low_ms - self.high_ms) / (self.high - self.low)
            is_line = self.turns % 2 == 0 and 0 < slope < math.inf
            guess = self.low + math.ceil(min((self.low_ms - limit_ms) / slope, self.count)) if is_line else (self.low + self.high) // 2
            return min(max(guess, self.low + 1), self.high - 1)
        tried = self.low + 1
        slope = (self.own_ms - self.low_ms) / tried if tried else 0.0
        guess = math.ceil(min((self.own_ms - limit_ms) / slope, self.count)) - 1 if 0 < slope < math.inf else STRIDE * tried
        return min(max(guess, self.low + 1), STRIDE * tried, self.count - 1)

    def take(self, index: int, ms: float, limit_ms: float) -> None:
        """Learns what a size is estimated at."""
        self.turns += 1
        if ms <= limit_ms:
            self.high, self.high_ms = index, ms
        else:
            self.low, self.low_ms = index, ms
