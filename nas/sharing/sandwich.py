"""Which networks of a space one step of a bank's training runs: the largest, the smallest and some at random.

Source: Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, section 3.2 (the sandwich rule).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.space import SearchSpace
from search_spaces.stage import Pick, split_op

__all__ = ["Usage", "Sandwich", "counted"]

Usage = Mapping[str, Mapping[str, int]]
"""Name of an op choice ("s2.op") → op ("mbconv") → how many networks had it so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sandwich:
    """The sub-networks of a space's steps, as picks. ``smallest`` and ``largest`` are the space's corners."""

    space: SearchSpace
    randoms: int
    smallest: Mapping[str, Pick]
    largest: Mapping[str, Pick]

    @classmethod
    def of(cls, space: SearchSpace, randoms: int) -> "Sandwich":
        """The sandwich of a space with so many networks at random."""
        smallest, largest = space.corners()
        return cls(space=space, randoms=randoms, smallest=smallest, largest=largest)

    def picks(self, usage: Usage, rng: np.random.Generator, share: float = 0.0) -> list[Mapping[str, Pick]]:
        """The networks of one step, the largest first; the same rule whatever ``share`` of the steps is done."""
        return [self.grandest(usage), self.smallest, *(self.space.sample(rng) for _ in range(self.randoms))]

    def teaches(self, share: float) -> bool:
        """Whether the first network of such a step can teach the others: always, as the largest."""
        return True

    def grandest(self, usage: Usage) -> dict[str, Pick]:
        """The greatest depths, widths, kernels and expansions, in each stage with the op that was used least so far.

        Ops are alternatives with weights of their own, so no network holds all of them. A skip is the identity where there is one:
        it is what lets the deepest network, whose logits teach the others, learn soonest.
        """
        menus = self.space.choices()
        ops = {name: _least_used(menu, self.largest[name], usage.get(name, {})) for name, menu in menus.items() if name.endswith(".op")}
        skips = {name: "identity" for name, menu in menus.items() if name.endswith(".skip") and "identity" in menu}
        return {**self.largest, **ops, **skips}


def _least_used(menu: Sequence[Pick], grandest: Pick, used: Mapping[str, int]) -> Pick:
    """Of each op the entry that expands most; of those the one whose op was used least, and of equals the corner's own."""
    most: dict[str, Pick] = {}
    for token in sorted(menu, key=lambda token: split_op(str(token))[1]):
        most[_op(token)] = token
    return min(most.values(), key=lambda token: (used.get(_op(token), 0), token != grandest))


def counted(usage: Usage, picked: Sequence[Mapping[str, Pick]]) -> dict[str, dict[str, int]]:
    """The usage after these networks."""
    found = {name: dict(ops) for name, ops in usage.items()}
    for picks in picked:
        for name, token in picks.items():
            if name.endswith(".op"):
                ops = found.setdefault(name, {})
                ops[_op(token)] = ops.get(_op(token), 0) + 1
    return found


def _op(token: Pick) -> str:
    return split_op(str(token))[0]
