import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from latency import DeviceInfo, Failed, Measurement, TimingPlan, open_device
from latency.devices import Model
from latency.devices.base import model_bytes
from latency.devices.local import LocalDevice
from latency.model_files import NamedModel, open_models
from latency.parity import Parity, check_outputs, outputs_agree
from search_spaces.errors import NasError
from tests.latency.models import one_node
from tests.latency.profiled import outside_weights, saved, token_model

Array = np.ndarray[Any, np.dtype[Any]]
PLAN = TimingPlan()


class Evaluator:
    """A device that computes with onnx's own reference evaluator, shifts every output by ``shift``, and times nothing."""

    def __init__(self, shift: float = 0.0) -> None:
        self._shift = shift

    def info(self) -> DeviceInfo:
        return DeviceInfo(kind="evaluator", cpu="none", cores=1, machine="none", os="none", runtime="onnx")

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        return open_device("fake").time(models, plan)

    def outputs(self, model: Model, inputs: Mapping[str, Array], plan: TimingPlan) -> dict[str, Array]:
        if self._shift < 0:
            raise Failed("evaluator: cannot run model 0", model_index=0)
        evaluator = ReferenceEvaluator(onnx.load_model_from_string(model_bytes([model])[0]))
        values = evaluator.run(None, dict(inputs))
        return {name: np.asarray(v) + self._shift for name, v in zip(evaluator.output_names, values, strict=True)}

    def close(self) -> None:
        pass


def opened(path: Path, model: onnx.ModelProto) -> NamedModel:
    return open_models([str(saved(path / "net.onnx", model))])[0]


def test_another_runtime_computes_the_same(tmp_path: Path) -> None:
    found = check_outputs(Evaluator(), opened(tmp_path, token_model()), PLAN)
    assert found.status == "equal"
    assert found.worst is not None
    assert found.worst < 1e-5  # two runtimes in float32


def test_model_with_weights_in_other_files_is_checked_too(tmp_path: Path) -> None:
    (model,) = open_models([str(outside_weights(tmp_path / "net.onnx"))])
    assert check_outputs(Evaluator(), model, PLAN).status == "equal"


def test_runner_computes_what_the_python_package_does(tmp_path: Path) -> None:
    try:
        device = open_device("local:runner")
    except NasError as error:
        pytest.skip(f"this computer has no runner: {error}")
    with contextlib.closing(device):
        found = check_outputs(device, opened(tmp_path, token_model()), PLAN)
    # The same library on the same processor.
    assert (found.status, found.text) == ("equal", "identical")
    assert found.peak_bytes > 0


def test_wrong_outputs_are_different_by_how_much(tmp_path: Path) -> None:
    found = check_outputs(Evaluator(shift=0.5), opened(tmp_path, one_node("Relu")), PLAN)
    assert found.status == "different"
    assert "output 'y' is off by" in found.text


def test_device_that_fails_at_it_is_kept_with_the_reason(tmp_path: Path) -> None:
    found = check_outputs(Evaluator(shift=-1), opened(tmp_path, one_node("Relu")), PLAN)
    assert found == Parity(status="failed", text="evaluator: cannot run model 0")


def test_this_computer_is_not_compared_with_itself(tmp_path: Path) -> None:
    found = check_outputs(LocalDevice(), opened(tmp_path, one_node("Relu")), PLAN)
    assert found == Parity(status="unchecked", text="local is this computer")


def test_device_without_outputs_is_not_compared(tmp_path: Path) -> None:
    found = check_outputs(open_device("fake"), opened(tmp_path, one_node("Relu")), PLAN)
    assert found == Parity(status="unchecked", text="fake gives none")


def test_deviation_is_over_the_largest_value() -> None:
    found = outputs_agree({"y": np.array([2.0, 100.5])}, {"y": np.array([1.0, 100.0])})
    assert found.worst == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, 2.0])),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan])),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf])),
        (np.array([1, 3]), np.array([1, 2])),
        (np.zeros((2, 1)), np.zeros((1, 2))),
    ],
)
def test_other_values_or_shapes_are_different(found: Array, expected: Array) -> None:
    assert outputs_agree({"y": found}, {"y": expected}).status == "different"


@pytest.mark.parametrize("values", [[], [0.0], [1.0, np.nan, np.inf], [[1, 2]], [True]])
def test_the_same_values_are_equal(values: list[Any]) -> None:
    assert outputs_agree({"y": np.array(values)}, {"y": np.array(values)}).status == "equal"


def test_missing_output_is_different_by_its_name() -> None:
    assert outputs_agree({}, {"y": np.zeros(3)}) == Parity(status="different", text="output 'y' is missing and not (3,)")
