import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.errors import InvalidConfig, UnknownName
from nas.models.features import FEATURES, Feature, Featured
from nas.models.reference import REFERENCES, SIGNALS, reference

# by hand: the second-to-last of the stages 16, 32, 64; a ViT's width; ClST-R's widths 16, 32, 64; the students' own tables
SHAPES = {
    **{f"resnet{depth}": (32, 8, 8) for depth in (20, 32, 44, 56, 110)},
    "vit_tiny": (192, 1, 1), "clst_r": (32, 1, 16), "kd_cnn_r": (32, 1, 32), "kd_mobilenet_r": (64, 1, 16),
}  # fmt: skip


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A network in evaluation mode and two inputs: images of 16×16 pixels, or signals of 64 samples."""
    g = torch.Generator().manual_seed(0)
    chw = (2, 1, 64) if name in SIGNALS else (3, 16, 16)
    return reference(name, outputs=3, in_ch=chw[0], input_hw=chw[1:], generator=g).eval(), torch.randn(2, *chw, generator=g)


def test_every_reference_network_has_a_feature() -> None:
    assert FEATURES.keys() == REFERENCES.keys() == SHAPES.keys()


@pytest.mark.parametrize("name", FEATURES)
def test_feature_is_the_map_where_the_tables_say_and_its_gradient_reaches_the_network(name: str) -> None:
    network, x = made(name)
    featured = Featured(network, FEATURES[name])
    logits, (feature,) = featured.forward_taps(x)
    assert torch.equal(logits, network(x))
    assert feature.shape == (2, *SHAPES[name])
    assert featured.feature_ch(x) == SHAPES[name][0]
    feature.square().mean().backward()  # type: ignore[no-untyped-call]  # torch's
    *_, last = network.parameters()
    assert last.grad is None
    reached = [part.weight for part in network.modules() if isinstance(part, nn.Conv1d | nn.Conv2d)]  # the first: a stem, or patches
    assert isinstance(reached[0].grad, Tensor)
    assert float(reached[0].grad.abs().sum()) > 0


def test_resnets_feature_is_what_its_second_stage_gives() -> None:
    network, x = made("resnet20")
    y = F.relu(network.bn1(network.conv1(x)))  # type: ignore[operator]  # modules by name
    y = network.layer2(network.layer1(y))  # type: ignore[operator]
    _, (feature,) = Featured(network, FEATURES["resnet20"]).forward_taps(x)
    assert torch.equal(feature, y)


def test_vits_feature_is_its_class_token_after_three_of_six_layers_without_a_norm() -> None:
    network, x = made("vit_tiny")
    state = dict(network.named_parameters())
    patches = network.conv_proj(x).flatten(2).transpose(1, 2)  # type: ignore[operator]  # a module by name
    y = torch.cat([state["class_token"].expand(2, -1, -1), patches], 1) + state["encoder.pos_embedding"]
    for i in range(3):
        y = network.get_submodule(f"encoder.layers.encoder_layer_{i}")(y)
    _, (feature,) = Featured(network, FEATURES["vit_tiny"]).forward_taps(x)
    assert torch.allclose(feature[:, :, 0, 0], y[:, 0], atol=1e-6)


def test_network_is_left_as_it_was() -> None:
    network, x = made("resnet20")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    network.get_submodule("layer3").eval()
    trains = [part.training for part in network.modules()]
    Featured(network, Feature(part="layer1")).feature_ch(x)
    assert [part.training for part in network.modules()] == trains
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not [part for part in network.modules() if part._forward_hooks]


def test_look_that_fails_leaves_no_hook() -> None:
    network, x = made("resnet20")
    with pytest.raises(RuntimeError, match="channels"):
        Featured(network, Feature(part="layer1")).forward_taps(x[:, :1])
    assert not network.get_submodule("layer1")._forward_hooks


def test_unknown_part_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'layer2'"):
        Featured(made("resnet20")[0], Feature(part="layer_2"))
    with pytest.raises(UnknownName, match="part of the network"):
        Featured(made("resnet20")[0], Feature(part=""))


def test_unknown_part_of_a_large_network_lists_its_children_alone() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'layer2'\? \(known: conv1, bn1, layer1, layer2, layer3, linear\)"):
        Featured(reference("resnet110", outputs=3), Feature(part="layer_2"))


class Odd(nn.Module):
    """Parts that are run twice, by other ways, with other outputs, in place; ``same`` is another name of one."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.split = nn.Linear(4, 4), nn.MultiheadAttention(4, 1)
        self.before, self.inplace, self.same = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)
        self.other_name, self.turned = self.same, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.part(self.part(x)) + self.split(x, x, x)[0]
        self.turned(x.transpose(0, 1))
        z: Tensor = self.same(self.inplace(self.before(y)))
        return z


