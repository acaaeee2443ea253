import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency import PUBLISH, QUICK
from latency.runner.job import InvalidResult, JobModel, ModelResult, Output, RunnerResult, decode, encode, limit_s

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def result_file(*outputs: Output, blob: bytes = b"") -> bytes:
    """As the runner writes it."""
    model = ModelResult(load_ns=1, warmup_ns=2, samples_ns=((3, 4), (5, 6)), outputs=outputs)
    result = RunnerResult(cpus=(0, 1), timer_ns=1, hwcap=(0, 0), runtime="1.2.3", refused="", problem="", models=(model,))
    body = msgspec.json.encode(result) + b"\n" + blob
    return body + b"\nend " + hashlib.sha256(body).hexdigest().encode() + b"\n"


def test_job_says_the_plan_in_lines_and_ends_with_the_models_and_their_inputs() -> None:
    job = encode("/there/lib.so", [JobModel(data=b"model\n1"), JobModel(data=b"two", inputs={"x y": VALUES})], QUICK)
    lines, blob = job.split(b"\ndata\n")
    assert lines.startswith(b"runner-job 1\nlibrary /there/lib.so\n")
    assert {b"threads 1", b"half_width 0.02", b"cpus -", b"model 7", b"model 3", b"input 24 x y"} <= set(lines.split(b"\n"))
    assert blob == b"model\n1two" + VALUES.tobytes()


def test_outputs_come_back_by_name_in_their_types_and_shapes() -> None:
    flags = np.array([True, False])
    written = result_file(
        Output(name="a", type="float", bytes=24, shape=(2, 3)), Output(name="b", type="bool", bytes=2, shape=(2,)),
        blob=VALUES.tobytes() + flags.tobytes(),
    )  # fmt: skip
    _, (outputs,) = decode(written)
    np.testing.assert_array_equal(outputs["a"], VALUES)
    np.testing.assert_array_equal(outputs["b"], flags)


def test_bfloat16_comes_back_as_the_floats_it_stands_for() -> None:
    # 0x3FC0 is 1.5 and 0xC000 is −2: the upper halves of the float32 of those values.
    blob = np.array([0x3FC0, 0xC000], np.uint16).tobytes()
    _, (outputs,) = decode(result_file(Output(name="y", type="bfloat16", bytes=4, shape=(2,)), blob=blob))
    np.testing.assert_array_equal(outputs["y"], [1.5, -2.0])


@settings(deadline=None)
@given(st.data())
def test_a_result_that_was_cut_or_changed_is_refused(data: st.DataObject) -> None:
    whole = result_file(Output(name="a", type="float", bytes=24, shape=(2, 3)), blob=VALUES.tobytes())
    at = data.draw(st.integers(0, len(whole) - 2))
    changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    for broken in (whole[:at], changed):
        with pytest.raises(InvalidResult):
            decode(broken)


def test_the_limit_is_beyond_every_plans_own_times() -> None:
    for plan in (QUICK, PUBLISH):
        assert limit_s(plan, 10) > 10 * (5 * plan.warmup_ms + plan.max_ms) / 1000
