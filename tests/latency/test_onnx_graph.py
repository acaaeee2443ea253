"""``emit`` gives the function that ``build`` gives: every setting of a block, every built-in space, every baseline."""

import time

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from latency.onnx_graph import ACTS, BN_EPS, GATES, OPS, SKIPS, InvalidWeights, emit, emit_piece, emit_pieces
from nas.models import ops
from nas.weights import numpy_weights
from search_spaces import SPACES
from search_spaces.architecture import Architecture, Head, pieces
from search_spaces.baselines import BASELINES, baseline
from search_spaces.errors import InvalidArchitecture, UnknownName
from tests.nas.models.networks import images, logits, menu, network, single, worst

TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order, through up to 60 layers
MENU = menu()
SMALL = (3, 48, 40)  # a map that no stride divides evenly all the way down


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Checked by ONNX, then run by ONNX Runtime without its rewriting optimisations."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(["logits"], {"input": x})[0]
    return result


def difference(arch: Architecture) -> float:
    module, x = network(arch), images(arch.input_chw, count=2)
    return worst(logits(module, x), run(emit(arch, numpy_weights(module), batch=2), x.numpy()))


@pytest.mark.parametrize("name", MENU)
def test_graph_agrees_with_torch_for_every_setting_of_a_block(name: str) -> None:
    assert difference(MENU[name]) < TOLERANCE


@pytest.mark.parametrize("name", BASELINES)
def test_graph_agrees_with_torch_for_every_baseline(name: str) -> None:
    assert difference(baseline(name, input_chw=(3, 96, 80), outputs=7)) < TOLERANCE


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_graph_agrees_with_torch_for_samples_of_every_space(name: str, seed: int) -> None:
    space = SPACES[name].at(width=0.35)
    arch = space.decode(space.sample(np.random.default_rng(seed)), Head(outputs=7))
    assert difference(msgspec.structs.replace(arch, input_chw=(arch.input_chw[0], *_small(arch)))) < TOLERANCE


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("corner", [0, 1], ids=["smallest", "largest"])
def test_graph_agrees_with_torch_for_the_corners_of_every_space(name: str, corner: int) -> None:
    space = SPACES[name].at(width=0.35)
    arch = space.decode(space.corners()[corner], Head(outputs=7))
    assert difference(msgspec.structs.replace(arch, input_chw=(arch.input_chw[0], *_small(arch)))) < TOLERANCE


def _small(arch: Architecture) -> tuple[int, int]:
    return (1, 160) if arch.input_chw[1] == 1 else SMALL[1:]


def test_both_readings_have_the_same_menus() -> None:
    assert list(ACTS) == list(ops.ACTS)
    assert list(GATES) == list(ops.GATES)
    assert list(OPS) == list(ops.OPS)
    assert list(SKIPS) == list(ops.SKIPS)


def test_symbolic_batch_runs_at_any_batch_size() -> None:
    arch = MENU["mbconv-se-sigmoid-relu"]
    module = network(arch)
    model = emit(arch, numpy_weights(module), batch=None)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    for count in (1, 3):
        x = images(arch.input_chw, count=count)
        assert worst(logits(module, x), run(model, x.numpy())) < TOLERANCE


def test_names_opset_and_ir_are_fixed() -> None:
    model = emit(MENU["conv-relu"])
    assert [v.name for v in model.graph.input] == ["input"]
    assert [v.name for v in model.graph.output] == ["logits"]
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 13, 11]


@pytest.mark.parametrize("opset", [14, 18, 21])
def test_other_opsets_compute_the_same(opset: int) -> None:
    arch, x = MENU["mbconv-pool-9-s2"], images((3, 13, 11), count=1)
    assert worst(run(emit(arch), x.numpy()), run(emit(arch, opset=opset, ir_version=10), x.numpy())) < 1e-6


def test_an_unknown_opset_is_refused() -> None:
    with pytest.raises(UnknownName, match="unknown opset '13'"):
        emit(MENU["conv-relu"], opset=13)


