"""The phone as a device, and everything that goes wrong with one: what is said, what is left on it, whether it works again."""

import contextlib
import os
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from latency import DeviceError, Failed, InvalidDevice, InvalidRuntime, TimingPlan, Unreachable, open_device
from latency.devices.adb import AdbLink
from latency.devices.facts import Condition, read_condition, read_facts
from latency.devices.remote import Remote
from latency.devices.runner_device import RunnerDevice
from latency.runtime import from_file
from tests.latency.devices.phones import RUNTIME, device_of, left_on, soon
from tests.latency.models import conv_net
from tests.latency.runtimes import ARM, INTEL
from tests.phone.phone import SECOND, SERIAL, FakePhone

PLAN = TimingPlan(warmup_runs=1, warmup_ms=0, min_rounds=3, min_samples=6, min_ms=0, max_ms=50, half_width=0.5)
LONG = msgspec.structs.replace(PLAN, min_ms=2500, max_ms=10_000, max_samples=10**9)  # long enough to be broken in the middle
DEPLOYED = ["libonnxruntime", "runner"]


def condition_of(made: FakePhone) -> Condition:
    with contextlib.closing(Remote(AdbLink(str(made.adb), SERIAL))) as remote:
        return read_condition(remote)


def fill(made: FakePhone, *, free_bytes: int) -> Path:
    """Fill the phone's disk up to what is to stay free; gives the file that does it."""
    folder = made.inside("/data/local/tmp")
    state = os.statvfs(folder)
    (folder / "filler").write_bytes(b"\0" * (state.f_bavail * state.f_frsize - free_bytes))
    return folder / "filler"


def test_phone_is_opened_by_its_address_and_the_runtime_that_is_named(shared_phone: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB", str(shared_phone.adb))
    for spec, runtime in ((f"android:{SERIAL}", RUNTIME), (f"android:{SERIAL},runtime={RUNTIME}", "")):
        with contextlib.closing(open_device(spec, runtime=runtime)) as device:
            assert device.info().runtime.startswith("onnxruntime ")
            assert device.time([conv_net()], PLAN)[0].p50_ms > 0


def test_outputs_on_the_phone_are_those_of_this_computer(phone_device: RunnerDevice) -> None:
    model = conv_net(ch=16, depth=3, side=20)
    x = np.random.default_rng(1).random((1, 16, 20, 20), dtype=np.float32)
    (ours,) = phone_device.outputs(model, {"x": x}).values()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"x": x})
    # Kernels of another machine add up in another order: some 1e-6 of the largest value.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_runner_may_use_the_fast_cores_alone_where_the_plan_says_so(own_phone: FakePhone) -> None:
    with contextlib.closing(Remote(AdbLink(str(own_phone.adb), SERIAL))) as remote:
        facts = read_facts(remote)
    big = facts.classes[0].cpus
    if not set(big) <= os.sched_getaffinity(0):
        pytest.skip(f"this computer has no cores {big} to stand for the phone's")
    seen: dict[int, str] = {}
    with contextlib.closing(device_of(own_phone)) as device:
        watching = soon(lambda: _pinned(seen, own_phone, big), lambda: None)
        device.time([conv_net()], msgspec.structs.replace(LONG, cpus=big))
        watching.join()
    assert ",".join(map(str, big)) in seen.values()


def _pinned(seen: dict[int, str], made: FakePhone, cpus: tuple[int, ...]) -> bool:
    seen.update(made.runners())
    return ",".join(map(str, cpus)) in seen.values()


def test_cores_that_the_phone_has_not_are_refused_and_nothing_is_left(own_phone: FakePhone) -> None:
    with contextlib.closing(device_of(own_phone)) as device:
        with pytest.raises(DeviceError, match=r"the plan's cpus must be among \[0, 1"):
            device.time([conv_net()], msgspec.structs.replace(PLAN, cpus=(63,)))
        assert left_on(own_phone) == DEPLOYED


def test_phone_pulled_out_while_it_times_and_put_back_gives_the_measurement(own_phone: FakePhone) -> None:
    def blink() -> None:
        own_phone.unplug()
        own_phone.plug_in()

    with contextlib.closing(device_of(own_phone)) as device:
        thread = soon(own_phone.runners, blink)
        (taken,) = device.time([conv_net()], LONG)
        thread.join()
        assert sum(map(sum, taken.samples_ns)) >= LONG.min_ms * 1e6
        assert left_on(own_phone) == DEPLOYED
        assert own_phone.runners() == {}


def test_phone_pulled_out_for_good_is_unreachable_and_times_again_when_it_is_back(own_phone: FakePhone) -> None:
    with contextlib.closing(device_of(own_phone, back_s=1)) as device:
        thread = soon(own_phone.runners, own_phone.unplug)
        with pytest.raises(Unreachable, match=SERIAL):
            device.time([conv_net()], LONG)
        thread.join()
        own_phone.plug_in()
        assert device.time([conv_net()], PLAN)[0].p50_ms > 0


