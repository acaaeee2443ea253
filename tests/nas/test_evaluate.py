from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nas.calibration import calibrate, fitted_temperature
from nas.errors import InvalidArchitecture
from nas.evaluate import evaluate, judge, logits_of_onnx, predict
from nas.tasks import Task, open_task
from tests.nas.tasks.samples import write_npz


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path / 'a.npz')}")


def colour_reader() -> nn.Module:
    """Reads the class off the mean colour: blue, green, red in the order of the classes."""
    last = nn.Linear(3, 3)
    with torch.no_grad():
        last.weight.copy_(torch.eye(3).flip(0))
        last.bias.zero_()
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


def test_network_that_reads_the_class_scores_one_on_every_split(task: Task) -> None:
    assert [evaluate(colour_reader(), task, split) for split in ("train", "valid", "test")] == [1.0, 1.0, 1.0]


def test_network_that_always_says_one_class_scores_that_classs_share(task: Task) -> None:
    net = colour_reader()
    with torch.no_grad():
        net.get_parameter("2.bias").copy_(torch.tensor([0.0, 100.0, 0.0]))
    assert evaluate(net, task, "test") == pytest.approx(1 / 3)


def test_logits_do_not_depend_on_the_batch(task: Task) -> None:
    net, x = colour_reader(), task.load("test").x
    # a matrix product over other row counts may round differently
    assert torch.allclose(predict(net, x, task, batch=7), predict(net, x, task, batch=30), atol=1e-6)


def test_predict_puts_the_training_mode_back(task: Task) -> None:
    net = nn.Sequential(colour_reader(), nn.Dropout(0.5)).train()
    first, second = (predict(net, task.load("test").x, task) for _ in range(2))
    assert net.training
    assert torch.equal(first, second)


def linear_graph(weight: np.ndarray, batch: int | str) -> onnx.ModelProto:
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 2, 2])
    leave = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph(nodes, "linear", [entry], [leave], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("batch", [1, 2, "N"])
def test_onnx_logits_equal_numpys_for_fixed_and_free_batches(batch: int | str) -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(6, 1, 2, 2)).astype(np.float32)
    # float32 sums of four terms
    assert np.allclose(logits_of_onnx(linear_graph(weight, batch), x), x.reshape(6, 4) @ weight, atol=1e-5)


def test_images_that_do_not_fill_fixed_batches_are_refused() -> None:
    with pytest.raises(InvalidArchitecture, match="takes 4 images at a time, and 6 is no multiple"):
        logits_of_onnx(linear_graph(np.zeros((4, 3), np.float32), 4), np.zeros((6, 1, 2, 2), np.float32))


def test_judgement_is_score_and_calibration_of_one_pass(task: Task) -> None:
    judged = judge(colour_reader(), task, "test")
    split = task.load("test")
    logits = predict(colour_reader(), split.x, task)
    assert judged.score == evaluate(colour_reader(), task, "test")
    assert judged.calibration.nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits, split.y)), rel=1e-6)
    assert judged.calibration.temperature == pytest.approx(fitted_temperature(logits, split.y))
    assert judged.calibration.ece_scaled is None


def test_temperature_of_validation_scales_another_split(task: Task) -> None:
    judged = judge(colour_reader(), task, "test", temperature=2.0)
    split = task.load("test")
    halved = calibrate(predict(colour_reader(), split.x, task) / 2, split.y)
    assert judged.calibration.ece_scaled == pytest.approx(halved.ece, rel=1e-6)
