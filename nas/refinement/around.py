"""The space around a seed: its places, each as it is or smaller, for seeds that come from no space; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from nas.refinement.places import CHANNELS, KINDS, Kind, Place, menu, places, shrunk, size_at
from nas.refinement.sizing import Estimate
from search_spaces.architecture import Architecture, Head, make_divisible
from search_spaces.stage import Pick, Picks

__all__ = ["Around", "around"]

STEPS = 7  # widths of each place, its own among them
NARROWEST = 1 / 8
ORDER = [kind for kind in KINDS if kind != "depth"] + ["depth"]  # blocks that go change the numbers of those behind them


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """``arch`` and what its places allow: channels at ``factors`` of their number (in multiples of 8), other places any smaller size.

    Each place is one choice, named ``kind.block``: just what a refinement of these kinds can change.
    """

    arch: Architecture
    kinds: tuple[Kind, ...]
    factors: tuple[float, ...]

    def choices(self) -> dict[str, tuple[Pick, ...]]:
        """Name -> menu of sizes, the present one first; places without a smaller one are left out."""
        found = {_name(place): self._menu(place) for place in self._places()}
        return {name: sizes for name, sizes in found.items() if len(sizes) > 1}

    def decode(self, picks: Picks, head: Head) -> Architecture:
        """The architecture of a full set of picks; the head's outputs are those of ``head``."""
        arch = msgspec.structs.replace(self.arch, head=msgspec.structs.replace(self.arch.head, outputs=head.outputs))
        for place in self._places():
            size = int(picks.get(_name(place), size_at(self.arch, place)))
            if size < size_at(self.arch, place):
                arch = shrunk(arch, place, size)
        return arch

    def _places(self) -> list[Place]:
        """All of them in an order in which they can be shrunk one after the other."""
        found = places(self.arch, self.kinds)
        return [p for kind in ORDER for p in reversed(found) if p.kind == kind]

    def _menu(self, place: Place) -> tuple[int, ...]:
        own = size_at(self.arch, place)
        if place.kind not in CHANNELS:
            return (own, *menu(self.arch, place))
        smaller = {make_divisible(own * factor) for factor in self.factors}
        return (own, *sorted((size for size in smaller if size < own), reverse=True))


def around(arch: Architecture, kinds: Sequence[Kind], target_ms: float, estimate: Estimate) -> Around:
    """The space around a seed for a target: its widths go as far below the one factor that would give the target as that is below 1.

    So half of the widths that a sampler draws are above that factor and half below, and a latency near the target is no rare one.
    """
    ladder = [i / 20 for i in range(20, 1, -1)]
    uniform = [Around(arch=arch, kinds=tuple(kinds), factors=(factor,)) for factor in ladder]
    smallest = [u.decode({name: sizes[-1] for name, sizes in u.choices().items() if _is_width(name)}, arch.head) for u in uniform]
    met = [factor for factor, ms in zip(ladder, estimate(smallest), strict=True) if ms <= target_ms]
    lowest = max(2 * (met[0] if met else ladder[-1]) - 1, NARROWEST)
    factors = tuple(1 - (1 - lowest) * i / (STEPS - 1) for i in range(STEPS))
    return Around(arch=arch, kinds=tuple(kinds), factors=factors)


def _name(place: Place) -> str:
    return f"{place.kind}.{place.block}"


def _is_width(name: str) -> bool:
    return name.partition(".")[0] in CHANNELS