@pytest.mark.parametrize(
    ("feature", "why"),
    [
        (Feature(part="part"), "part: is run 2 times for one output; name a part that is run once"),
        (Feature(part="split"), "split: gives tuple for 2 inputs, wanted a tensor"),
        (Feature(part="split.out_proj"), "split.out_proj: is not run, by itself"),  # torch takes its weights and not the module
        (Feature(part="turned"), r"turned: gives \(4, 2\) for 2 inputs"),  # the batch comes second
        (Feature(part="before"), "before: the layer behind it changes it in place"),
    ],
)
def test_part_that_gives_no_feature_is_said(feature: Feature, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        Featured(Odd(), feature).feature_ch(torch.randn(2, 4))
    with pytest.raises(InvalidConfig, match=why):  # with gradients
        Featured(Odd(), feature).forward_taps(torch.randn(2, 4))


def test_part_is_found_by_each_of_its_names_and_behind_a_change_in_place() -> None:
    network, x = Odd(), torch.randn(2, 4)
    (one,), (two,) = (Featured(network, Feature(part=name)).forward_taps(x)[1] for name in ("same", "other_name"))
    assert torch.equal(one, two)
    _, (feature,) = Featured(network, Feature(part="inplace")).forward_taps(x)
    assert bool((feature >= 0).all())


@pytest.mark.parametrize(
    ("name", "part", "token"),
    [
        ("resnet20", "layer1", 0),  # maps are no tokens
        ("vit_tiny", "encoder.layers.encoder_layer_2", 65),  # of a class token and 64 patches
        ("vit_tiny", "encoder.layers.encoder_layer_2", -66),
    ],
)
def test_token_that_is_not_there_is_said(name: str, part: str, token: int) -> None:
    network, x = made(name)
    with pytest.raises(InvalidConfig, match=r"wanted tokens \(N, T, C\)"):
        Featured(network, Feature(part=part, token=token)).forward_taps(x)


def test_tokens_of_images_want_one_of_them_named() -> None:
    network, x = made("vit_tiny")
    with pytest.raises(InvalidConfig, match=r"of tokens \(N, T, C\) say which, as token=0"):
        Featured(network, Feature(part="encoder.layers.encoder_layer_2")).feature_ch(x)


@pytest.mark.parametrize(("part", "token"), [(3, None), ("layer1", 1.0), ("layer1", "0"), ("layer1", True)])
def test_feature_that_is_no_name_and_number_is_refused(part: object, token: object) -> None:
    with pytest.raises(InvalidConfig, match="the name of a part"):
        Feature(part=part, token=token)  # type: ignore[arg-type]  # wrong on purpose


def test_part_that_gives_whole_numbers_is_no_feature() -> None:
    network = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))
    network.insert(0, nn.Identity())
    with pytest.raises(InvalidConfig, match=r"0: gives \(2, 5\) for 2 inputs, wanted a tensor"):
        Featured(network, Feature(part="0")).forward_taps(torch.zeros(2, 5, dtype=torch.int64))
