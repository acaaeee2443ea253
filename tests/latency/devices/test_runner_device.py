import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from latency import DeviceError, Failed, InvalidRuntime, TimingPlan, Unreachable, open_device
from latency.devices.runner_device import RunnerDevice
from latency.devices.transport import LocalTransport, Result
from latency.host import host_info
from latency.runtime import RuntimeLibrary, installed
from tests.latency.models import conv_net, one_node

LIBRARY = installed()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="onnxruntime's package has no library of its own here")
PLAN = TimingPlan(warmup_runs=1, warmup_ms=0, min_rounds=2, min_samples=2, min_ms=0, max_ms=20, half_width=0.5)
FACTS = host_info(runtime="", runtime_build="")


class Watched(LocalTransport):
    """This computer, with a list of what was sent, and faults: files over ``room`` bytes arrive cut, ``lost`` words end the line."""

    def __init__(self, *, room: float = math.inf, lost: str = "") -> None:
        super().__init__()
        self.sent: list[str] = []
        self.room, self.lost = room, lost

    def push(self, source: Path, target: str) -> None:
        self.sent.append(Path(target).name.split("-")[0])
        if source.stat().st_size <= self.room:
            super().push(source, target)
        else:
            Path(target).write_bytes(source.read_bytes()[: int(self.room)])

    def run(self, command: Sequence[str], *, timeout_s: float) -> Result:
        if self.lost and self.lost in command:
            raise Unreachable("the line is cut")
        return super().run(command, timeout_s=timeout_s)

    def files(self) -> list[str]:
        return sorted(path.name.split("-")[0] for path in Path(self.folder).iterdir())


def opened(transport: LocalTransport, *, library: RuntimeLibrary | None = LIBRARY) -> RunnerDevice:
    assert library
    return RunnerDevice(transport, library, FACTS)


@pytest.fixture
def watched() -> Iterator[Watched]:
    transport = Watched()
    yield transport
    transport.close()


def test_the_runner_and_the_library_are_sent_once_and_stay(watched: Watched) -> None:
    for device in (opened(watched), opened(watched)):
        for _ in range(2):
            device.time([conv_net()], PLAN)
    assert watched.sent == ["runner", "libonnxruntime", "job", "job", "job", "job"]
    assert watched.files() == ["libonnxruntime", "runner"]


def test_nothing_of_a_job_that_failed_is_left(watched: Watched) -> None:
    with pytest.raises(Failed):
        opened(watched).time([b"garbage"], PLAN)
    assert watched.files() == ["libonnxruntime", "runner"]


def test_a_folder_that_was_cleared_is_filled_again(watched: Watched) -> None:
    device = opened(watched)
    device.time([conv_net()], PLAN)
    for path in Path(watched.folder).iterdir():
        path.unlink()
    with pytest.raises(DeviceError, match="left no whole result"):
        device.time([conv_net()], PLAN)
    assert len(device.time([conv_net()], PLAN)) == 1


def test_a_library_that_arrives_cut_is_refused_and_removed() -> None:
    transport = Watched(room=2**20)
    with pytest.raises(DeviceError, match=r"did not arrive whole .damaged.*is there space left"):
        opened(transport).time([conv_net()], PLAN)
    assert transport.files() == ["runner"]
    transport.close()


def test_a_job_that_arrives_cut_is_refused_and_removed(watched: Watched) -> None:
    device = opened(watched)
    device.time([conv_net()], PLAN)
    watched.room = 1000
    with pytest.raises(DeviceError, match="is damaged: is there space left"):
        device.time([conv_net(ch=16)], PLAN)
    assert watched.files() == ["libonnxruntime", "runner"]


def test_an_anchor_stands_beside_every_round_and_its_first_figure_is_the_reference(watched: Watched) -> None:
    device, plan = opened(watched), msgspec.structs.replace(PLAN, anchor=True, processes=2)
    first, second = device.time([conv_net(), conv_net(ch=32, side=25)], plan)
    for taken in (first, second):
        assert len(taken.anchor_ns) == len(taken.samples_ns)
        assert min(taken.anchor_ns) > 0
        assert taken.anchor_ratio
    (again,) = device.time([conv_net()], plan)
    (without,) = device.time([conv_net()], PLAN)
    assert without.anchor_ns == ()
    assert again.anchor_reference_ns == first.anchor_reference_ns == round(np.median(first.split()[0].anchor_ns))


