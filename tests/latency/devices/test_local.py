import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from latency import Device, DeviceError, Failed, TimingPlan, open_device
from latency.plan import OptLevel
from latency.runtime import installed
from tests.latency.devices.ways import LOCAL_WAYS
from tests.latency.models import conv_net, one_node

PLAN = TimingPlan(warmup_runs=1, warmup_ms=0, min_rounds=2, min_samples=2, min_ms=0, max_ms=20, half_width=0.5)


def replaced(**fields: object) -> TimingPlan:
    return msgspec.structs.replace(PLAN, **fields)


@pytest.fixture(params=LOCAL_WAYS)
def local(request: pytest.FixtureRequest) -> Iterator[Device]:
    opened = open_device(request.param)
    yield opened
    opened.close()


def test_open_batch_is_timed_as_one(local: Device) -> None:
    (taken,) = local.time([conv_net(batch="N")], PLAN)
    assert taken.p50_ms > 0


def test_open_height_is_refused_by_the_inputs_name(local: Device) -> None:
    with pytest.raises(Failed, match=r"only the batch may be open, and input 'x' has shape \[1, 4, 'H', 8\]"):
        local.time([conv_net(height="H")], PLAN)


@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE", "FLOAT16", "INT8", "UINT8", "INT32", "INT64", "BOOL"])
def test_inputs_of_common_types_are_made_up(local: Device, dtype: str) -> None:
    (taken,) = local.time([one_node("Identity", dtype=TensorProto.DataType.Value(dtype))], PLAN)
    assert taken.p50_ms > 0


def test_text_input_is_refused(local: Device) -> None:
    with pytest.raises(Failed, match=r"input 'x' is a tensor\(string\)"):
        local.time([one_node("Identity", dtype=TensorProto.STRING)], PLAN)


def test_unknown_operator_fails_by_its_name(local: Device) -> None:
    with pytest.raises(Failed, match="NoSuchOperator"):
        local.time([one_node("NoSuchOperator")], PLAN)


def test_model_that_breaks_while_running_fails_by_its_place(local: Device) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[2, 3] x) => (float[N] y) { s = Shape(x)  t = Add(s, s)  y = Reshape(x, t) }"""
    with pytest.raises(Failed, match="cannot run model 1") as caught:
        local.time([conv_net(), onnx.parser.parse_model(text)], PLAN)
    assert caught.value.model_index == 1


def test_runs_stop_at_the_plans_limit_of_samples(local: Device) -> None:
    plan = replaced(min_rounds=4, min_samples=4, max_samples=40, max_ms=10_000, half_width=1e-9)
    (taken,) = local.time([conv_net()], plan)
    assert 40 <= taken.runs < 40 + plan.block_runs


def test_runs_stop_at_the_plans_limit_of_time(local: Device) -> None:
    plan = replaced(max_samples=10**9, min_ms=0, max_ms=5, half_width=1e-9)
    (taken,) = local.time([conv_net()], plan)
    before_last_ns = sum(map(sum, taken.samples_ns[:-1]))
    assert before_last_ns < 5e6 <= sum(map(sum, taken.samples_ns))


def test_slow_models_are_timed_one_run_a_block(local: Device) -> None:
    (taken,) = local.time([conv_net()], replaced(block_ms=1e-6))
    assert {len(r) for r in taken.samples_ns} == {1}


def test_cpu_time_is_kept_for_one_thread_alone(local: Device) -> None:
    one, two = (local.time([conv_net()], replaced(threads=n))[0] for n in (1, 2))
    assert len(one.cpu_ns) == len(one.samples_ns)
    assert two.cpu_ns == ()


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_every_optimisation_level_runs(local: Device, level: OptLevel) -> None:
    (taken,) = local.time([conv_net()], replaced(opt_level=level))
    assert taken.plan.opt_level == level


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this operating system cannot pin threads")
def test_cores_are_given_back_after_pinning(local: Device) -> None:
    before = os.sched_getaffinity(0)
    local.time([conv_net()], replaced(cpus=(min(before),)))
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this operating system cannot pin threads")
def test_cores_that_are_not_there_are_refused(local: Device) -> None:
    with pytest.raises(DeviceError, match=r"the plan's cpus must be among \["):
        local.time([conv_net()], replaced(cpus=(99_999,)))


def test_garbage_collection_is_on_again_after_a_failure() -> None:
    with pytest.raises(Failed):
        open_device("local:python").time([b"garbage"], PLAN)
    assert gc.isenabled()


def test_onnxruntime_writes_nothing(local: Device, capfd: pytest.CaptureFixture[str]) -> None:
    model = conv_net()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3), "unused"))
    local.time([model], PLAN)
    with pytest.raises(Failed):
        local.time([b"garbage"], PLAN)
    assert capfd.readouterr() == ("", "")


def test_runtime_and_processor_are_named(local: Device) -> None:
    info = local.info()
    assert info.runtime.startswith("onnxruntime ")
    assert info.cpu
    assert info.cores == os.cpu_count()


@pytest.mark.skipif(installed() is None or not shutil.which("unshare"), reason="needs the runner and unshare")
def test_runner_in_a_folder_where_no_program_may_run_says_what_to_set(tmp_path: Path) -> None:
    """A real mount; it goes with the namespace that it is made in."""
    code = (
        f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}\n"
        "from latency import DeviceError, TimingPlan, open_device\n"
        "from tests.latency.models import conv_net\n"
        "try: open_device('local:runner').time([conv_net()], TimingPlan())\n"
        "except DeviceError as error: print(error)\n"
    )
    mount = f"mount -t tmpfs -o noexec tmpfs {tmp_path} || exit 77; exec {sys.executable} -c '{code.replace(chr(39), chr(34))}'"
    done = subprocess.run(["unshare", "--mount", "--map-root-user", "sh", "-c", mount], capture_output=True, text=True, timeout=120)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this computer lets nobody mount: {done.stderr.strip()}")
    assert "Permission denied" in done.stdout, done.stderr
    assert "mounted noexec? set TMPDIR here, or XDG_CACHE_HOME on a board, to a folder where programs may run" in done.stdout
