from collections.abc import Sequence

import pytest

from nas.cost import count
from nas.refinement.places import KINDS, menu, places, shrunk
from nas.refinement.pricing import ByMacs
from nas.refinement.sizing import reachable, sized
from search_spaces import Architecture
from tests.nas.refinement.samples import CHAIN, many

MANY = many()
price = ByMacs().ms


def test_macs_are_those_of_the_cost_counter() -> None:
    assert price([CHAIN]) == [count(CHAIN).macs / 1e6]


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet_a1", "mnasnet 0", "mobilenetv3 1"])
@pytest.mark.parametrize("share", [0.995, 0.97, 0.9, 0.6])
def test_each_proposal_has_the_largest_size_that_meets_the_limit(name: str, share: float) -> None:
    arch = MANY[name]
    (limit,) = (share * ms for ms in price([arch]))
    expected = {}
    for place in places(arch, KINDS):  # every size of every place, by itself
        if meeting := [size for size in menu(arch, place) if price([shrunk(arch, place, size)])[0] <= limit]:
            expected[place] = max(meeting)
    found = sized(arch, places(arch, KINDS), limit, price)
    assert {p.place: p.size for p in found} == expected
    assert all(p.ms <= limit and p.ms == price([p.arch])[0] and p.arch == shrunk(arch, p.place, p.size) for p in found)


def test_wider_channels_that_are_faster_for_being_a_multiple_of_sixteen_are_found() -> None:
    def stairs(archs: Sequence[Architecture]) -> list[float]:
        return [sum(b.hidden_ch + (10 if b.hidden_ch % 16 else 0) for b in a.blocks) for a in archs]

    # blocks c and d give 160; of block b's channels 56 give 66, 48 give 48, 40 give 50 and 32 give 32: a limit of 209 allows 48
    (proposal,) = sized(CHAIN, [p for p in places(CHAIN, ("expansion",)) if p.block == 2], 209.0, stairs)
    assert proposal.size == 48


def test_estimates_that_rise_again_for_much_smaller_sizes_lose_no_proposal() -> None:
    def wary(archs: Sequence[Architecture]) -> list[float]:  # of what it has never seen it says something in the middle
        return [sum(b.hidden_ch if b.hidden_ch > 40 else 70 for b in a.blocks if b.hidden_ch) for a in archs]

    found = sized(CHAIN, places(CHAIN, ("expansion",)), 72 + 64 + 96 - 16.0, wary)
    assert {p.place.block: p.size for p in found} == {2: 56, 3: 48, 4: 80}


def test_place_that_cannot_save_enough_gives_no_proposal() -> None:
    (whole,) = price([CHAIN])
    found = sized(CHAIN, places(CHAIN, KINDS), 0.5 * whole, price)
    assert len(found) < len(places(CHAIN, KINDS))
    assert sized(CHAIN, places(CHAIN, KINDS), 0.0, price) == []
    assert sized(CHAIN, [], whole, price) == []


def test_all_places_are_estimated_together_in_few_calls() -> None:
    calls = []

    def counting(archs: Sequence[Architecture]) -> list[float]:
        calls.append(len(archs))
        return price(archs)

    arch = MANY["mobilenet_v2"]  # its widest layer has 640 channels: 79 sizes
    found = sized(arch, places(arch, KINDS), 0.97 * price([arch])[0], counting)
    assert len(calls) <= 15
    assert sum(calls) <= 10 * len(places(arch, KINDS))
    assert len(found) > 10


def test_step_that_no_place_reaches_is_halved_until_one_does() -> None:
    (now,) = price([CHAIN])
    options = places(CHAIN, ("kernel",))
    saves = {place: now - price([shrunk(CHAIN, place, menu(CHAIN, place)[-1])])[0] for place in options}
    most = max(saves.values())
    found, least = reachable(CHAIN, options, now, 3 * most, price)  # 3/2 of the most is too much still, 3/4 is not
    assert least == pytest.approx(3 / 4 * most)
    assert {p.place for p in found} == {place for place, saved in saves.items() if saved >= least}


def test_step_that_no_place_reaches_at_an_eighth_has_no_proposals() -> None:
    (now,) = price([CHAIN])
    assert reachable(CHAIN, places(CHAIN, ("kernel",)), now, 0.99 * now, price)[0] == []


def test_step_is_never_halved_below_what_can_be_measured() -> None:
    (now,) = price([CHAIN])
    options = places(CHAIN, ("kernel",))
    most = max(now - price([shrunk(CHAIN, place, menu(CHAIN, place)[-1])])[0] for place in options)
    found, least = reachable(CHAIN, options, now, 3 * most, price, 1.1 * most)  # 3/4 would do, and is less than that
    assert not found
    assert least == pytest.approx(1.1 * most)
    found, least = reachable(CHAIN, options, now, 3 * most, price, 0.9 * most)
    assert least == pytest.approx(0.9 * most)
    assert found
