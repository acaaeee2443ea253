import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

import latency
from latency import QUICK, Device, DeviceError, DeviceInfo, Failed, InvalidDevice, Measurement, TimingPlan, Unreachable, open_device
from latency.devices import Model
from latency.pool import LOSSES, DevicePool
from search_spaces.errors import UnknownName
from tests.latency.models import conv_net

NETS = [conv_net(ch=4), conv_net(ch=8)]


def opened(*specs: str, say: Callable[[str], None] = pytest.fail, **more: Any) -> "closing[DevicePool]":  # Any: DevicePool's arguments
    return closing(DevicePool(specs, say=say, **({"wait_s": 60.0, "poll_s": 0.01} | more)))


class Other:
    """The fake device with another processor."""

    def __init__(self) -> None:
        self._fake = open_device("fake")
        self.close, self.time = self._fake.close, self._fake.time

    def info(self) -> DeviceInfo:
        return msgspec.structs.replace(self._fake.info(), cpu="another processor")


class Busy:
    """The fake device, which notes how many calls it was in at once."""

    def __init__(self, notes: list[int]) -> None:
        self._fake, self._notes, self._inside = open_device("fake"), notes, 0
        self.info, self.close = self._fake.info, self._fake.close

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        self._inside += 1
        self._notes.append(self._inside)
        time.sleep(0.02)
        self._inside -= 1
        return self._fake.time(models, plan)


def test_pool_of_one_measures_as_the_device_itself() -> None:
    with opened("fake") as pool, closing(open_device("fake")) as device:
        assert pool.time(NETS, QUICK) == device.time(NETS, QUICK)
        assert pool.info() == device.info()


def test_model_that_cannot_run_is_no_loss() -> None:
    with opened("fake:fail=1") as pool, pytest.raises(Failed, match="cannot run model 0"):
        pool.time(NETS, QUICK)


