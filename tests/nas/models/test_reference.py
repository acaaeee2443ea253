import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.models.reference import REFERENCES, reference
from search_spaces.errors import InvalidArchitecture, UnknownName


def counted(depth: int, *, in_ch: int = 3, outputs: int = 10) -> int:
    """Parameters by hand: convolutions without bias, BN's two per channel, the linear layer."""
    n, total, width = (depth - 2) // 6, in_ch * 16 * 9 + 2 * 16, 16
    for stage_ch in (16, 32, 64):
        for _ in range(n):
            total += width * stage_ch * 9 + stage_ch * stage_ch * 9 + 2 * 2 * stage_ch
            width = stage_ch
    return total + 64 * outputs + outputs


PUBLISHED = {"resnet20": 269_722, "resnet32": 464_154, "resnet56": 853_018, "resnet110": 1_727_962}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name: str, published: int) -> None:
    found = sum(p.numel() for p in reference(name, outputs=10).parameters())
    assert found == published == counted(int(name.removeprefix("resnet")))


def test_other_channels_and_classes_are_counted_too() -> None:
    assert sum(p.numel() for p in reference("resnet20", outputs=7, in_ch=1).parameters()) == counted(20, in_ch=1, outputs=7)


def by_hand(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """The network's function in evaluation mode from its tensors alone, shortcuts written out pixel by pixel."""

    def norm(y: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{k}"].view(1, -1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias"))
        return (y - mean) / (var + 1e-5).sqrt() * weight + bias

    x = norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1").clamp_min(0)
    for stage, ch in ((1, 16), (2, 32), (3, 64)):
        for block in range(blocks):
            p, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(F.conv2d(x, state[f"{p}.conv1.weight"], stride=stride, padding=1), f"{p}.bn1").clamp_min(0)
            y = norm(F.conv2d(y, state[f"{p}.conv2.weight"], padding=1), f"{p}.bn2")
            shortcut = torch.zeros_like(y)
            first = (ch - x.shape[1]) // 2
            for c in range(x.shape[1]):
                for i in range(y.shape[2]):
                    for j in range(y.shape[3]):
                        shortcut[:, first + c, i, j] = x[:, c, stride * i, stride * j]
            x = (y + shortcut).clamp_min(0)
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@torch.no_grad()
def test_function_is_that_of_the_paper_with_parameterless_shortcuts() -> None:
    g = torch.Generator().manual_seed(0)
    network = reference("resnet20", outputs=4, generator=g)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for t in (part.weight, part.running_var):
                assert isinstance(t, Tensor)
                t.uniform_(0.5, 1.5, generator=g)
            part.bias.normal_(0, 0.3, generator=g)
    network.double().eval()
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=g)
    assert torch.allclose(network(x), by_hand(dict(network.state_dict()), x, 3), rtol=1e-9, atol=1e-9)


def test_names_of_the_tensors_are_those_of_public_checkpoints() -> None:
    names = set(reference("resnet32", outputs=10).state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer3.4.bn2.bias", "linear.weight", "linear.bias"} <= names
    assert not [n for n in names if "downsample" in n or "shortcut" in n]


@pytest.mark.parametrize("name", REFERENCES)
def test_same_generator_gives_the_same_weights(name: str) -> None:
    one, two = (reference(name, outputs=3, generator=torch.Generator().manual_seed(4)).state_dict() for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_unknown_network_is_named_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean 'resnet56'"):
        reference("resnet_56", outputs=10)


def counted_vit(*, patch: int, side: int, in_ch: int = 3, outputs: int = 10) -> int:
    """Parameters by hand: patches, class token, places, six layers of attention and MLP, two norms each, last norm and head."""
    width, mlp = 192, 768
    layer = 3 * width * width + 3 * width + width * width + width + 2 * width * mlp + mlp + width + 4 * width
    return in_ch * patch**2 * width + width + width + (side**2 + 1) * width + 6 * layer + 2 * width + width * outputs + outputs


@pytest.mark.parametrize(("size", "patch"), [(32, 4), (64, 8), (28, 2), (8, 1), (224, 28)])
def test_vit_cuts_images_into_patches_of_the_size_that_leaves_eight_along_a_side_or_a_little_more(size: int, patch: int) -> None:
    network = reference("vit_tiny", outputs=7, in_ch=1, input_hw=(size, size))
    assert sum(p.numel() for p in network.parameters()) == counted_vit(patch=patch, side=size // patch, in_ch=1, outputs=7)
    assert network.eval()(torch.zeros(2, 1, size, size)).shape == (2, 7)


@pytest.mark.parametrize(("hw", "says"), [((32, 48), "takes square images, got 32x48"), ((97, 97), "take --image-size 96")])
def test_image_that_a_vit_cannot_cut_is_refused(hw: tuple[int, int], says: str) -> None:
    with pytest.raises(InvalidArchitecture, match=says):
        reference("vit_tiny", outputs=3, input_hw=hw)


def test_making_a_vit_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    reference("vit_tiny", outputs=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(1), want)
