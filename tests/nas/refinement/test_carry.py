"""Which channels belong together is worked out here by name, and in the product by shape."""

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from nas.models import Network, build
from nas.refinement.carry import carried, matched
from nas.refinement.importance import Scores, l2_scores
from nas.refinement.places import Place, menu, places, shrunk
from search_spaces import Architecture, Block, Head
from tests.nas.models.networks import images, randomise
from tests.nas.refinement.samples import CHAIN, many

NETWORKS = {"chain": CHAIN} | {k: v for k, v in many().items() if k in ("mobilenet_v3_small", "mnasnet_a1", "mnasnet 0", "mnasnet 1")}
DRAWN = 4  # places of each network but the first, of which all are tried
CHANNELS = ("expansion", "bottleneck", "head", "se")


def trained(arch: Architecture, seed: int = 0) -> Network:
    """A network with weights and statistics that differ from channel to channel, in evaluation mode."""
    network = build(arch, generator=torch.Generator().manual_seed(seed))
    randomise(network, arch.input_chw, seed=seed)
    return network.eval()


@torch.no_grad()
def logits(network: Network, *, seed: int = 1) -> Tensor:
    """In double precision, so that only the order of summing is left as a difference; the module itself is not changed."""
    twin = build(network.arch).double()
    twin.load_state_dict(network.state_dict())
    found: Tensor = twin.eval()(images(network.arch.input_chw, seed=seed).double())
    return found


def silenced(arch: Architecture, place: Place) -> tuple[list[str], list[str]]:
    """Layers with these channels as outputs, and norms behind which they would otherwise come back to life."""
    if place.kind == "head":
        return ["head.hidden"], []
    if place.kind == "se":
        return [f"blocks.{place.block}.se.reduce"], []
    if place.kind == "expansion":
        return [f"blocks.{place.block}.expand.conv"], [f"blocks.{place.block}.expand.bn", f"blocks.{place.block}.depthwise.bn"]
    chain = [place.block]
    while chain[-1] + 1 < len(arch.blocks) and _adds(arch, chain[-1] + 1):
        chain.append(chain[-1] + 1)
    made = [f"blocks.{i}.{'conv' if arch.blocks[i].op == 'conv' else 'project'}" for i in chain]
    fed = [i for i in [*chain[1:], chain[-1] + 1] if i < len(arch.blocks) and arch.blocks[i].op == "sepconv"]
    return [f"{m}.conv" for m in made], [f"{m}.bn" for m in made] + [f"blocks.{i}.depthwise.bn" for i in fed]


def _adds(arch: Architecture, i: int) -> bool:
    block = arch.blocks[i]
    return block.skip == "identity" or (block.skip == "pool" and block.in_ch == block.out_ch)


@torch.no_grad()
def silence(network: Network, place: Place, dead: list[int]) -> None:
    layers, norms = silenced(network.arch, place)
    for name in layers:
        layer = network.get_submodule(name)
        for _, p in layer.named_parameters():
            p[dead] = 0
    for name in norms:
        for _, p in network.get_submodule(name).named_parameters():
            p[dead] = 0


def shifted_pool(arch: Architecture, place: Place) -> bool:
    """Whether a pooled shortcut between different widths lies at this bottleneck: it goes by position, and positions move."""
    chain = [place.block]
    while chain[-1] + 1 < len(arch.blocks) and _adds(arch, chain[-1] + 1):
        chain.append(chain[-1] + 1)
    touched = [arch.blocks[chain[0]], *(arch.blocks[i] for i in [chain[-1] + 1] if i < len(arch.blocks))]
    return place.kind == "bottleneck" and any(b.skip == "pool" and b.in_ch != b.out_ch for b in touched)


def cases() -> list[tuple[str, Place]]:
    rng, found = np.random.default_rng(0), []
    for name, arch in NETWORKS.items():
        fitting = [p for p in places(arch, CHANNELS) if menu(arch, p)[0] and not shifted_pool(arch, p)]  # type: ignore[arg-type]  # kinds
        drawn = range(len(fitting)) if arch == CHAIN else rng.choice(len(fitting), DRAWN, replace=False)
        found += [(name, fitting[i]) for i in drawn]
    return found