def test_job_that_a_lost_phone_kept_goes_after_a_day(own_phone: FakePhone) -> None:
    with contextlib.closing(device_of(own_phone)) as device:
        device.time([conv_net()], PLAN)
    folder = own_phone.inside(AdbLink.home)
    for name, age_s in (("job-old", 2 * 86400), ("job-old.result", 2 * 86400), ("job-new", 60)):
        (folder / name).write_text("left")
        changed = (folder / "job-old").stat().st_ctime - age_s
        os.utime(folder / name, (changed, changed))
    with contextlib.closing(device_of(own_phone)) as device:
        device.time([conv_net()], PLAN)
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith("job")) == ["job-new"]


def test_phone_too_full_for_the_runtime_says_what_is_free_and_keeps_no_part(own_phone: FakePhone) -> None:
    filler = fill(own_phone, free_bytes=4_000_000)
    with contextlib.closing(device_of(own_phone)) as device:
        with pytest.raises(Failed, match=r"cannot put libonnxruntime\.so .*No space left on device.*KiB free there"):
            device.time([conv_net()], PLAN)
        assert left_on(own_phone) == ["runner"]
        filler.unlink()
        assert device.time([conv_net()], PLAN)[0].p50_ms > 0


def test_phone_too_full_for_a_model_says_so_and_keeps_nothing_of_it(own_phone: FakePhone) -> None:
    with contextlib.closing(device_of(own_phone)) as device:
        device.time([conv_net()], PLAN)
        fill(own_phone, free_bytes=8192)
        with pytest.raises(Failed, match=r"cannot put job .*No space left on device"):
            device.time([conv_net(ch=64)], PLAN)
        assert left_on(own_phone) == DEPLOYED


@pytest.mark.parametrize("wrote", ["echo garbage > $4", "head -c 4000 /dev/urandom > $4", ": > $4", ":"])
def test_runner_that_leaves_garbage_with_exit_code_0_is_not_believed(own_phone: FakePhone, wrote: str) -> None:
    with contextlib.closing(device_of(own_phone)) as device:
        device.time([conv_net()], PLAN)
        (runner,) = own_phone.inside(AdbLink.home).glob("runner-*")
        runner.write_text(f"#!/system/bin/sh\n{wrote}\nexit 0\n")
        with pytest.raises(DeviceError, match="the runner left no whole result") as caught:
            device.time([conv_net()], PLAN)
        assert "\n" not in str(caught.value)
        assert left_on(own_phone) == DEPLOYED
        assert device.time([conv_net()], PLAN)[0].p50_ms > 0  # the runner was sent again


def test_model_that_the_phone_cannot_run_leaves_nothing(own_phone: FakePhone) -> None:
    with contextlib.closing(device_of(own_phone)) as device:
        with pytest.raises(Failed, match="cannot load model 0"):
            device.time([b"garbage"], PLAN)
        assert left_on(own_phone) == DEPLOYED


def test_runtime_for_another_machine_is_refused_and_nothing_is_put_on_the_phone(
    own_phone: FakePhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADB", str(own_phone.adb))
    (tmp_path / "x86.so").write_bytes(INTEL)
    with pytest.raises(InvalidRuntime, match=r"x86\.so is for x86_64 \(bionic\), and the device is aarch64 \(bionic\)"):
        open_device(f"android:{SERIAL}", runtime=str(tmp_path / "x86.so"))
    assert list(own_phone.inside("/data/local/tmp").iterdir()) == []


def test_library_that_only_looks_like_a_runtime_is_said_and_nothing_of_the_job_is_left(own_phone: FakePhone, tmp_path: Path) -> None:
    (tmp_path / "odd.so").write_bytes(ARM)
    link = AdbLink(str(own_phone.adb), SERIAL)
    with contextlib.closing(Remote(link)) as remote:
        facts = read_facts(remote)
    device = RunnerDevice(Remote(link), from_file(tmp_path / "odd.so"), facts.info("android"))
    with contextlib.closing(device), pytest.raises(DeviceError, match=r"cannot use onnxruntime 1\.20\.3 for aarch64 \(bionic\) there: "):
        device.time([conv_net()], PLAN)
    assert left_on(own_phone) == DEPLOYED


def test_heat_is_seen_as_it_rises_and_as_it_passes(own_phone: FakePhone) -> None:
    assert condition_of(own_phone).problems() == ()
    own_phone.heat(status=0, zone_c=72)
    assert (condition_of(own_phone).hottest_c, condition_of(own_phone).problems()) == (72.0, ("its processor is at 72 °C: let it cool",))
    own_phone.heat(status=2, zone_c=81, big_core_khz=1_400_000)
    assert condition_of(own_phone).problems() == (
        "it is throttled by heat (thermal status 2): let it cool",
        "its processor is at 81 °C: let it cool",
        "cores 1 may not reach their highest frequency now",
    )
    own_phone.cool()
    assert (condition_of(own_phone).thermal_status, condition_of(own_phone).hottest_c) == (0, 38.5)
    assert condition_of(own_phone).problems() == ()


def test_of_two_phones_one_must_be_named(two_phones: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB", str(two_phones.adb))
    with pytest.raises(InvalidDevice, match=f"2 phones are there, name one: android:{SERIAL} or android:{SECOND}"):
        open_device("android", runtime=RUNTIME)


def test_each_of_two_phones_is_timed_by_its_serial(two_phones: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB", str(two_phones.adb))
    for serial in (SERIAL, SECOND):
        with contextlib.closing(open_device(f"android:{serial}", runtime=RUNTIME)) as device:
            assert device.time([conv_net()], PLAN)[0].device.kind == "android"
