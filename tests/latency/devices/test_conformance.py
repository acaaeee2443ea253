"""What every device must do."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import onnx
import pytest

from latency import DEVICES, Device, DeviceError, DeviceInfo, Failed, TimingPlan, open_device
from tests.latency.models import conv_net

# A single run may last 50 ms where the computer is busy: the limit is far from what the plan needs.
PLAN = TimingPlan(warmup_runs=1, warmup_ms=0, min_rounds=3, min_samples=6, min_ms=0, max_ms=5000, half_width=0.5)


# Where a device must be there first: the fixture that makes one, or skips.
MADE = {"ssh": "board_device", "android": "phone_device"}
PARAMS = [*(pytest.param(spec, marks=pytest.mark.device) if spec in MADE else spec for spec in DEVICES), "local:python"]


@pytest.fixture(params=PARAMS)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param in MADE:
        yield request.getfixturevalue(MADE[request.param])
        return
    opened = open_device(request.param)
    yield opened
    opened.close()


def test_every_sample_is_positive_and_in_the_rounds_the_plan_asks_for(device: Device) -> None:
    (taken,) = device.time([conv_net()], PLAN)
    assert len(taken.samples_ns) >= PLAN.min_rounds
    assert taken.runs >= PLAN.min_samples
    assert min(map(min, taken.samples_ns)) > 0
    assert 0 < taken.ci_ms[0] <= taken.p50_ms <= taken.ci_ms[1]


def test_conditions_stand_in_the_measurement(device: Device) -> None:
    (taken,) = device.time([conv_net()], PLAN)
    assert taken.plan == PLAN
    assert taken.device == device.info()
    assert taken.taken_at.endswith("Z")
    assert taken.load_ns > 0
    assert taken.warmup_ns > 0


def test_cpu_times_stand_beside_their_samples_or_nowhere(device: Device) -> None:
    (taken,) = device.time([conv_net()], PLAN)
    assert [len(r) for r in taken.cpu_ns] in ([], [len(r) for r in taken.samples_ns])


def test_processes_stand_side_by_side_each_with_the_rounds_the_plan_asks_for(device: Device) -> None:
    plan = msgspec.structs.replace(PLAN, processes=2)
    first, second = device.time([conv_net(), conv_net(ch=8)], plan)
    for taken in (first, second):
        assert len(taken.process_p50_ms) == len(taken.stopped) == 2
        assert sum(taken.process_rounds) == len(taken.samples_ns)
        assert min(taken.process_rounds) >= PLAN.min_rounds


def test_a_model_that_fails_is_named_by_its_place_in_the_call(device: Device) -> None:
    with pytest.raises(Failed, match="model 2") as caught:
        device.time([conv_net(), conv_net(ch=8), b"garbage"], msgspec.structs.replace(PLAN, anchor=True, processes=2))
    assert caught.value.model_index == 2


def test_several_models_give_measurements_in_their_order(device: Device) -> None:
    models = [conv_net(ch=4), conv_net(ch=8), conv_net(ch=12)]
    hashes = [hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest() for m in models]
    assert [m.model_sha256 for m in device.time(models, PLAN)] == hashes


def test_more_work_takes_longer(device: Device) -> None:
    # 1,300 times the multiply-accumulates: no noise of a busy computer turns that round.
    small, large = device.time([conv_net(ch=4, side=8), conv_net(ch=32, depth=4, side=25)], PLAN)
    assert small.p50_ms < large.p50_ms


def test_bytes_file_and_message_are_the_same_model(device: Device, tmp_path: Path) -> None:
    model = conv_net()
    onnx.save(model, tmp_path / "m.onnx")
    taken = device.time([model, model.SerializeToString(deterministic=True), tmp_path / "m.onnx"], PLAN)
    assert len({m.model_sha256 for m in taken}) == 1


def test_no_models_give_no_measurements(device: Device) -> None:
    assert device.time([], PLAN) == ()


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 20, b"\x08\x08"])
def test_garbage_fails_in_one_line_that_says_which_model(device: Device, garbage: bytes) -> None:
    with pytest.raises(Failed, match="model 1") as caught:
        device.time([conv_net(), garbage], PLAN)
    assert caught.value.model_index == 1
    assert "\n" not in str(caught.value)


def test_missing_file_fails_by_its_name(device: Device, tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"nowhere\.onnx") as caught:
        device.time([tmp_path / "nowhere.onnx"], PLAN)
    assert caught.value.model_index == 0


def test_a_failed_model_leaves_the_device_usable(device: Device) -> None:
    with pytest.raises(Failed):
        device.time([b"garbage"], PLAN)
    assert len(device.time([conv_net()], PLAN)) == 1


def test_info_is_equal_at_every_call_and_survives_json(device: Device) -> None:
    assert device.info() == device.info()
    assert msgspec.json.decode(msgspec.json.encode(device.info()), type=DeviceInfo) == device.info()


def test_closed_device_refuses_and_may_be_closed_again(device: Device) -> None:
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.time([conv_net()], PLAN)
