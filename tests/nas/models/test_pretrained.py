"""torchvision's weights in our networks compute what torchvision's networks compute, in torch and in ONNX Runtime."""

from collections.abc import Callable

import onnxruntime
import pytest
import torch
import torchvision.models as tv
from torch import nn

from latency.onnx_graph import InvalidWeights, emit
from nas.models.pretrained import TORCHVISION, from_torchvision
from nas.weights import numpy_weights
from search_spaces.baselines import baseline
from search_spaces.errors import UnknownName
from tests.nas.models.networks import assert_order_one, images, logits, randomise, worst

CHW = (3, 96, 80)
MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": tv.mobilenet_v2,
    "mnasnet0_5": tv.mnasnet0_5,
    "mnasnet0_75": tv.mnasnet0_75,
    "mnasnet1_0": tv.mnasnet1_0,
    "mnasnet1_3": tv.mnasnet1_3,
    "mobilenet_v3_large": tv.mobilenet_v3_large,
    "mobilenet_v3_small": tv.mobilenet_v3_small,
}
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "mobilenet_v2 at width 0.35": ("mobilenet_v2", {"width_mult": 0.35}),
    "mobilenet_v2 at width 0.1, where block 1 has a residual": ("mobilenet_v2", {"width_mult": 0.1}),
    "mobilenet_v2 at width 1.4, 10 classes": ("mobilenet_v2", {"width_mult": 1.4, "num_classes": 10}),
    "mobilenet_v3_large with reduced tail": ("mobilenet_v3_large", {"reduced_tail": True}),
    "mobilenet_v3_large at width 0.75": ("mobilenet_v3_large", {"width_mult": 0.75}),
    "mobilenet_v3_small, 10 classes": ("mobilenet_v3_small", {"num_classes": 10}),
}
CASES = {name: (name, dict[str, object]()) for name in MODELS} | VARIANTS


def torchvision_network(name: str, **settings: object) -> nn.Module:
    """torchvision's own module with random weights and statistics, in evaluation mode."""
    module = MODELS[name](weights=None, **settings)
    randomise(module, CHW)
    return module


def test_every_known_network_is_tested() -> None:
    assert set(TORCHVISION) == set(MODELS)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_torchvisions(case: str) -> None:
    name, settings = CASES[case]
    theirs = torchvision_network(name, **settings)
    _, ours = from_torchvision(name, theirs.state_dict(), input_chw=CHW)
    x = images(CHW, count=2)
    expected = logits(theirs, x)
    assert_order_one(expected)
    assert not ours.training
    assert worst(expected, logits(ours, x)) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_onnx_of_imported_weights_equals_torchvision(case: str) -> None:
    name, settings = CASES[case]
    theirs = torchvision_network(name, **settings)
    arch, ours = from_torchvision(name, theirs.state_dict(), input_chw=CHW)
    x = images(CHW, count=2)
    model = emit(arch, numpy_weights(ours), batch=2).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert worst(logits(theirs, x), session.run(None, {"input": x.numpy()})[0]) < 1e-4


@pytest.mark.parametrize(
    ("name", "ours", "width"),
    [
        ("mobilenet_v2", "mobilenet_v2", 1.0),
        ("mnasnet0_5", "mnasnet_b1", 0.5),
        ("mnasnet0_75", "mnasnet_b1", 0.75),
        ("mnasnet1_0", "mnasnet_b1", 1.0),
        ("mnasnet1_3", "mnasnet_b1", 1.3),
        ("mobilenet_v3_large", "mobilenet_v3_large", 1.0),
        ("mobilenet_v3_small", "mobilenet_v3_small", 1.0),
    ],
)
def test_imported_architecture_is_the_baseline(name: str, ours: str, width: float) -> None:
    arch, _ = from_torchvision(name, MODELS[name](weights=None).state_dict())
    assert arch.id == baseline(ours, width=width).id


def test_an_unknown_network_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mobilenet_v2'"):
        from_torchvision("mobilenetv2", {})


@pytest.mark.parametrize(
    "key", ["features.4.conv.1.1.running_var", "features.0.0.weight", "classifier.1.bias", "features.7.conv.2.weight"],
)
def test_a_missing_tensor_is_named(key: str) -> None:
    state = tv.mobilenet_v2(weights=None).state_dict()
    del state[key]
    with pytest.raises(InvalidWeights, match=key.replace(".", r"\.")):
        from_torchvision("mobilenet_v2", state)


def test_an_unexpected_tensor_is_named() -> None:
    state = tv.mobilenet_v2(weights=None).state_dict() | {"extra.weight": torch.zeros(1)}
    with pytest.raises(InvalidWeights, match=r"1 tensors that mobilenet_v2 does not have, the first 'extra\.weight'"):
        from_torchvision("mobilenet_v2", state)


def test_a_tensor_of_a_wrong_shape_is_named() -> None:
    state = tv.mobilenet_v2(weights=None).state_dict() | {"features.3.conv.1.1.bias": torch.zeros(7)}
    with pytest.raises(InvalidWeights, match=r"blocks\.3\.depthwise\.bn\.bias: shape must be \(144,\), got \(7,\)"):
        from_torchvision("mobilenet_v2", state)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(InvalidWeights, match=r"no tensor 'features\.0\.0\.weight'"):
        from_torchvision("mobilenet_v2", tv.mnasnet0_5(weights=None).state_dict())


def test_the_imported_network_shares_no_memory_with_the_state_dict() -> None:
    state = tv.mnasnet0_5(weights=None).state_dict()
    _, ours = from_torchvision("mnasnet0_5", state)
    torch.nn.init.zeros_(ours.get_parameter("head.out.weight"))
    assert state["classifier.1.weight"].abs().sum() > 0