@pytest.mark.parametrize(("name", "place"), cases(), ids=lambda v: v if isinstance(v, str) else f"{v.kind}{v.block}")
def test_channels_of_zeros_go_first_and_change_no_output(name: str, place: Place) -> None:
    arch = NETWORKS[name]
    network, sizes = trained(arch), menu(arch, place)
    size = [s for s in sizes if s][:2][-1]
    small = shrunk(arch, place, size)
    width = max(a - b for a, b in zip(*(_sizes(a) for a in (arch, small)), strict=True)) + size
    dead = torch.randperm(width, generator=torch.Generator().manual_seed(3))[: width - size].tolist()
    silence(network, place, dead)
    before = logits(network)
    found = carried(network, place, small, l2_scores(network))
    assert (logits(found) - before).abs().max() <= 1e-9 * before.abs().max()


def _sizes(arch: Architecture) -> list[int]:
    """Every channel count, in one order."""
    blocks = [n for b in arch.blocks for n in (b.hidden_ch, b.out_ch, b.se_ch)]
    return [*blocks, arch.head.width_ch]


POOLED = Architecture(
    input_chw=(3, 16, 16),
    blocks=(
        Block(op="conv", in_ch=3, out_ch=16),
        Block(op="mbconv", in_ch=16, hidden_ch=32, out_ch=32, stride=2, skip="pool"),
        Block(op="mbconv", in_ch=32, hidden_ch=48, out_ch=40, stride=2, skip="pool"),
    ),
    head=Head(outputs=5),
)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_beside_a_pooled_shortcut_the_last_channels_go_whatever_their_scores(block: int) -> None:
    """It adds the first channels to the first: with others gone it would add to other ones. The shortcut's own are left alive."""
    network, place = trained(POOLED), Place(kind="bottleneck", block=block)
    size = POOLED.blocks[block].out_ch - 8
    silence(network, place, list(range(size, size + 8)))
    rising: Scores = {key: torch.arange(rows.shape[1], dtype=torch.float32)[None] for key, rows in l2_scores(network).items()}
    found = carried(network, place, shrunk(POOLED, place, size), rising)
    assert (logits(found) - logits(network)).abs().max() <= 1e-9 * logits(network).abs().max()


def test_permuting_hidden_channels_keeps_the_function_and_what_is_carried() -> None:
    place = Place(kind="expansion", block=2)
    network, order = trained(CHAIN), torch.randperm(72, generator=torch.Generator().manual_seed(0))
    twin = build(CHAIN)
    state = dict(network.state_dict())
    for key in state:
        if key.startswith(("blocks.2.expand.", "blocks.2.depthwise.", "blocks.2.se.expand.")) and state[key].ndim:
            state[key] = state[key][order]
        elif key in ("blocks.2.project.conv.weight", "blocks.2.se.reduce.weight"):
            state[key] = state[key][:, order]
    twin.load_state_dict(state)
    assert (logits(twin) - logits(network)).abs().max() < 1e-10
    small = shrunk(CHAIN, place, 40)
    ours, theirs = (carried(n, place, small, l2_scores(n)) for n in (network, twin.eval()))
    assert (logits(ours) - logits(theirs)).abs().max() < 1e-10


def test_the_filters_with_the_largest_norms_stay_in_their_order() -> None:
    network, place = trained(CHAIN), Place(kind="expansion", block=3)
    with torch.no_grad():
        network.get_parameter("blocks.3.expand.conv.weight").mul_(torch.linspace(1, 2, 64).flip(0).view(-1, 1, 1, 1) ** 4)
    found = carried(network, place, shrunk(CHAIN, place, 24), l2_scores(network))
    norms = [float(sum(w**2 for w in row)) for row in network.state_dict()["blocks.3.expand.conv.weight"].flatten(1).tolist()]
    best = sorted(sorted(range(64), key=lambda i: -norms[i])[:24])
    for key, picked in (("expand.conv.weight", best), ("expand.bn.running_var", best), ("depthwise.conv.weight", best)):
        assert torch.equal(found.state_dict()[f"blocks.3.{key}"], network.state_dict()[f"blocks.3.{key}"][picked])
    assert torch.equal(found.state_dict()["blocks.3.project.conv.weight"], network.state_dict()["blocks.3.project.conv.weight"][:, best])


