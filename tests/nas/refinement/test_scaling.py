from collections.abc import Sequence

import pytest

from nas.refinement.pricing import ByMacs
from nas.refinement.scaling import scaled, scaled_to
from search_spaces import Architecture, baseline
from tests.nas.refinement.samples import CHAIN, many

MANY = many()
price = ByMacs().ms


def test_every_width_is_scaled_to_the_nearest_multiple_of_eight() -> None:
    found = scaled(CHAIN, 0.5)
    assert [b.out_ch for b in found.blocks] == [8, 16, 16, 16, 24, 24, 32]  # 24 · 0.5 = 12 rounds to 16: 8 would lose more than 10 %
    assert [b.hidden_ch for b in found.blocks] == [0, 0, 40, 32, 48, 0, 0]
    assert [b.se_ch for b in found.blocks] == [0, 0, 16, 0, 0, 8, 8]
    assert found.head.width_ch == 16


def test_mobilenet_v2_scales_as_published() -> None:
    wide, half = (baseline("mobilenet_v2", width=width, input_chw=(3, 32, 32), outputs=10) for width in (1.0, 0.5))
    found = scaled(wide, 0.5)
    assert [b.out_ch for b in found.blocks[:-1]] == [b.out_ch for b in half.blocks[:-1]]  # the last convolution is kept there below 1


@pytest.mark.parametrize("name", MANY)
def test_any_factor_gives_a_valid_network(name: str) -> None:
    for factor in (0.05, 0.3, 0.77, 0.99):
        assert len(scaled(MANY[name], factor).blocks) == len(MANY[name].blocks)


def test_networks_for_latencies_come_near_them_and_few_are_measured() -> None:
    arch, asked = MANY["mobilenet_v3_large"], list[int]()
    (whole,) = price([arch])

    def counting(archs: Sequence[Architecture]) -> list[float]:
        asked.append(len(archs))
        return price(archs)

    found = scaled_to(arch, [0.7 * whole, 0.5 * whole], counting)
    assert [price([a])[0] / whole for _, a in found] == [pytest.approx(0.7, abs=0.03), pytest.approx(0.5, abs=0.03)]
    assert all(scaled(arch, factor) == a for factor, a in found)
    assert len(asked) == 1
    assert asked[0] <= 17


def test_widths_that_the_device_cannot_run_are_left_out() -> None:
    (whole,) = price([CHAIN])
    assert scaled_to(CHAIN, [0.5 * whole], lambda archs: [float("inf")] * len(archs)) == []


def test_equal_networks_stand_once() -> None:
    (whole,) = price([CHAIN])
    assert len(scaled_to(CHAIN, [0.5 * whole, 0.5 * whole], price)) == 1
