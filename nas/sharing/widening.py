"""Which networks one step of a bank's training runs: a trunk; then with it networks that differ from it in one stage, later in one up to
all of them; in the end networks drawn evenly, without it.

Where ops are alternatives with weights of their own, networks drawn evenly pull the layers that they share each another way, and a short
training may leave all at chance. A trunk gives them a direction, and its own ops an advantage; in the last part every entry of a menu
is drawn as often as any other, within one in a step (what larger entries share with smaller ones is still trained more often).
In the spirit of progressive shrinking (Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020,
section 3.3), over stages in place of sizes; the last part is after the strict fairness of Chu et al., "FairNAS: Rethinking Evaluation
Fairness of Weight Sharing Neural Architecture Search", ICCV 2021, section 3.2, over all choices in place of ops alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nas.sharing.sandwich import Usage
from search_spaces.space import SearchSpace
from search_spaces.stage import Pick, split_op

__all__ = ["SETTLED", "WIDENED", "Widening", "fair", "trunk"]

SETTLED, WIDENED = 0.1, 0.4  # of the steps: the trunk alone until the first; from the second on networks drawn evenly


@dataclass(frozen=True, kw_only=True, slots=True)
class Widening:
    """The sub-networks of a space's steps, as picks."""

    space: SearchSpace
    randoms: int
    trunk: Mapping[str, Pick]

    @classmethod
    def of(cls, space: SearchSpace, randoms: int) -> "Widening":
        """The widening of a space with so many networks beside the trunk."""
        return cls(space=space, randoms=randoms, trunk=trunk(space))

    def picks(self, usage: Usage, rng: np.random.Generator, share: float) -> list[Mapping[str, Pick]]:
        """The networks of the step before which ``share`` (from 0) of all steps are done, the trunk first as long as it is among them."""
        if share < SETTLED:
            return [self.trunk]
        if share >= WIDENED:
            return fair(self.space, rng, 1 + self.randoms)
        stages = sorted({_stage(name) for name in self.trunk})
        progress = (share - SETTLED) / (WIDENED - SETTLED)
        most = 1 + round((len(stages) - 1) * progress)
        return [self.trunk, *(self._changed(rng, stages, int(rng.integers(1, most, endpoint=True))) for _ in range(self.randoms))]

    def teaches(self, share: float) -> bool:
        """Whether the first network of such a step can teach the others: as long as it is the trunk."""
        return share < WIDENED

    def _changed(self, rng: np.random.Generator, stages: list[str], changed: int) -> dict[str, Pick]:
        """The trunk with the picks of so many stages, drawn evenly, drawn anew."""
        drawn, own = self.space.sample(rng), {stages[i] for i in rng.permutation(len(stages))[:changed]}
        return {name: drawn[name] if _stage(name) in own else pick for name, pick in self.trunk.items()}


def fair(space: SearchSpace, rng: np.random.Generator, count: int) -> list[Mapping[str, Pick]]:
    """So many members, each drawn evenly, that together hold every entry of a menu equally often, or once more than another.

    Source: strict fairness, Chu et al., FairNAS, ICCV 2021, section 3.2, of which it is a case where ``count`` is a multiple of the menu's
    size; else which entry is held once more is drawn anew at each call.
    """
    members: list[dict[str, Pick]] = [{} for _ in range(count)]
    for name, menu in space.choices().items():
        rounds = -(-count // len(menu))
        drawn = np.concatenate([rng.permutation(len(menu)) for _ in range(rounds)])[:count]
        for member, i in zip(members, rng.permutation(drawn), strict=True):
            member[name] = menu[int(i)]
    return [*members]


def trunk(space: SearchSpace) -> dict[str, Pick]:
    """A network that uses all channels between blocks, and learns fast: the middle depth, the greatest widths and kernels, and the identity
    as skip where there is one. Where ops are alternatives: of the op that can expand most the entry that expands least; a choice of
    expansion by itself is at its greatest."""
    _, largest = space.corners()
    found = dict(largest)
    for name, menu in space.choices().items():
        kind = name.rpartition(".")[2]
        if kind == "op":
            most, _ = split_op(str(max(menu, key=_expansion)))
            found[name] = min((token for token in menu if split_op(str(token))[0] == most), key=_expansion)
        elif kind == "depths":
            found[name] = sorted(menu, key=float)[len(menu) // 2]
        elif kind == "skip" and "identity" in menu:
            found[name] = "identity"
    return found


def _expansion(token: Pick) -> float:
    return split_op(str(token))[1]


def _stage(name: str) -> str:
    return name.partition(".")[0]
