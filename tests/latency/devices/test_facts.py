"""Facts read from what real kinds of device write: a Raspberry Pi, an eight-core phone, an x86 board. Texts by hand from the formats."""

import pytest

from latency.devices.facts import Condition, condition, facts, parse
from latency.devices.transport import LocalTransport, Result
from latency.errors import DeviceError

PI = {
    "uname -m": "aarch64",
    "uname -sr": "Linux 6.6.31-v8",
    "getconf LONG_BIT": "64",
    "getconf PAGE_SIZE": "16384",
    "present": "0-3",
    "/proc/cpuinfo": "\n\n".join(
        f"processor\t: {i}\nFeatures\t: fp asimd evtstrm asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b" for i in range(4)
    ),
    "/proc/meminfo": "MemTotal:        8245328 kB\nMemFree: 1 kB",
    "/proc/loadavg": "0.08 0.03 0.01 1/200 4000",
    "/proc/self/status": "Name:\tcat\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3",
    "/sys/firmware/devicetree/base/model": "Raspberry Pi 5 Model B Rev 1.0",
    "/etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
    "/sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "/sys/class/thermal/thermal_zone0/temp": "61250",
    **{f"cpu{i}/cpufreq/cpuinfo_max_freq": "2400000" for i in range(4)},
    **{f"cpu{i}/cpufreq/scaling_max_freq": "2400000" for i in range(3)},
    "cpu3/cpufreq/scaling_max_freq": "1500000",
    **{f"cpu{i}/cpufreq/scaling_cur_freq": "1500000" for i in range(4)},
    "cpu0/cpufreq/scaling_governor": "ondemand",
}
CAPACITIES = (160, 160, 160, 160, 498, 498, 1024, 1024)
PHONE = {
    "uname -m": "aarch64",
    "present": "0-7",
    # Cores 6 and 7 sleep: they have no line.
    "/proc/cpuinfo": "\n\n".join(f"processor\t: {i}\nCPU implementer\t: 0x41\nCPU part\t: 0x{'d05' if i < 4 else 'd41'}" for i in range(6)),
    "getprop": "[ro.product.manufacturer]: [Google]\n[ro.product.model]: [Pixel 6]\n[ro.product.cpu.abi]: [armeabi-v7a]\n"
    "[ro.build.version.release]: [15]\n[ro.build.version.sdk]: [35]\n[ro.board.platform]: [gs101]",
    **{f"cpu{i}/cpu_capacity": str(capacity) for i, capacity in enumerate(CAPACITIES)},
}


def test_answer_of_a_look_is_cut_at_its_marks() -> None:
    assert parse("@@ /a\nx: 1\ny\0\n\n@@ dumpsys battery\n  level: 5\n\n") == {"/a": "x: 1\ny", "dumpsys battery": "level: 5"}


def test_boards_name_themselves_by_their_device_tree() -> None:
    found = facts(PI)
    assert (found.model, found.os) == ("Raspberry Pi 5 Model B Rev 1.0", "Debian GNU/Linux 12 (bookworm)")
    assert (found.page_bytes, found.memory_bytes, found.governor) == (16384, 8245328 * 1024, "ondemand")
    assert found.isa == ("asimd", "asimdhp", "asimddp")
    assert found.allowed_cpus == (0, 1, 2, 3)
    assert found.info("ssh").cpu == "Raspberry Pi 5 Model B Rev 1.0: 4× Cortex-A76 2.40 GHz"


def test_board_is_the_same_after_an_update_of_its_kernel_and_has_the_new_one_in_its_conditions() -> None:
    before, after = facts(PI).info("ssh"), facts({**PI, "uname -sr": "Linux 6.12.8-v8"}).info("ssh")
    assert before.id == after.id
    assert (before.kernel, after.kernel) == ("Linux 6.6.31-v8", "Linux 6.12.8-v8")


@pytest.mark.parametrize(
    ("release", "os"),
    [
        ('NAME="Ubuntu"\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"', "Ubuntu 22.04"),
        ('NAME="Alpine Linux"\nVERSION_ID=3.19.1\nPRETTY_NAME="Alpine Linux v3.19"', "Alpine Linux 3.19"),
        ('PRETTY_NAME="Buildroot 2024.02"', "Buildroot 2024.02"),
        ("", "Linux"),
    ],
)
def test_system_is_named_without_what_an_update_changes(release: str, os: str) -> None:
    assert facts({**PI, "/etc/os-release": release}).os == os


def test_board_is_the_same_while_one_of_its_cores_sleeps() -> None:
    asleep = {name: text for name, text in PI.items() if not name.startswith("cpu3/")}
    asleep["/proc/cpuinfo"] = "\n\n".join(PI["/proc/cpuinfo"].split("\n\n")[:3])
    assert facts(asleep).info("ssh").id == facts(PI).info("ssh").id


def test_sleeping_cores_are_counted_and_classes_go_from_fast_to_slow() -> None:
    found = facts(PHONE)
    assert [(c.name, c.cpus, c.capacity, c.mask) for c in found.classes] == [
        ("core", (6, 7), 1024, "c0"), ("Cortex-A78", (4, 5), 498, "30"), ("Cortex-A55", (0, 1, 2, 3), 160, "f"),
    ]  # fmt: skip
    assert found.cores == 8


def test_phone_with_32_bit_programs_is_no_64_bit_machine() -> None:
    assert (facts(PHONE).machine, facts(PHONE).bits, facts(PHONE).soc) == ("armv7l", 32, "gs101")


def test_hot_and_capped_board_says_so() -> None:
    now = condition(PI)
    assert (now.hottest_c, now.load, now.mhz, now.capped) == (61.25, 0.08, (1500,) * 4, (3,))
    assert now.problems() == ("its processor is at 61 °C: let it cool", "cores 3 may not reach their highest frequency now")


def test_what_a_device_does_not_say_is_no_problem() -> None:
    assert condition({}).problems() == ()
    assert condition({}) == Condition(
        hottest_c=None, thermal_status=None, battery_percent=None, charging=None, awake=None, load=None, mhz=(), capped=()
    )


@pytest.mark.parametrize(("text", "sentence"), [("mWakefulness=Asleep", "screen is off"), ("mWakefulness=Awake", "")])
def test_sleeping_phone_is_a_problem(text: str, sentence: str) -> None:
    assert sentence in "".join(condition({"dumpsys power": text}).problems())


def test_hottest_zone_is_a_processors_where_one_is_named() -> None:
    zone = "/sys/class/thermal/thermal_zone"
    seen = {f"{zone}0/type": "battery", f"{zone}0/temp": "70000", f"{zone}1/type": "cpu-0-0", f"{zone}1/temp": "41000"}
    assert condition(seen).hottest_c == 41.0


def test_device_that_is_no_linux_is_refused() -> None:
    class Router(LocalTransport):
        def run(self, command: object, *, timeout_s: float) -> Result:
            return Result(code=1, out="", err="% Unknown command")

    from latency.devices.facts import read_facts

    with pytest.raises(DeviceError, match="does not answer as Linux or Android does: % Unknown command"):
        read_facts(Router())
