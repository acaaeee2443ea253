import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from latency.model_inputs import InvalidModel
from latency.ort import onnxruntime_module
from latency.profile import main
from latency.quantize import quantize_int8
from tests.latency.models import conv_net
from tests.latency.profiled import saved

RNG = np.random.default_rng(3)
SAMPLES = [{"x": RNG.standard_normal((1, 8, 12, 12)).astype(np.float32)} for _ in range(4)]


def net() -> bytes:
    return bytes(conv_net(ch=8, depth=3, side=12).SerializeToString())


def outputs(model: bytes, sample: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime_module().InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, sample)[0])


def normalized_conv() -> bytes:
    """A convolution and a BatchNorm that no one has folded."""
    weights = {"w": RNG.standard_normal((4, 8, 3, 3)), **{name: RNG.uniform(0.5, 2, 4) for name in ("s", "b", "m", "v")}}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 8, 12, 12]), ("y", None))]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], tensors)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


def test_outputs_stay_near_those_in_floating_point() -> None:
    made = quantize_int8(net(), SAMPLES)
    for sample in SAMPLES:
        exact = outputs(net(), sample)
        # Three layers, each with an error of up to one step, 1/255 of its range, and as much of its weights.
        assert np.abs(outputs(made, sample) - exact).max() <= 0.05 * np.abs(exact).max()


def test_weights_are_bytes_with_a_scale_for_each_channel() -> None:
    graph = onnx.load_model_from_string(quantize_int8(net(), SAMPLES)).graph
    weights = [t for t in graph.initializer if list(t.dims) == [8, 8, 3, 3]]
    scales = [t for t in graph.initializer if list(t.dims) == [8] and t.data_type == TensorProto.FLOAT]
    assert {t.data_type for t in weights} == {TensorProto.INT8}
    assert len(weights) == 3
    assert len(scales) >= 3


def test_inputs_and_outputs_keep_name_type_and_shape() -> None:
    before, after = (onnx.load_model_from_string(m).graph for m in (net(), quantize_int8(net(), SAMPLES)))
    assert list(after.input) == list(before.input)
    assert [(o.name, o.type.tensor_type.elem_type) for o in after.output] == [(o.name, TensorProto.FLOAT) for o in before.output]


def test_every_convolution_reads_and_writes_bytes() -> None:
    graph = onnx.load_model_from_string(quantize_int8(net(), SAMPLES)).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    assert all(maker[name] == "DequantizeLinear" for node in convolutions for name in node.input[:2])


def test_batch_norm_is_folded_before() -> None:
    graph = onnx.load_model_from_string(quantize_int8(normalized_conv(), SAMPLES)).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_the_same_model_and_samples_give_the_same_bytes() -> None:
    assert quantize_int8(net(), SAMPLES) == quantize_int8(net(), SAMPLES)


def test_a_quantized_model_is_not_quantized_again() -> None:
    with pytest.raises(InvalidModel, match=r"a is quantized already \(it has DequantizeLinear\): leave --precision out"):
        quantize_int8(quantize_int8(net(), SAMPLES), SAMPLES, label="a")


def test_an_older_opset_is_refused_with_the_way_out() -> None:
    model = onnx.load_model_from_string(net())
    model.opset_import[0].version = 11
    with pytest.raises(InvalidModel, match="a is of opset 11, and int8 needs 13 or newer: export it again with a newer one"):
        quantize_int8(model.SerializeToString(), SAMPLES, label="a")


def test_no_samples_are_refused() -> None:
    with pytest.raises(InvalidModel, match="at least one sample of its inputs is needed"):
        quantize_int8(net(), [])


def test_samples_that_do_not_fit_are_an_error_of_one_line() -> None:
    with pytest.raises(InvalidModel, match="a: ONNX Runtime cannot make int8 of it: ") as caught:
        quantize_int8(net(), [{"x": np.zeros((1, 3, 2, 2), np.float32)}], label="a")
    assert "\n" not in str(caught.value)


def test_nothing_is_written_and_no_file_is_left(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    quantize_int8(net(), SAMPLES)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_profile_times_the_quantized_models_and_labels_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(saved(tmp_path / "a.onnx")), "--precision", "int8", "--plan", "quick", "--json", "--fresh"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["plan"]["precision"] == "int8"
    assert "a int8" in done.stdout
