"""ClST-R and its students: counted parameters, and each part against attention and gates written out."""

import pytest
import torch
from torch import Tensor, nn

from nas.models.reference import SIGNALS, reference
from nas.models.signal_nets import ClST, ParallelAttention, ProjectedTransformer


def counted(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("dims", "depths", "params"),
    [((16, 32, 64), (1, 1, 1), 79_604), ((32, 64, 128), (1, 1, 2), 509_104), ((32, 64, 128), (1, 2, 4), 960_432)],
)
def test_clst_has_the_parameters_of_its_specification(dims: tuple[int, int, int], depths: tuple[int, int, int], params: int) -> None:
    assert counted(ClST(outputs=11, dims=dims, depths=depths)) == params


@pytest.mark.parametrize(("name", "params"), [("clst_r", 79_604), ("kd_cnn_r", 12_811), ("kd_mobilenet_r", 35_131)])
def test_networks_by_name_have_the_parameters_of_their_specification(name: str, params: int) -> None:
    assert counted(reference(name, outputs=11, in_ch=2)) == params


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("length", [128, 129, 1024])
def test_signals_of_any_length_with_or_without_a_height_give_the_same_logits(name: str, length: int) -> None:
    network = reference(name, outputs=5, in_ch=2, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.randn(3, 2, length, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert network(x).shape == (3, 5)
        assert torch.equal(network(x), network(x.unsqueeze(2)))


def closed(module: ParallelAttention, *, channel: bool, place: bool) -> ParallelAttention:
    """The module with gates that are 0: a sigmoid of -1e9."""
    with torch.no_grad():
        for shut, layer in ((channel, module.channel[2]), (place, module.place)):
            if shut:
                assert isinstance(layer, nn.Linear | nn.Conv1d)
                assert layer.bias is not None
                layer.weight.zero_()
                layer.bias.fill_(-1e9)
    return module


def test_attention_with_closed_gates_is_the_identity() -> None:
    x = torch.randn(2, 8, 10)
    assert torch.equal(closed(ParallelAttention(8), channel=True, place=True)(x), x)


def test_gates_work_in_parallel_on_the_same_input() -> None:
    torch.manual_seed(0)
    whole, x = ParallelAttention(8), torch.randn(2, 8, 10)
    parts = []
    for shut in ({"channel": True, "place": False}, {"channel": False, "place": True}):
        one = ParallelAttention(8)
        one.load_state_dict(whole.state_dict())
        parts.append(closed(one, **shut)(x) - x)
    assert torch.allclose(whole(x), x + parts[0] + parts[1], atol=1e-6)


def test_block_without_convolutions_is_plain_attention() -> None:
    torch.manual_seed(0)
    block, tokens = ProjectedTransformer(8, 2, kv_stride=1).eval().double(), torch.randn(2, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        for part in (block.query, block.key, block.value):
            part.conv.weight.zero_()
            part.conv.weight[:, 0, 1] = (1 + part.bn.eps) ** 0.5  # undoes what BN in evaluation divides by
        normed = block.norm1(tokens)
        q, k, v = (part.linear(normed) for part in (block.query, block.key, block.value))
        mixed = torch.zeros_like(tokens)
        for n in range(2):
            for h in (slice(0, 4), slice(4, 8)):
                attention = torch.softmax(q[n, :, h] @ k[n, :, h].T / 8**0.5, 1)
                mixed[n, :, h] = attention @ v[n, :, h]
        after: Tensor = tokens + block.out(mixed)
        want = after + block.mlp(block.norm2(after))
        assert torch.allclose(block(tokens), want, atol=1e-9)


def test_keys_and_values_are_half_as_many_as_queries() -> None:
    block, tokens = ProjectedTransformer(8, 2), torch.randn(2, 9, 8)
    assert block.key(tokens).shape == block.value(tokens).shape == (2, 5, 8)
    assert block.query(tokens).shape == (2, 9, 8)
