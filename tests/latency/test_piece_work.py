"""The work of pieces against the traced torch modules and the emitted graphs."""

from math import prod

import numpy as np
import pytest

from latency.onnx_graph import emit_piece
from latency.piece_work import piece_work
from nas.cost import count
from search_spaces import BASELINES, SPACES, Architecture, Head, baseline, pieces
from tests.nas.models.networks import menu

NETWORKS: dict[str, Architecture] = {
    **menu(),
    **{name: baseline(name) for name in BASELINES},
    **{name: space.decode(space.sample(np.random.default_rng(2)), Head(outputs=7)) for name, space in SPACES.items()},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_are_those_of_the_traced_modules(name: str) -> None:
    assert sum(piece_work(p).macs for p in pieces(NETWORKS[name])) == count(NETWORKS[name]).macs


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_the_numbers_in_the_emitted_graphs(name: str) -> None:
    for piece in pieces(NETWORKS[name]):
        floats = [t for t in emit_piece(piece).graph.initializer if t.data_type == 1 and t.dims]
        assert piece_work(piece).weights == sum(prod(t.dims) for t in floats)


def test_elements_of_a_separable_block_are_those_counted_by_hand() -> None:
    # 6 channels of 13×11 in and out, SE, identity skip: depthwise 858 and its activation, the gate's product, project, sum
    arch = menu()["sepconv-se-sigmoid-relu"]
    found = piece_work(pieces(arch)[1])
    assert (found.in_elements, found.out_elements, found.written_elements) == (858, 858, 5 * 858)


def test_depthwise_share_is_counted_by_hand() -> None:
    # 12 hidden channels, 3×3 window, 13×11 map
    assert piece_work(pieces(menu()["mbconv-relu"])[1]).depthwise_macs == 12 * 9 * 143
