from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from nas.sharing.widening import Widening, fair, trunk
from search_spaces import SPACES, Head, open_space
from search_spaces.stage import Pick

HEAD = Head(outputs=3)
MNASNET = open_space("mnasnet", width=0.35, input_chw=(3, 32, 32))
WIDENING = Widening.of(MNASNET, 3)


def changed_stages(picks: Mapping[str, Pick]) -> int:
    return len({name.partition(".")[0] for name, pick in picks.items() if pick != WIDENING.trunk[name]})


def drawn(share: float, steps: int = 40) -> list[Mapping[str, Pick]]:
    return [picks for step in range(steps) for picks in WIDENING.picks({}, np.random.default_rng(step), share)[1:]]


def test_training_begins_with_the_trunk_alone() -> None:
    assert WIDENING.picks({}, np.random.default_rng(0), 0.05) == [WIDENING.trunk]


def test_step_runs_the_trunk_and_so_many_others() -> None:
    first, *others = WIDENING.picks({}, np.random.default_rng(0), 0.3)
    assert first == WIDENING.trunk
    assert len(others) == 3


def test_others_differ_from_the_trunk_in_one_stage_at_first() -> None:
    assert {changed_stages(picks) for picks in drawn(0.1)} <= {0, 1}


def test_others_differ_in_half_of_the_stages_half_way() -> None:
    # of seven stages 1 + 6 / 2; a stage may be drawn as it is in the trunk
    assert max(changed_stages(picks) for picks in drawn(0.25)) == 4


def test_last_networks_are_drawn_without_the_trunk() -> None:
    picked = WIDENING.picks({}, np.random.default_rng(0), 0.4)
    assert len(picked) == 4
    assert WIDENING.trunk not in picked


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("name", SPACES)
def test_fair_networks_hold_every_entry_of_a_menu_equally_often(name: str, count: int) -> None:
    space = open_space(name, input_chw=(3, 32, 32))
    members = fair(space, np.random.default_rng(0), count)
    assert len(members) == count
    for choice, menu in space.choices().items():
        held = [sum(member[choice] == entry for member in members) for entry in menu]
        assert sum(held) == count
        assert max(held) - min(held) <= 1


def test_fair_networks_mix_rounds_of_a_menu() -> None:
    """Of a menu of two, four members hold any of the 6 orders of two and two, all as often: a chi-squared test."""
    rng, kernel = np.random.default_rng(0), "s2.kernel"
    orders = Counter(tuple(member[kernel] for member in fair(MNASNET, rng, 4)) for _ in range(600))
    assert len(orders) == 6
    assert sum((n - 100) ** 2 / 100 for n in orders.values()) < 20.52  # five degrees of freedom, p = 0.001


def test_fair_networks_pair_entries_of_two_menus_evenly() -> None:
    """One menu's entry tells nothing about the other's: a chi-squared test of the 2 x 2 table, margins given."""
    rng, kernel, se = np.random.default_rng(0), "s2.kernel", "s2.se"
    third = [fair(MNASNET, rng, 4)[2] for _ in range(400)]
    kernels, ses = MNASNET.choices()[kernel], MNASNET.choices()[se]
    counts = [sum(member[kernel] == k and member[se] == s for member in third) for k in kernels for s in ses]
    assert len(counts) == 4
    assert sum((n - 100) ** 2 / 100 for n in counts) < 16.27  # three degrees of freedom, p = 0.001


def test_only_a_trunk_teaches() -> None:
    for share in (0.0, 0.3, 0.39, 0.4, 0.9):
        is_first = WIDENING.picks({}, np.random.default_rng(0), share)[0] == WIDENING.trunk
        assert WIDENING.teaches(share) == is_first


@pytest.mark.parametrize("name", SPACES)
def test_every_pick_of_every_menu_is_drawn_in_the_end(name: str) -> None:
    space = open_space(name, input_chw=(3, 32, 32))
    widening, rng = Widening.of(space, 8), np.random.default_rng(0)
    seen: dict[str, set[Pick]] = {choice: set() for choice in space.choices()}
    for _ in range(40):
        for picks in widening.picks({}, rng, 0.99):
            assert space.decode(picks, HEAD).blocks
            for choice, pick in picks.items():
                seen[choice].add(pick)
    assert seen == {choice: set(menu) for choice, menu in space.choices().items()}


def test_trunk_of_mnasnet_is_wide_of_middle_depth_and_of_the_cheaper_mbconv() -> None:
    assert {name.partition(".")[2]: pick for name, pick in trunk(MNASNET).items()} == {
        "op": "mbconv3", "kernel": 5, "se": 0.25, "skip": "identity", "width": 1.25, "depths": 0,
    }  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_trunk_has_all_channels_between_blocks(name: str) -> None:
    space = open_space(name, input_chw=(3, 32, 32))
    largest, middle = (space.decode(picks, HEAD) for picks in (space.corners()[1], trunk(space)))
    assert {b.out_ch for b in middle.blocks} == {b.out_ch for b in largest.blocks}
