import numpy as np
import pytest

from nas.cost import count
from nas.refinement.around import Around, around
from nas.refinement.places import KINDS, places
from nas.refinement.pricing import ByMacs
from nas.refinement.scaling import scaled
from tests.nas.refinement.samples import CHAIN, many

MANY = many()
macs = ByMacs().ms


def test_menus_are_widths_at_the_factors_in_multiples_of_8() -> None:
    found = Around(arch=CHAIN, kinds=("expansion", "bottleneck"), factors=(1.0, 0.75, 0.5)).choices()
    assert found == {
        # expansions 72, 64, 96; 72 · 0.75 = 54 goes to 56 and 72 · 0.5 = 36 to 40
        "expansion.2": (72, 56, 40), "expansion.3": (64, 48, 32), "expansion.4": (96, 72, 48),
        # stem 16: 12 goes to 16, which is no change; a to c 24: 18 goes to 24 (16 is below 90 %), 12 to 16; d and e 40; last 64
        "bottleneck.0": (16, 8), "bottleneck.1": (24, 16), "bottleneck.4": (40, 32, 24), "bottleneck.6": (64, 48, 32),
    }  # fmt: skip


def test_first_of_every_menu_is_the_seed_itself() -> None:
    space = Around(arch=CHAIN, kinds=KINDS, factors=(1.0, 0.5))
    assert space.decode({name: menu[0] for name, menu in space.choices().items()}, CHAIN.head) == CHAIN


@pytest.mark.parametrize("name", MANY)
def test_every_draw_is_an_architecture_that_costs_no_more(name: str) -> None:
    arch, rng = MANY[name], np.random.default_rng(3)
    space = Around(arch=arch, kinds=KINDS, factors=(1.0, 0.75, 0.5, 0.25))
    for _ in range(3):
        picks = {choice: menu[int(rng.integers(len(menu)))] for choice, menu in space.choices().items()}
        found = space.decode(picks, arch.head)
        assert count(found).macs <= count(arch).macs
        assert found.head == arch.head or found.head.width_ch < arch.head.width_ch


def test_every_place_of_the_kinds_is_a_choice() -> None:
    space = Around(arch=CHAIN, kinds=("kernel", "depth", "se"), factors=(1.0,))
    assert set(space.choices()) == {f"{p.kind}.{p.block}" for p in places(CHAIN, ("kernel", "depth", "se"))}


def test_half_of_the_widths_lie_on_each_side_of_the_factor_that_would_do() -> None:
    arch = MANY["mobilenet_v2"]
    target = macs([scaled(arch, 0.7)])[0]
    found = around(arch, ("expansion", "bottleneck"), target, macs)
    assert found.factors[0] == 1
    assert found.factors[-1] == pytest.approx(2 * 0.7 - 1, abs=0.15)  # both only to the next 8 channels, and uniform scaling has the head
    rng = np.random.default_rng(0)
    picks = ({n: m[int(rng.integers(len(m)))] for n, m in found.choices().items()} for _ in range(20))
    drawn = [found.decode(p, arch.head) for p in picks]
    assert min(macs(drawn)) < target < max(macs(drawn))
