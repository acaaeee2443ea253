"""The bank of every space against stand-alone networks: shapes by listing members, results bit for bit."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.errors import InvalidArchitecture
from nas.models import build
from nas.sharing.bank import bank_shapes, inherit, new_bank, parameters, skeleton, supernet, views
from search_spaces import SPACES, Architecture, Head, SearchSpace, from_toml, open_space
from tests.nas.models.networks import images, network
from tests.nas.small import SPACE

HEADS = {"plain": Head(outputs=3), "hidden": Head(outputs=4, width_ch=24, act="hswish")}
BLOCKWISE = """
[stem]
out_ch = 8
kernel = 3

[[stages]]
name = "a"
out_ch = 8
stride = 2
op = ["conv", "mbconv"]
expand = [1.0, 2.0]
kernel = [3, 5]
se = 0.5
width = [1.0, 2.0]
depths = [0, 1]
vary = "block"
skip = "pool"
"""
ROOT = Path(__file__).resolve().parents[3]


def of_text(text: str, folder: Path, input_chw: tuple[int, int, int] = (3, 16, 16)) -> SearchSpace:
    path = folder / "space.toml"
    path.write_text(text)
    return from_toml(path).at(input_chw=input_chw)


def members(space: SearchSpace, head: Head) -> Iterator[Architecture]:
    """The network of every combination of picks, each once."""
    choices = space.choices()
    return iter(
        dict.fromkeys(space.decode(dict(zip(choices, picks, strict=True)), head) for picks in itertools.product(*choices.values()))
    )


def some(space: SearchSpace, head: Head, count: int = 3) -> list[Architecture]:
    """The corners and a few at random."""
    rng = np.random.default_rng(0)
    return [space.decode(picks, head) for picks in (*space.corners(), *(space.sample(rng) for _ in range(count)))]


def named(arch: Architecture) -> dict[str, str]:
    """State key → name in a bank, by the rule in words: place, op, then the module's own name."""
    keys = [k for k in build(arch, device="meta").state_dict() if not k.endswith("num_batches_tracked")]
    found = {}
    for key in keys:
        first, number, *rest = key.split(".")
        block = arch.blocks[int(number)] if first == "blocks" else None
        found[key] = f"{block.name}.{block.op}.{'.'.join(rest)}" if block else key
    return found


def within(whole: Tensor, small: Tensor) -> Tensor:
    """The part of a tensor that a smaller one stands for, cut axis by axis: first channels, centre of the kernel."""
    for axis, n in enumerate(small.shape):
        start = (whole.shape[axis] - n) // 2 if axis >= 2 else 0
        whole = whole.narrow(axis, start, n)
    return whole


def bank_of_one(shapes: dict[str, tuple[int, ...]], arch: Architecture, module: nn.Module) -> dict[str, Tensor]:
    """A bank that holds one network's tensors, and not a number wherever that network has no business."""
    bank = {name: torch.full(shape, torch.nan) for name, shape in shapes.items()}
    state = module.state_dict()
    for key, name in named(arch).items():
        within(bank[name], state[key]).copy_(state[key])
    return bank


def assert_bit_equal(space: SearchSpace, head: Head, archs: list[Architecture]) -> None:
    shapes, x = bank_shapes(space, head), images(space.input_chw).contiguous(memory_format=torch.channels_last)
    for arch in archs:
        alone = network(arch).to(memory_format=torch.channels_last)
        bank = bank_of_one(shapes, arch, alone)
        with torch.no_grad():
            want = alone(x)
            assert torch.equal(supernet(bank, arch, x), want)
            assert torch.equal(inherit(bank, arch)(x), want)


@pytest.mark.parametrize("text", [SPACE, BLOCKWISE], ids=["stagewise", "blockwise"])
def test_bank_has_the_largest_tensor_that_any_member_needs_and_no_larger(text: str, tmp_path: Path) -> None:
    space, head = of_text(text, tmp_path), HEADS["hidden"]
    needed: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for arch in members(space, head):
        state = build(arch, device="meta").state_dict()
        for key, name in named(arch).items():
            needed[name].append(tuple(state[key].shape))
    assert bank_shapes(space, head) == {name: tuple(map(max, zip(*found, strict=True))) for name, found in needed.items()}


