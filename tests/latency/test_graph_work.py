import onnx
import pytest

from latency.errors import Failed
from latency.graph_work import work
from latency.onnx_graph import emit
from search_spaces import baseline
from tests.latency.models import conv_net, one_node


def test_work_of_convolutions_is_that_of_hand_arithmetic() -> None:
    found = work(conv_net(ch=4, depth=2, side=8).SerializeToString())
    assert found.nodes == 2
    assert found.macs == 2 * 4 * 4 * 9 * 8 * 8
    assert found.elements == 2 * 4 * 8 * 8


@pytest.mark.parametrize(("name", "millions"), [("mobilenet_v2", 300.8), ("mnasnet_a1", 311.6), ("mobilenet_v3_small", 56.5)])
def test_work_of_published_networks_is_the_published_one(name: str, millions: float) -> None:
    assert round(work(emit(baseline(name)).SerializeToString()).macs / 1e6, 1) == millions


def test_work_of_a_matrix_product_is_rows_by_columns_by_depth() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[3, 5] x, float[7, 5] w) => (float[3, 7] y) { y = Gemm<transB = 1>(x, w) }"""
    assert work(onnx.parser.parse_model(text).SerializeToString()).macs == 3 * 5 * 7


def test_open_batch_counts_as_one() -> None:
    assert work(conv_net(batch="N").SerializeToString()) == work(conv_net(batch=1).SerializeToString())


def test_other_nodes_have_no_macs() -> None:
    assert work(one_node("Relu").SerializeToString()).macs == 0


@pytest.mark.parametrize("data", [b"", b"garbage" * 20, b"\x08\x08"])
def test_garbage_is_no_model(data: bytes) -> None:
    with pytest.raises(Failed, match="model 3 is no ONNX model"):
        work(data, 3)
