"""How many networks a space holds: an automaton reads blocks as letters, its distinct words are the distinct architectures."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache

import msgspec

from search_spaces.architecture import Block
from search_spaces.stage import PlacedStage, layers

__all__ = ["SpaceSize", "count_distinct"]

_Letter = int  # a block's number: hashing blocks themselves took most of the time
_Moves = Mapping[_Letter, frozenset["_State"]]


class SpaceSize(msgspec.Struct, frozen=True, kw_only=True):
    """``raw`` is the product of the menus; ``distinct`` counts picks that decode to equal architectures once."""

    raw: int
    distinct: int


class _State(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Where reading a network stands: before stage ``stage`` with ``in_ch``, or inside it with ``left`` more out of ``letters``."""

    stage: int
    in_ch: int
    letters: tuple[_Letter, ...] = ()
    left: int = 0


def count_distinct(stages: Sequence[PlacedStage], in_ch: int) -> int:
    """Exact number of different block sequences that the stages can make from ``in_ch`` channels.

    Picks are many-to-one (a skip that cannot add, a depth that cannot shrink, a boundary between two stages that look the
    same), so the automaton is made deterministic: a set of states stands for one sequence read so far. A set is counted in
    parts whose next letters have nothing in common; equal parts come back often and are counted once.
    """

    alphabet: dict[Block, _Letter] = {}

    @cache
    def moves(state: _State) -> _Moves:
        if state.left:
            after = frozenset([_after(state.stage, state.in_ch, state.letters, state.left - 1)])
            return dict.fromkeys(state.letters, after)
        found: defaultdict[_Letter, set[_State]] = defaultdict(set)
        if state.stage < len(stages):
            for letter, target in _entering(stages[state.stage], state, alphabet):
                found[letter].add(target)
        return {letter: frozenset(targets) for letter, targets in found.items()}

    @cache
    def letters(state: _State) -> frozenset[_Letter]:
        return frozenset(moves(state))

    @cache
    def count(part: frozenset[_State]) -> int:
        ends = any(state.stage == len(stages) for state in part)
        targets: defaultdict[_Letter, set[_State]] = defaultdict(set)
        for state in part:
            for letter, after in moves(state).items():
                targets[letter] |= after
        alike = Counter(frozenset(after) for after in targets.values())
        return ends + sum(times * sum(map(count, _parts(after, letters))) for after, times in alike.items())

    return count(frozenset([_State(stage=0, in_ch=in_ch)]))


def _after(stage: int, out_ch: int, letters: tuple[_Letter, ...], left: int) -> _State:
    return _State(stage=stage, in_ch=out_ch, letters=letters, left=left) if left else _State(stage=stage + 1, in_ch=out_ch)


def _entering(placed: PlacedStage, start: _State, alphabet: dict[Block, _Letter]) -> Iterator[tuple[_Letter, _State]]:
    """(first block, state after it) for every pick of a stage."""
    stage = placed.stage
    lefts = {stage.blocks_at(delta) - 1 for delta in stage.depths}
    for out_ch in {placed.out_ch(width) for width in stage.width}:
        for skip in stage.skip:
            kinds = tuple(layers(stage, skip))
            firsts = [_letter(placed.block(kind, start.in_ch, out_ch, 1), alphabet) for kind in kinds]
            repeats = [_letter(placed.block(kind, out_ch, out_ch, 2), alphabet) for kind in kinds]
            pooled = tuple(dict.fromkeys(repeats))
            for first, repeat in zip(firsts, repeats, strict=True):
                letters = (repeat,) if stage.vary == "stage" else pooled
                yield from ((first, _after(start.stage, out_ch, letters, left)) for left in lefts)


def _letter(block: Block, alphabet: dict[Block, _Letter]) -> _Letter:
    return alphabet.setdefault(msgspec.structs.replace(block, name=""), len(alphabet))


def _parts(states: Iterable[_State], letters: Callable[[_State], frozenset[_Letter]]) -> list[frozenset[_State]]:
    """The states grouped so that no letter can be read from two groups."""
    groups: list[list[_State]] = []
    for state in states:
        mine = letters(state)
        near, apart = [state], []
        for group in groups:
            if all(mine.isdisjoint(letters(other)) for other in group):
                apart.append(group)
            else:
                near += group
        groups = [*apart, near]
    return [frozenset(group) for group in groups]
