import numpy as np
import pytest
import torch

from latency.onnx_graph import emit
from nas.cost import count
from nas.models import build
from nas.models.taps import second_to_last, stage_ends, tap_ch, with_taps
from search_spaces import BASELINES, SPACES, Architecture, Block, Head, Tap, baseline

BASELINE = baseline("mobilenet_v2", input_chw=(3, 64, 64), outputs=10)


def sampled(name: str, count: int = 5) -> list[Architecture]:
    rng = np.random.default_rng(0)
    space = SPACES[name].at(width=0.5, input_chw=(3, 64, 64))
    return [space.decode(space.sample(rng), Head(outputs=10)) for _ in range(count)]


def test_stages_of_mobilenet_v2_end_where_its_table_says() -> None:
    whole = baseline("mobilenet_v2")
    assert [tap_ch(whole, t) for t in stage_ends(whole)] == [16, 24, 32, 96, 320]


def test_feature_of_uskd_is_the_320_channels_before_the_last_convolution() -> None:
    assert tap_ch(BASELINE, second_to_last(BASELINE)) == 320


def test_without_a_last_convolution_the_second_to_last_stage_counts() -> None:
    blocks = tuple(Block(op="conv", in_ch=i, out_ch=o, stride=2) for i, o in ((3, 8), (8, 16), (16, 24)))
    arch = Architecture(input_chw=(3, 16, 16), blocks=blocks, head=Head(outputs=2))
    assert second_to_last(arch) == Tap(block=1)


def test_network_of_one_stage_is_tapped_at_its_end() -> None:
    arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=8),), head=Head(outputs=2))
    assert second_to_last(arch) == Tap(block=0)


@pytest.mark.parametrize("name", SPACES)
def test_every_architecture_hands_out_its_stage_ends(name: str) -> None:
    for arch in sampled(name):
        taps = (*stage_ends(arch), second_to_last(arch))
        network = build(with_taps(arch, *taps), generator=torch.Generator().manual_seed(0)).eval()
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            logits, features = network.forward_taps(x)
            assert torch.equal(logits, network(x))
        assert [f.shape[1] for f in features] == [tap_ch(arch, t) for t in taps]
        sizes = [f.shape[2] for f in features[:-1]]
        assert sizes == sorted(set(sizes), reverse=True)


@pytest.mark.parametrize("name", BASELINES)
def test_points_inside_a_block_have_the_channels_that_are_promised(name: str) -> None:
    arch = baseline(name, width=0.5, input_chw=(3, 32, 32), outputs=10)
    i = next(i for i, b in enumerate(arch.blocks) if b.op == "mbconv")
    taps = (Tap(block=i, point="expand"), Tap(block=i, point="depthwise"))
    _, features = build(with_taps(arch, *taps)).eval().forward_taps(torch.randn(1, 3, 32, 32))
    assert [f.shape[1] for f in features] == [tap_ch(arch, t) for t in taps]


@pytest.mark.parametrize("name", SPACES)
def test_taps_change_neither_identity_nor_cost_nor_export(name: str) -> None:
    for arch in sampled(name, 2):
        tapped = with_taps(arch, *stage_ends(arch))
        assert tapped.id == arch.id
        assert count(tapped) == count(arch)
        assert emit(tapped).SerializeToString(deterministic=True) == emit(arch).SerializeToString(deterministic=True)
        assert list(build(tapped, device="meta").state_dict()) == list(build(arch, device="meta").state_dict())