@pytest.mark.parametrize("name", SPACES)
def test_bank_of_every_space_holds_its_corners_and_samples_at_full_width_and_of_signals(name: str) -> None:
    space = open_space(name, input_chw=(4, 1, 64))
    bank = {key: torch.empty(shape, device="meta") for key, shape in bank_shapes(space, HEADS["plain"]).items()}
    for arch in some(space, HEADS["plain"], 2):
        state = build(arch, device="meta").state_dict()
        assert {key: view.shape for key, view in views(bank, arch).items()} == {key: state[key].shape for key in named(arch)}


@pytest.mark.parametrize("name", SPACES)
def test_network_in_a_bank_equals_the_stand_alone_one_bit_for_bit(name: str) -> None:
    space = open_space(name, width=0.35, input_chw=(3, 32, 32))
    assert_bit_equal(space, HEADS["plain"], some(space, HEADS["plain"]))


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_every_head_is_inherited_bit_for_bit(head: Head) -> None:
    space = open_space("tiny", input_chw=(3, 32, 32))
    assert_bit_equal(space, head, some(space, head, 2))


def test_users_space_and_blocks_that_vary_are_inherited_bit_for_bit(tmp_path: Path) -> None:
    for space in (from_toml(ROOT / "docs" / "my_space.toml").at(input_chw=(3, 32, 32)), of_text(BLOCKWISE, tmp_path)):
        assert_bit_equal(space, HEADS["plain"], some(space, HEADS["plain"]))


def test_one_dimensional_networks_are_inherited_bit_for_bit() -> None:
    space = open_space("tiny", input_chw=(4, 1, 96))
    assert_bit_equal(space, HEADS["plain"], some(space, HEADS["plain"]))


def test_gradients_reach_the_slices_and_nothing_else() -> None:
    space = open_space("tiny", input_chw=(3, 16, 16))
    bank = new_bank(space, HEADS["plain"], generator=torch.Generator().manual_seed(0))
    trained = {name: tensor.requires_grad_() for name, tensor in parameters(bank).items()}
    arch = some(space, HEADS["plain"])[3]
    torch.autograd.backward(supernet(bank, arch, images(space.input_chw)).square().sum())
    state, used = build(arch, device="meta").state_dict(), {name: key for key, name in named(arch).items()}
    for name, tensor in trained.items():
        if name not in used:
            assert tensor.grad is None
            continue
        assert tensor.grad is not None
        inside = torch.zeros_like(tensor, dtype=torch.bool)
        within(inside, state[used[name]]).fill_(True)
        assert not tensor.grad[~inside].any()
    assert bank["stem.conv.conv.conv.weight"].grad is not None
    assert bank["stem.conv.conv.conv.weight"].grad.any()


def test_views_share_the_banks_memory() -> None:
    space = open_space("tiny", input_chw=(3, 16, 16))
    bank, arch = new_bank(space, HEADS["plain"], generator=torch.Generator().manual_seed(0)), some(space, HEADS["plain"])[0]
    views(bank, arch)["head.out.weight"].fill_(7.0)
    assert (bank["head.out.weight"] == 7.0).any()


def test_inherited_network_is_a_copy() -> None:
    space = open_space("tiny", input_chw=(3, 16, 16))
    bank, arch = new_bank(space, HEADS["plain"], generator=torch.Generator().manual_seed(0)), some(space, HEADS["plain"])[0]
    before = bank["head.out.weight"].clone()
    with torch.no_grad():
        inherit(bank, arch).get_parameter("head.out.weight").fill_(7.0)
    assert torch.equal(bank["head.out.weight"], before)


def test_network_of_another_space_is_refused_by_the_tensor_it_lacks() -> None:
    tiny, other = open_space("tiny", input_chw=(3, 16, 16)), open_space("mnasnet", input_chw=(3, 16, 16))
    bank = new_bank(tiny, HEADS["plain"], generator=torch.Generator().manual_seed(0))
    with pytest.raises(InvalidArchitecture, match=r"the bank has \(8, 3, 3, 3\) for 'stem.conv.conv.conv.weight'.*no member"):
        views(bank, other.decode(other.corners()[0], HEADS["plain"]))


def test_same_generator_draws_the_same_bank() -> None:
    space = open_space("tiny", input_chw=(3, 16, 16))
    one, two = (new_bank(space, HEADS["plain"], generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_skeleton_keeps_no_statistics() -> None:
    arch = some(open_space("tiny", input_chw=(3, 16, 16)), HEADS["plain"])[0]
    bones = skeleton(arch, training=True)
    assert {place.key for place in bones.places} == {key for key, _ in build(arch, device="meta").named_parameters()}
    assert bones.module.training
