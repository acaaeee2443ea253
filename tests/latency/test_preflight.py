"""A device that cools while it is waited for, with a clock that only the waiting moves."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from latency import DeviceError
from latency.devices.facts import Facts, read_facts
from latency.devices.transport import LocalTransport, Result
from latency.preflight import STAT, aftermath, idle_share, settle

ARM = Facts(
    model="Board", soc="", machine="aarch64", os="Linux", build="", classes=(), allowed_cpus=(0,), isa=(), governor="schedutil",
    page_bytes=4096, memory_bytes=2**30, bits=64, glibc="2.36",
)  # fmt: skip
REST = "cpu  0 0 0 0 0 0 0 0\ncpu  5 0 0 95 0 0 0 0"


class Cooling:
    """A transport whose device has these temperatures, one a look (the last stays), and these thermal statuses."""

    name, folder = "board", "/nowhere"

    def __init__(self, degrees: Sequence[float] = (40,), *, statuses: Sequence[int] = (), stat: str = REST, battery: int = 90) -> None:
        self._degrees, self._statuses, self._stat, self._battery = list(degrees), list(statuses), stat, battery
        self.now, self.looks, self.said = 0.0, 0, list[str]()

    def run(self, command: Sequence[str], *, timeout_s: float) -> Result:
        if "/proc/stat" in command[-1]:
            return Result(code=0, out=self._stat, err="")
        at = min(self.looks, len(self._degrees) - 1)
        answers = {
            "uname -m": "aarch64", "/proc/cpuinfo": "processor : 0", "/sys/class/thermal/thermal_zone0/type": "cpu",
            "/sys/class/thermal/thermal_zone0/temp": f"{self._degrees[at] * 1000:.0f}", "/proc/loadavg": "9.0 9.0 9.0 1/1 1",
            "dumpsys battery": f"  level: {self._battery}",
        }  # fmt: skip
        if self._statuses:
            answers["dumpsys thermalservice"] = f"Thermal Status: {self._statuses[min(self.looks, len(self._statuses) - 1)]}"
        self.looks += 1
        return Result(code=0, out="".join(f"@@ {name}\n{text}\n\n" for name, text in answers.items()), err="")

    def push(self, source: Path, target: str) -> None: ...

    def pull(self, source: str, target: Path) -> None: ...

    def close(self) -> None: ...

    def settled(self, wait_s: float = 600, facts: Facts = ARM) -> tuple[str, ...]:
        return settle(self, facts, wait_s, say=self.said.append, clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_cool_device_at_rest_is_not_waited_for() -> None:
    device = Cooling()
    assert (device.settled(), device.now, device.said) == ((), 0.0, [])


def test_a_warm_device_is_waited_for_until_it_is_below_45_degrees() -> None:
    device = Cooling((58, 52, 47, 44))
    assert device.settled() == ()
    assert device.now == 15.0
    assert device.said == ["board is 58 °C, thermal status 0: waiting for it to cool"]


def test_a_device_that_gets_no_cooler_is_waited_for_half_a_minute() -> None:
    device = Cooling((52,))
    assert (device.settled(), device.now) == ((), 30.0)


def test_a_device_that_stays_hot_is_said() -> None:
    (problem,) = Cooling((66,)).settled()
    assert problem == "its processor is at 66 °C: let it cool"


def test_waiting_ends_when_its_time_is_up() -> None:
    device = Cooling([100 - 2 * i for i in range(20)])
    assert device.settled(wait_s=12) == ("its processor is at 96 °C: let it cool",)
    assert device.now == 10.0


def test_a_throttled_phone_is_waited_for_and_refused_in_the_end() -> None:
    device = Cooling((40,), statuses=(2,))
    with pytest.raises(DeviceError, match=r"board is throttled by heat after 60 s of waiting \(thermal status 2\): let it cool"):
        device.settled(wait_s=60)


def test_a_phone_that_cools_in_time_is_used() -> None:
    device = Cooling((40,), statuses=(2, 1, 0))
    assert (device.settled(), device.now) == ((), 10.0)


def test_other_work_is_said_with_its_share_and_the_load_of_the_last_minute_is_not() -> None:
    busy = "cpu  0 0 0 0 0 0 0 0\ncpu  40 0 0 60 0 0 0 0"
    assert Cooling(stat=busy).settled() == ("other work took 40% of the processor's time before the timing began: stop that",)


def test_a_low_battery_and_a_slow_governor_are_said() -> None:
    found = Cooling(battery=9).settled(facts=msgspec.structs.replace(ARM, governor="powersave"))
    assert found[0] == "its battery is at 9 %: charge it"
    assert found[1].startswith("its governor powersave keeps the cores at their lowest frequency")


def test_a_pc_may_be_warmer_than_a_phone() -> None:
    assert Cooling((70,)).settled(facts=msgspec.structs.replace(ARM, machine="x86_64")) == ()


def test_heat_that_came_while_timing_is_said_after() -> None:
    assert aftermath(Cooling(statuses=(3,))) == ("it became hot while it was timed (thermal status 3): let it cool, and measure again",)
    assert aftermath(Cooling(statuses=(0,))) == aftermath(Cooling()) == ()


def test_idle_share_counts_waiting_for_disks_as_idle() -> None:
    # 20 user, 60 idle, 20 waiting.
    assert idle_share("cpu  0 0 0 0 0 0 0 0 0 0", "cpu  20 0 0 60 20 0 0 0 0 0") == pytest.approx(0.8)
    assert idle_share("", "cpu  20 0 0 60 20 0 0 0 0 0") is None


def test_this_computer_answers_what_is_asked() -> None:
    transport = LocalTransport()
    assert idle_share(*transport.run(["sh", "-c", STAT], timeout_s=60).out.splitlines()) is not None
    assert aftermath(transport) == ()
    assert read_facts(transport).machine
