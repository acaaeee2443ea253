"""``count`` against hand arithmetic, published counts, torchvision's numbers and a counter by forward hooks."""

import numpy as np
import pytest
import torch
from torch import nn

from nas.cost import count
from nas.models import build
from nas.models.counting import params_macs_peak
from search_spaces import SPACES
from search_spaces.architecture import Architecture, Block, Head
from search_spaces.baselines import BASELINES, baseline
from search_spaces.errors import UnknownName
from tests.nas.models.networks import menu, single

MENU = menu()
PUBLISHED = {  # parameters and millions of MACs at 224 px and 1000 classes
    "mobilenet_v2": (3_504_872, 300.8),
    "mnasnet_a1": (3_887_038, 311.6),
    "mnasnet_b1": (4_383_312, 314.4),
    "mnasnet_small": (2_030_264, 68.3),
    "mobilenet_v3_large": (5_483_032, 216.6),
    "mobilenet_v3_small": (2_542_856, 56.5),
    "mobilenet_v3_large_minimal": (3_924_288, 209.1),
    "mobilenet_v3_small_minimal": (2_044_736, 52.3),
}


def macs_by_hooks(arch: Architecture) -> int:
    """A second counter: output elements times inputs per output, from hooks on a real forward pass."""
    found: list[int] = []

    def see(part: nn.Module, inputs: tuple[torch.Tensor], result: torch.Tensor) -> None:
        per_output = part.in_channels // part.groups * np.prod(part.kernel_size) if isinstance(part, nn.Conv2d) else inputs[0].shape[1]
        found.append(result.numel() * int(per_output))

    module = build(arch).eval()
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(see)
    with torch.no_grad():
        module(torch.zeros(1, *arch.input_chw))
    return sum(found)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_cost_what_was_published(name: str) -> None:
    cost = count(baseline(name))
    assert (cost.params, round(cost.macs / 1e6, 1)) == PUBLISHED[name]


def test_mobilenet_v2_for_cifar_costs_what_was_published() -> None:
    cost = count(baseline("mobilenet_v2", input_chw=(3, 32, 32), outputs=10))
    assert (cost.params, round(cost.macs / 1e6, 1)) == (2_236_682, 88.0)


@pytest.mark.parametrize(
    ("name", "width", "outputs", "params"),
    [
        ("mobilenet_v2", 1.4, 1000, 6_108_776),
        ("mnasnet_b1", 0.5, 1000, 2_218_512),
        ("mnasnet_b1", 0.75, 1000, 3_170_208),
        ("mnasnet_b1", 1.3, 1000, 6_282_256),
        ("mobilenet_v3_large", 0.75, 1001, 3_994_809),
    ],
)
def test_widened_baselines_have_the_published_parameters(name: str, width: float, outputs: int, params: int) -> None:
    assert count(baseline(name, width=width, outputs=outputs)).params == params


@pytest.mark.parametrize("name", MENU)
def test_macs_equal_a_counter_by_hooks_for_every_setting(name: str) -> None:
    assert count(MENU[name]).macs == macs_by_hooks(MENU[name])


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_params_and_macs_equal_the_built_module_for_samples_of_every_space(name: str, seed: int) -> None:
    space = SPACES[name].at(width=0.35)
    arch = space.decode(space.sample(np.random.default_rng(seed)), Head(outputs=10))
    cost = count(arch)
    assert cost.params == sum(p.numel() for p in build(arch, device="meta").parameters())
    assert cost.macs == macs_by_hooks(arch)


def test_a_small_convolution_by_hand() -> None:
    # Stem 3->4, 3×3 stride 2 on 8×8: output 4×4×4 = 64 numbers, each 27 products. Head: 4 -> 2.
    arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=4, stride=2),), head=Head(outputs=2))
    cost = count(arch)
    assert cost.params == 3 * 4 * 9 + 2 * 4 + 4 * 2 + 2
    assert cost.macs == 64 * 27 + 8
    assert cost.peak_activation_bytes == 4 * (3 * 64 + 64)  # the input and the convolution's result


def peak_of_block(arch: Architecture, index: int = 1) -> int:
    """Peak bytes of one block alone, its in_chw as in the architecture's stem output."""
    return params_macs_peak(build(arch, device="meta").blocks[index], (arch.blocks[index].in_ch, *arch.input_chw[1:]))[2]


def test_a_residual_keeps_its_input_until_the_addition() -> None:
    # 6 -> 12 -> 12 -> 6 channels on 10×10: worst is BN or depthwise at 12+12 with the input of 6 waiting.
    assert peak_of_block(single(input_chw=(3, 10, 10), skip="identity")) == 4 * 100 * (6 + 12 + 12)


def test_without_a_skip_the_input_dies_after_its_last_use() -> None:
    assert peak_of_block(single(input_chw=(3, 10, 10))) == 4 * 100 * (12 + 12)


@pytest.mark.parametrize("act", ["relu", "none"])
def test_squeeze_and_excite_keeps_the_map_while_its_gate_is_computed(act: str) -> None:
    # The multiplication: the map of 4, the gate of 4 single numbers, and the product of 4, on 5×5.
    assert peak_of_block(single("conv", input_chw=(3, 5, 5), in_ch=1, out_ch=4, se_ch=2, act=act)) == 4 * (100 + 4 + 100)


def test_a_pool_skip_that_widens_is_worst_at_the_addition() -> None:
    # The result of 9, the padded pool of 9, their sum of 9, on 10×10; before it BN has 6 + 9 + 9, the padding 9 + 6 + 9.
    assert peak_of_block(single("conv", input_chw=(3, 10, 10), out_ch=9, skip="pool")) == 4 * 100 * (9 + 9 + 9)


def test_a_pool_skip_that_narrows_keeps_its_input_past_the_depthwise_convolution() -> None:
    # sepconv 6 -> 4: depthwise BN has 6 + 6 and the waiting input of 6; the cut later only 4 + 6 + 4.
    assert peak_of_block(single("sepconv", input_chw=(3, 10, 10), out_ch=4, skip="pool")) == 4 * 100 * (6 + 6 + 6)


def test_the_peak_of_v3_large_is_its_second_block() -> None:
    # 64 channels at 112×112, before and after the expansion's BN.
    assert count(baseline("mobilenet_v3_large")).peak_activation_bytes == 4 * 112 * 112 * (64 + 64)


def test_taps_cost_nothing() -> None:
    arch = MENU["head-hidden"]
    assert count(arch) == count(Architecture(input_chw=arch.input_chw, blocks=arch.blocks, head=arch.head))


def test_an_unknown_layer_raises() -> None:
    with pytest.raises(UnknownName, match="unknown layer in the cost counter 'ConvTranspose2d'"):
        params_macs_peak(nn.Sequential(nn.ConvTranspose2d(3, 4, 3, device="meta")), (3, 8, 8))


def test_an_unknown_function_raises() -> None:
    class Squares(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.matmul(x, x)

    with pytest.raises(UnknownName, match="unknown function in the cost counter 'matmul'"):
        params_macs_peak(Squares(), (3, 8, 8))