def test_bottleneck_sums_the_norms_of_all_blocks_that_share_it() -> None:
    network, place = trained(CHAIN), Place(kind="bottleneck", block=1)
    found = carried(network, place, shrunk(CHAIN, place, 8), l2_scores(network))
    filters = [network.state_dict()[f"blocks.{i}.project.conv.weight"].flatten(1) for i in (1, 2, 3)]
    sums = [sum(float(f[c].square().sum()) ** 0.5 for f in filters) for c in range(24)]
    best = sorted(sorted(range(24), key=lambda c: -sums[c])[:8])
    assert torch.equal(found.state_dict()["blocks.2.project.bn.weight"], network.state_dict()["blocks.2.project.bn.weight"][best])
    assert torch.equal(found.state_dict()["blocks.4.expand.conv.weight"], network.state_dict()["blocks.4.expand.conv.weight"][:, best])


def test_block_that_adds_nothing_can_be_left_out() -> None:
    network, place = trained(CHAIN), Place(kind="depth", block=2)
    with torch.no_grad():
        for name in ("weight", "bias"):
            network.get_parameter(f"blocks.2.project.bn.{name}").zero_()
    found = carried(network, place, shrunk(CHAIN, place, 0), l2_scores(network))
    assert (logits(found) - logits(network)).abs().max() < 1e-10


def test_kernel_keeps_its_centre() -> None:
    network, place = trained(CHAIN), Place(kind="kernel", block=4)
    with torch.no_grad():
        kernel = network.get_parameter("blocks.4.depthwise.conv.weight")
        kernel[:, :, [0, 1, -1, -2]] = 0
        kernel[:, :, :, [0, 1, -1, -2]] = 0
    found = carried(network, place, shrunk(CHAIN, place, 3), l2_scores(network))
    assert (logits(found) - logits(network)).abs().max() < 1e-10


def test_gate_that_is_always_one_can_be_left_out() -> None:
    network, place = trained(CHAIN), Place(kind="se", block=2)
    with torch.no_grad():
        network.get_parameter("blocks.2.se.expand.weight").zero_()
        network.get_parameter("blocks.2.se.expand.bias").fill_(4)  # the hard sigmoid is 1 from 3 on
    found = carried(network, place, shrunk(CHAIN, place, 0), l2_scores(network))
    assert (logits(found) - logits(network)).abs().max() < 1e-10


def test_network_carried_from_is_left_as_it_was() -> None:
    network, place = trained(CHAIN), Place(kind="bottleneck", block=1)
    before = {key: t.clone() for key, t in network.state_dict().items()}
    carried(network, place, shrunk(CHAIN, place, 8), l2_scores(network))
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())


def test_equal_scores_keep_the_first_channels() -> None:
    network, place = trained(CHAIN), Place(kind="expansion", block=3)
    equal: Scores = {key: torch.ones_like(rows) for key, rows in l2_scores(network).items()}
    found = carried(network, place, shrunk(CHAIN, place, 16), equal)
    assert torch.equal(found.state_dict()["blocks.3.expand.conv.weight"], network.state_dict()["blocks.3.expand.conv.weight"][:16])


def test_head_for_other_classes_is_drawn_anew_and_the_rest_is_kept() -> None:
    network = trained(CHAIN)
    other = msgspec.structs.replace(CHAIN, head=Head(outputs=9, width_ch=32, act="hswish"))
    found, drawn = matched(other, network.state_dict(), generator=torch.Generator().manual_seed(2))
    assert drawn == ("head.out.weight", "head.out.bias")
    assert all(torch.equal(t, network.state_dict()[key]) for key, t in found.state_dict().items() if key not in drawn)
    again, _ = matched(other, network.state_dict(), generator=torch.Generator().manual_seed(2))
    assert torch.equal(found.head.out.weight, again.head.out.weight)  # type: ignore[union-attr, arg-type]  # a Linear