def test_device_takes_one_measurement_at_a_time_and_others_queue() -> None:
    notes: list[int] = []
    with opened("one", "two", open_one=lambda spec: Busy(notes)) as pool:
        threads = [threading.Thread(target=pool.time, args=(NETS, QUICK)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert notes == [1] * 8


def test_work_of_a_lost_device_goes_to_another(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "a").touch()
    with opened(f"fake:there={tmp_path / 'a'}", "fake", say=said.append) as pool:
        (tmp_path / "a").unlink()
        assert len(pool.time(NETS, QUICK)) == 2
        assert len(pool.time(NETS, QUICK)) == 2
    assert len(said) == 1
    assert "is lost: the device fake is unplugged" in said[0]


def test_lost_device_works_again_once_it_is_back(tmp_path: Path) -> None:
    plug, said = tmp_path / "plugged", list[str]()
    plug.touch()

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("waiting for"):
            plug.touch()

    with opened(f"fake:there={plug}", say=say) as pool:
        plug.unlink()
        assert len(pool.time(NETS, QUICK)) == 2
    assert ["is lost" in said[0], said[1].startswith("waiting for fake:there="), "is there, and measuring goes on" in said[2]] == [True] * 3
    assert " more: the device fake is unplugged: make the file" in said[1]
    assert len(said) == 3


def test_device_that_does_not_come_back_is_waited_for_only_so_long(tmp_path: Path) -> None:
    plug = tmp_path / "plugged"
    plug.touch()
    with opened(f"fake:there={plug}", say=lambda text: None, wait_s=0.2) as pool:
        plug.unlink()
        with pytest.raises(Unreachable, match=r"no device came back within 0.2 s: the device fake is unplugged"):
            pool.time(NETS, QUICK)


def test_no_wait_is_the_devices_own_error(tmp_path: Path) -> None:
    plug = tmp_path / "plugged"
    plug.touch()
    with opened(f"fake:there={plug}", say=lambda text: None, wait_s=0) as pool:
        plug.unlink()
        with pytest.raises(Unreachable, match=r"^the device fake is unplugged"):
            pool.time(NETS, QUICK)


def test_measurement_that_always_loses_the_device_ends() -> None:
    said: list[str] = []
    with opened("fake:lost=1", say=said.append) as pool, pytest.raises(Unreachable, match=f"lost {LOSSES} times in a row"):
        pool.time(NETS, QUICK)
    assert sum("is lost" in text for text in said) == LOSSES


def test_other_device_in_the_place_of_the_lost_one_is_not_taken(tmp_path: Path) -> None:
    devices, said = list[Device]([open_device("fake:lost=1"), Other(), Other(), open_device("fake")]), list[str]()
    with opened("x", open_one=lambda spec: devices.pop(0), say=said.append) as pool:
        assert len(pool.time(NETS, QUICK)) == 2
    (waiting,) = [text for text in said if text.startswith("waiting")]
    assert "what answers at x is another device, fake (another processor, 1 core)" in waiting


def test_devices_of_different_models_are_refused() -> None:
    devices = [open_device("fake"), Other()]
    with pytest.raises(InvalidDevice, match=r"--device a is fake \(no processor.* and b is fake \(another processor.*make no front"):
        DevicePool(["a", "b"], say=pytest.fail, open_one=lambda spec: devices.pop(0))


def test_device_named_twice_is_refused() -> None:
    with pytest.raises(InvalidDevice, match="names fake twice"):
        DevicePool(["fake", "fake"], say=pytest.fail)


def test_device_that_is_missing_at_first_is_taken_in_later() -> None:
    said, second_worked, tries = list[str](), threading.Event(), list[str]()

    class Slow(Busy):
        def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
            assert second_worked.wait(60)
            return super().time(models, plan)

    class Quick(Busy):
        def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
            second_worked.set()
            return super().time(models, plan)

    def open_one(spec: str) -> Device:
        tries.append(spec)
        if spec == "one":
            return Slow([])
        if tries.count("two") == 1:
            raise Unreachable("two is unplugged")
        return Quick([])

    with opened("one", "two", open_one=open_one, say=said.append) as pool:
        threads = [threading.Thread(target=pool.time, args=(NETS, QUICK)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert said == ["two is not there, and is taken in once it is: two is unplugged", "two is there, and measuring goes on"]


def test_no_device_at_the_start_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="the device fake is unplugged"):
        DevicePool([f"fake:there={tmp_path / 'nothing'}"], say=pytest.fail)


def test_mistyped_device_is_an_error_even_beside_one_that_is_there() -> None:
    with pytest.raises(UnknownName, match="did you mean 'fake'"):
        DevicePool(["fake", "fak"], say=pytest.fail)


def test_closed_pool_refuses_and_may_be_closed_again() -> None:
    with opened("fake") as pool:
        pool.close()
        with pytest.raises(DeviceError, match="closed"):
            pool.time(NETS, QUICK)


def test_device_that_is_back_after_the_pool_was_closed_is_let_go() -> None:
    devices = [open_device("fake:lost=1"), second := open_device("fake")]

    def open_one(spec: str) -> Device:
        if len(devices) == 1:
            pool.close()
        return devices.pop(0)

    pool = DevicePool(["x"], say=lambda text: None, open_one=open_one, wait_s=60, poll_s=0.01)
    with pytest.raises(DeviceError, match="the device pool is closed"):
        pool.time(NETS, QUICK)
    with pytest.raises(DeviceError, match="the device fake is closed"):
        second.time(NETS, QUICK)


def test_device_that_others_measure_on_is_not_lost() -> None:
    class InUse(Busy):
        def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
            self._notes.append(1)
            raise latency.Busy("x was not free")

    tries = list[int]()
    with opened("x", open_one=lambda spec: InUse(tries)) as pool:  # say fails the test: nothing is lost
        for _ in range(2):
            with pytest.raises(latency.Busy, match="x was not free"):
                pool.time(NETS, QUICK)
    assert tries == [1, 1]
