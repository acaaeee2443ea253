"""The measuring protocol on the test phone: core classes, frequency by round, heat. Core 0 is its little one and core 1 its big one."""

import msgspec
import pytest

from latency import Device, DeviceError, TimingPlan
from tests.latency.models import conv_net
from tests.phone.phone import FakePhone

PLAN = TimingPlan(warmup_runs=1, warmup_ms=0, min_rounds=3, min_samples=6, min_ms=0, max_ms=50, half_width=0.5, anchor=True)


@pytest.mark.parametrize(("cores", "cpu", "mhz"), [("big", 1, 2841), ("little", 0, 1804)])
def test_a_class_of_cores_is_kept_to_and_its_frequency_told_by_round(phone_device: Device, cores: str, cpu: int, mhz: int) -> None:
    (taken,) = phone_device.time([conv_net()], msgspec.structs.replace(PLAN, cores=cores))
    assert taken.cpus == (cpu,)
    assert set(taken.mhz) == {mhz}
    assert len(taken.anchor_ns) == len(taken.samples_ns)


def test_a_hot_phone_is_refused_after_the_wait_and_measured_when_it_is_cool(phone_device: Device, shared_phone: FakePhone) -> None:
    plan = msgspec.structs.replace(PLAN, settle_s=0.1)
    (shared_phone.fake / "thermal").write_text("3\n")
    try:
        with pytest.raises(DeviceError, match=r"is throttled by heat after 0 s of waiting \(thermal status 3\): let it cool"):
            phone_device.time([conv_net()], plan)
    finally:
        (shared_phone.fake / "thermal").write_text("0\n")
    (taken,) = phone_device.time([conv_net()], plan)
    assert not any("heat" in problem for problem in taken.problems())
