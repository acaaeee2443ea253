"""``build``: shapes, determinism, gradients, state keys, taps."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.models import build
from search_spaces import SPACES
from search_spaces.architecture import Architecture, Block, Head, Tap, pieces
from search_spaces.baselines import BASELINES, baseline
from search_spaces.errors import InvalidArchitecture
from tests.nas.models.networks import images, menu, network, single

MENU = menu()


def tapped(point: str, op: str = "mbconv") -> Architecture:
    arch = single(op, se_ch=3)
    return Architecture(
        input_chw=arch.input_chw, blocks=arch.blocks, head=arch.head, taps=(Tap(block=1, point=point), Tap(block=0)),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", MENU)
def test_every_setting_learns_in_all_its_parameters(name: str) -> None:
    arch = MENU[name]
    module = build(arch, generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(module(images(arch.input_chw, count=8)), torch.arange(8) % arch.head.outputs)
    torch.autograd.backward(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("name", MENU)
def test_every_block_gives_the_shape_its_piece_says(name: str) -> None:
    x = images(MENU[name].input_chw)
    module = network(MENU[name])
    for layer, piece in zip(module.blocks, pieces(MENU[name]), strict=False):
        x = layer(x)
        assert tuple(x.shape[1:]) == piece.out_chw


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_samples_of_every_space_run_forward_and_backward(name: str, seed: int) -> None:
    space = SPACES[name].at(width=0.35)
    arch = space.decode(space.sample(np.random.default_rng(seed)), Head(outputs=3))
    chw = (arch.input_chw[0], 1, 96) if arch.input_chw[1] == 1 else (arch.input_chw[0], 40, 40)
    module = build(arch, generator=torch.Generator().manual_seed(0))
    torch.autograd.backward(F.cross_entropy(module(images(chw)), torch.arange(4) % 3))
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("name", ["mbconv-se-hsigmoid-hswish", "conv-pool-9-s2", "sepconv-pool-4-s1"])
def test_channels_last_survives_the_blocks_and_changes_no_result(name: str) -> None:
    module, x = network(MENU[name]), images(MENU[name].input_chw)
    plain = module(x)
    y = x.to(memory_format=torch.channels_last)
    module.to(memory_format=torch.channels_last)
    torch.testing.assert_close(module(y), plain, rtol=1e-4, atol=1e-5)
    for layer in module.blocks:
        y = layer(y)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_generator_fixes_the_weights() -> None:
    first, second = (build(MENU["mbconv-relu"], generator=torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_another_generator_gives_other_weights() -> None:
    first, second = (build(MENU["mbconv-relu"], generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not torch.equal(first.get_parameter("head.out.weight"), second.get_parameter("head.out.weight"))


def test_a_generator_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    build(MENU["mbconv-relu"], generator=torch.Generator())
    assert torch.equal(before, torch.random.get_rng_state())


def test_initial_convolutions_have_variance_two_over_fan_out() -> None:
    arch = single("mbconv", in_ch=64, hidden_ch=256, kernel=5)
    module = build(arch, generator=torch.Generator().manual_seed(0))
    assert module.get_parameter("blocks.1.expand.conv.weight").var().item() == pytest.approx(2 / 256, rel=0.1)
    assert module.get_parameter("blocks.1.depthwise.conv.weight").var().item() == pytest.approx(2 / 25, rel=0.1)


def test_on_meta_nothing_is_allocated() -> None:
    assert {p.device.type for p in build(MENU["mbconv-relu"], device="meta").parameters()} == {"meta"}


def test_functional_call_on_a_meta_network_equals_the_network() -> None:
    arch = MENU["mbconv-se-hsigmoid-hswish"]
    module, x = network(arch), images(arch.input_chw)
    skeleton = build(arch, device="meta").eval()
    assert torch.equal(torch.func.functional_call(skeleton, module.state_dict(), (x,)), module(x))


def test_state_keys_are_the_contract_and_no_more() -> None:
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    head = {"head.out.weight", "head.out.bias"}
    expected = head | {
        f"blocks.{place}.{key}" for place in ("0.conv", "1.expand", "1.depthwise", "1.project")
        for key in ("conv.weight", *(f"bn.{k}" for k in bn))
    } | {f"blocks.1.se.{layer}.{key}" for layer in ("reduce", "expand") for key in ("weight", "bias")}
    assert set(build(single("mbconv", se_ch=3)).state_dict()) == expected
    assert {k for k in build(MENU["head-hidden"]).state_dict() if "head" in k} == head | {"head.hidden.weight", "head.hidden.bias"}


def test_dropout_acts_in_training_and_not_in_evaluation() -> None:
    module, x = build(MENU["conv-relu"], dropout=0.5), images((3, 13, 11))
    module.eval()
    assert torch.equal(module(x), module(x))
    module.head.train()
    assert not torch.equal(module(x), module(x))


def test_dropout_leaves_the_weights_of_a_generator_alone() -> None:
    plain, dropped = (build(MENU["conv-relu"], dropout=p, generator=torch.Generator().manual_seed(0)) for p in (0.0, 0.5))
    assert torch.equal(plain.get_parameter("head.out.weight"), dropped.get_parameter("head.out.weight"))


def test_a_pool_skip_averages_without_its_padding_and_pads_channels_at_the_end() -> None:
    arch = single("conv", in_ch=1, out_ch=2, skip="pool", act="none", input_chw=(1, 2, 2))
    layer = build(arch).eval().blocks[1]
    torch.nn.init.zeros_(layer.get_parameter("conv.conv.weight"))
    found = layer(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]))
    assert found.tolist() == [[[[3.0, 3.0], [3.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]]


@pytest.mark.parametrize(("point", "channels"), [("expand", 12), ("depthwise", 12), ("output", 6)])
def test_taps_hand_out_the_named_maps_in_order(point: str, channels: int) -> None:
    module, x = network(tapped(point)), images((3, 13, 11))
    result, maps = module.forward_taps(x)
    assert torch.equal(result, module(x))
    assert [m.shape[1] for m in maps] == [channels, 6]


def test_the_depthwise_tap_is_before_squeeze_and_excite() -> None:
    module, x = network(tapped("depthwise")), images((3, 13, 11))
    caught: list[torch.Tensor] = []
    module.get_submodule("blocks.1.se").register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].clone()))
    assert torch.equal(module.forward_taps(x)[1][0], caught[0])


def test_a_tap_that_its_block_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidArchitecture, match="block 1 is a sepconv and has no point 'expand'"):
        build(tapped("expand", op="sepconv"))


def test_a_network_can_be_copied() -> None:
    module, x = network(MENU["mbconv-relu"]), images((3, 13, 11))
    assert torch.equal(copy.deepcopy(module)(x), module(x))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_gives_logits(name: str) -> None:
    arch = baseline(name, width=0.35, input_chw=(3, 64, 64), outputs=10)
    assert build(arch).eval()(images((3, 64, 64), count=1)).shape == (1, 10)


def test_a_two_dimensional_map_of_height_one_keeps_square_kernels() -> None:
    blocks = (Block(op="conv", in_ch=3, out_ch=4, stride=2), Block(op="sepconv", in_ch=4, out_ch=4, kernel=5))
    arch = Architecture(input_chw=(3, 2, 8), blocks=blocks, head=Head(outputs=2))
    assert build(arch).get_parameter("blocks.1.depthwise.conv.weight").shape == (4, 1, 5, 5)


def test_a_one_dimensional_network_has_flat_kernels() -> None:
    arch = single("mbconv", input_chw=(2, 1, 16), kernel=5)
    assert build(arch).get_parameter("blocks.1.depthwise.conv.weight").shape == (12, 1, 1, 5)