def test_xnnpack_is_refused_by_a_runtime_without_it(watched: Watched) -> None:
    with pytest.raises(DeviceError, match=r"onnxruntime .* has no provider xnnpack; it has .*CPU"):
        opened(watched).time([conv_net()], msgspec.structs.replace(PLAN, provider="xnnpack"))
    assert watched.files() == ["libonnxruntime", "runner"]


def test_a_lost_line_is_said_and_the_device_is_usable_when_it_is_back(watched: Watched) -> None:
    device = opened(watched)
    watched.lost = "run"
    with pytest.raises(Unreachable, match="the line is cut"):
        device.time([conv_net()], PLAN)
    watched.lost = ""
    assert len(device.time([conv_net()], PLAN)) == 1


def test_a_program_that_does_not_start_there_is_said_with_its_reason() -> None:
    transport = Watched(room=1000)
    with pytest.raises(DeviceError, match=r"the runner for .* does not start there: .*Exec format error|Permission denied"):
        opened(transport).time([conv_net()], PLAN)
    transport.close()


def test_a_library_for_another_machine_is_refused_before_anything_is_sent() -> None:
    assert LIBRARY
    other = "aarch64" if LIBRARY.machine == "x86_64" else "x86_64"
    with pytest.raises(InvalidRuntime, match=f"is for {other}"):
        opened(LocalTransport(), library=msgspec.structs.replace(LIBRARY, machine=other))


def test_runtime_and_library_stand_in_the_id() -> None:
    assert LIBRARY
    info = opened(LocalTransport()).info()
    assert info.runtime == f"onnxruntime {LIBRARY.version} (runner)"
    assert info.id != open_device("local:python").info().id
    other = opened(LocalTransport(), library=msgspec.structs.replace(LIBRARY, sha256="0" * 64)).info()
    assert info.id != other.id


@pytest.mark.parametrize("level", ["disabled", "all"])
def test_outputs_are_those_of_the_python_package(watched: Watched, level: str) -> None:
    model = conv_net(ch=16, depth=3, side=20)
    x = np.random.default_rng(1).random((1, 16, 20, 20), dtype=np.float32)
    ours = opened(watched).outputs(model, {"x": x}, msgspec.structs.replace(PLAN, opt_level=level))
    (theirs,) = session(model).run(None, {"x": x})
    # The same library under another caller; levels differ in the order of additions: 1e-6 of the largest value.
    np.testing.assert_allclose(ours["y2"], theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())


def test_several_inputs_and_outputs_of_other_types_keep_their_names(watched: Watched) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[2, 3] x, int64[2] rows) => (float[2, 3] picked, int64[2] doubled, bool[2] same)
    { picked = Gather(x, rows)  doubled = Add(rows, rows)  same = Equal(rows, rows) }"""
    x, rows = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 0])
    outputs = opened(watched).outputs(onnx.parser.parse_model(text), {"rows": rows, "x": x})
    assert sorted(outputs) == ["doubled", "picked", "same"]
    np.testing.assert_array_equal(outputs["picked"], x[[1, 0]])
    np.testing.assert_array_equal(outputs["doubled"], [2, 0])
    np.testing.assert_array_equal(outputs["same"], [True, True])


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"x": np.zeros(3, np.float32)}, "input 'x' takes 32 bytes, got 12"),
        ({"z": np.zeros(8, np.float32)}, "input 'x' was given no value"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(watched: Watched, inputs: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(Failed, match=f"model 0: {reason}"):
        opened(watched).outputs(one_node("Relu"), inputs)


def test_a_sequence_output_can_be_timed_and_not_read(watched: Watched) -> None:
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
    y = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "test", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    device = opened(watched)
    assert device.time([model], PLAN)[0].p50_ms > 0
    with pytest.raises(Failed, match="output 'y' is no tensor"):
        device.outputs(model, {"x": np.zeros((1, 8), np.float32)})


def test_runner_and_python_agree_on_a_network_of_a_third_of_a_millisecond() -> None:
    # The same library on the same cores. A factor of 3 leaves room for a computer that gets busy between the two.
    model = conv_net(ch=32, depth=4, side=25)
    plan = TimingPlan(min_ms=50, max_ms=200)
    (runner,), (python,) = (open_device(f"local:{way}").time([model], plan) for way in ("runner", "python"))
    assert python.p50_ms / 3 < runner.p50_ms < python.p50_ms * 3


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