def test_batch_norm_is_folded_away() -> None:
    arch = baseline("mobilenet_v2", input_chw=SMALL)
    assert {n.op_type for n in emit(arch).graph.node} == {"Conv", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm"}


def test_a_single_convolution_folds_as_hand_arithmetic_says() -> None:
    arch = single("conv", kernel=1)
    weights = numpy_weights(network(arch))
    found = {t.name: onnx.numpy_helper.to_array(t) for t in emit(arch, weights).graph.initializer}
    scale = weights["blocks.1.conv.bn.weight"] / np.sqrt(weights["blocks.1.conv.bn.running_var"] + BN_EPS)
    bias = weights["blocks.1.conv.bn.bias"] - weights["blocks.1.conv.bn.running_mean"] * scale
    np.testing.assert_allclose(found["blocks.1.conv.conv.weight"], weights["blocks.1.conv.conv.weight"] * scale[:, None, None, None], 1e-6)
    np.testing.assert_allclose(found["blocks.1.conv.conv.bias"], bias, rtol=1e-5, atol=1e-6)


def test_a_missing_tensor_is_named() -> None:
    arch = MENU["mbconv-relu"]
    weights = numpy_weights(network(arch))
    del weights["blocks.1.project.bn.bias"]
    with pytest.raises(InvalidWeights, match=r"no tensor 'blocks\.1\.project\.bn\.bias'"):
        emit(arch, weights)


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    arch = MENU["mbconv-relu"]
    weights = numpy_weights(network(arch)) | {"head.out.weight": np.zeros((5, 7), np.float32)}
    with pytest.raises(InvalidWeights, match=r"head\.out\.weight: shape must be \(5, 6\) .* got \(5, 7\)"):
        emit(arch, weights)


def test_metadata_travels_in_the_model() -> None:
    model = emit(MENU["conv-relu"], metadata={"arch": "abc", "classes": "cat,dog"})
    assert {p.key: p.value for p in model.metadata_props} == {"arch": "abc", "classes": "cat,dog"}


def test_placeholder_weights_are_the_same_every_time() -> None:
    arch = MENU["mbconv-se-sigmoid-relu"]
    assert emit(arch).SerializeToString(deterministic=True) == emit(arch).SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", BASELINES)
def test_placeholder_weights_keep_every_activation_of_ordinary_size(name: str) -> None:
    model = emit(baseline(name, input_chw=(3, 96, 96)))
    inner = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(v) for v in inner if v != "logits")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(inner, {"input": images((3, 96, 96), count=1).numpy()})
    assert all(1e-3 < np.abs(v).max() < 1e3 for v in found)


def test_v3_large_is_emitted_within_100_ms() -> None:
    arch = baseline("mobilenet_v3_large")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        emit(arch)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


def nodes_and_shapes(model: onnx.ModelProto) -> list[tuple[str, list[onnx.AttributeProto], list[tuple[int, ...]]]]:
    """Operator, attributes and shapes of the weights of every node: all that its latency depends on, but for what it is fed."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    return [(n.op_type, list(n.attribute), [shapes[i] for i in n.input if i in shapes]) for n in model.graph.node]


@pytest.mark.parametrize("name", [*SPACES, *BASELINES])
def test_pieces_one_by_one_have_the_nodes_of_the_whole(name: str) -> None:
    rng = np.random.default_rng(5)
    arch = SPACES[name].decode(SPACES[name].sample(rng), Head(outputs=7)) if name in SPACES else baseline(name)
    apart = [node for piece in pieces(arch) for node in nodes_and_shapes(emit_piece(piece))]
    assert apart == nodes_and_shapes(emit(arch))


@pytest.mark.parametrize("name", MENU)
def test_a_piece_runs_by_itself_and_gives_its_shape(name: str) -> None:
    for piece in pieces(MENU[name]):
        model = emit_piece(piece)
        onnx.checker.check_model(model, full_check=True)
        assert [i.name for i in model.graph.input] == ["input"]
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (y,) = session.run(["output"], {"input": np.zeros((1, *piece.in_chw), np.float32)})
        assert y.shape == ((1, piece.layer.outputs) if isinstance(piece.layer, Head) else (1, *piece.out_chw))


def test_equal_pieces_are_equal_bytes() -> None:
    first, second = (pieces(baseline("mobilenet_v2"))[3] for _ in range(2))
    assert emit_piece(first).SerializeToString(deterministic=True) == emit_piece(second).SerializeToString(deterministic=True)


def test_a_chain_computes_what_the_whole_network_does() -> None:
    arch = baseline("mobilenet_v2", width=0.35, input_chw=(3, 32, 32), outputs=7)
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    chain = emit_pieces(pieces(arch))
    onnx.checker.check_model(chain, full_check=True)
    (y,) = onnxruntime.InferenceSession(chain.SerializeToString(), providers=["CPUExecutionProvider"]).run(["output"], {"input": x})
    np.testing.assert_allclose(y, run(emit(arch), x), atol=1e-5)


def test_pieces_that_do_not_follow_each_other_are_refused() -> None:
    stem, *_, head = pieces(baseline("mobilenet_v2"))
    with pytest.raises(InvalidArchitecture, match=r"piece 1 is fed \(1280, 7, 7\), and the one before it gives \(32, 112, 112\)"):
        emit_pieces([stem, head])
