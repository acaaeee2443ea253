"""What a Linux board or a phone says about itself: the conditions of a latency, and how the device is at this moment."""

import re
from collections.abc import Mapping

import msgspec

from latency.devices.transport import Transport
from latency.errors import DeviceError
from latency.host import KERNEL_FLAGS, cpu_fields
from latency.measurement import DeviceInfo

__all__ = ["Condition", "CoreClass", "Facts", "read_condition", "read_facts"]

LOOK_S = 120.0
HOT_C, LOW_BATTERY_PERCENT, BUSY_LOAD = 60.0, 30, 1.0
# Every file and every command's output behind a line of its own; what is missing or not to be read is left out.
LOOK = r"""
show() { [ -r "$1" ] && echo "@@ $1" && cat "$1" 2>/dev/null && echo; }
tell() { command -v "$1" >/dev/null 2>&1 && echo "@@ $*" && "$@" 2>/dev/null && echo; }
cd /sys/devices/system/cpu
for f in present online cpu[0-9]*/cpu_capacity cpu[0-9]*/cpufreq/cpuinfo_max_freq cpu[0-9]*/cpufreq/scaling_max_freq \
  cpu[0-9]*/cpufreq/scaling_cur_freq cpu[0-9]*/cpufreq/scaling_governor; do show $f; done
cd /
for f in /proc/cpuinfo /proc/meminfo /proc/loadavg /proc/self/status /sys/firmware/devicetree/base/model /sys/devices/soc0/machine \
  /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp /etc/os-release; do show $f; done
tell uname -sr; tell uname -m; tell getconf LONG_BIT; tell getconf PAGE_SIZE; tell getconf GNU_LIBC_VERSION
if command -v getprop >/dev/null 2>&1; then tell getprop; tell dumpsys battery; tell dumpsys thermalservice; tell dumpsys power; fi
:
"""
# Arm's part numbers, from arch/arm64/include/asm/cputype.h of Linux.
PARTS = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2",
    0xD4B: "Cortex-A78C", 0xD4C: "Cortex-X1C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520",
    0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD85: "Cortex-X925", 0xD87: "Cortex-A725",
}  # fmt: skip
# What Android's programs are built for decides, not the kernel: a 64-bit one often runs 32-bit programs only.
ABIS = {"arm64-v8a": ("aarch64", 64), "x86_64": ("x86_64", 64), "armeabi-v7a": ("armv7l", 32), "x86": ("i686", 32)}

Seen = Mapping[str, str]


class CoreClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cores of one kind. ``capacity`` is the kernel's, 1024 for the fastest; ``max_mhz`` and ``capacity`` 0 where not readable."""

    name: str
    cpus: tuple[int, ...]
    max_mhz: int = 0
    capacity: int = 0

    @property
    def mask(self) -> str:
        """The cores as ``taskset`` takes them, in hex.

        >>> CoreClass(name="Cortex-X1", cpus=(4, 5, 6, 7)).mask
        'f0'
        """
        return f"{sum(1 << cpu for cpu in self.cpus):x}"


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stays as it is: ``classes`` from the fastest to the slowest, ``allowed_cpus`` those that our processes may use.

    ``os`` changes with a new release of the distribution, ``kernel`` with any update. ``bits`` are those of its programs; ``build`` is
    an Android's fingerprint; ``glibc`` the version of that C library. Text is "", numbers are 0 where the device does not say.
    """

    model: str
    soc: str
    machine: str
    os: str
    build: str
    classes: tuple[CoreClass, ...]
    allowed_cpus: tuple[int, ...]
    isa: tuple[str, ...]
    governor: str
    page_bytes: int
    memory_bytes: int
    bits: int
    glibc: str = ""
    kernel: str = ""

    @property
    def cores(self) -> int:
        """How many cores there are, those that sleep too."""
        return sum(len(c.cpus) for c in self.classes)

    def info(self, kind: str) -> DeviceInfo:
        """As the conditions of a measurement; the runtime is not known yet and empty."""
        names = " + ".join(f"{len(c.cpus)}× {c.name}" + (f" {c.max_mhz / 1000:.2f} GHz" if c.max_mhz else "") for c in self.classes)
        whose = " ".join(filter(None, (self.model, self.soc and f"({self.soc})")))
        return DeviceInfo(
            kind=kind, cpu=": ".join(filter(None, (whose, names))), cores=self.cores, machine=self.machine,
            os=f"{self.os} ({self.build})" if self.build else self.os, runtime="", isa=self.isa, governor=self.governor,
            max_mhz=max((c.max_mhz for c in self.classes), default=0), kernel=self.kernel,
        )  # fmt: skip


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is now. ``hottest_c`` is the hottest processor zone in °C, ``thermal_status`` Android's 0 (none) to 6 (shutdown).

    ``load`` is the mean number of busy processes over the last minute; None where the device does not say.
    """

    hottest_c: float | None
    thermal_status: int | None
    battery_percent: int | None
    charging: bool | None
    awake: bool | None
    load: float | None
    mhz: tuple[int, ...]
    capped: tuple[int, ...]

    def problems(self) -> tuple[str, ...]:
        """Reasons not to measure now, a sentence each."""
        found = (
            (self.thermal_status or 0) > 0 and f"it is throttled by heat (thermal status {self.thermal_status}): let it cool",
            (self.hottest_c or 0) >= HOT_C and f"its processor is at {self.hottest_c:.0f} °C: let it cool",
            self._drained() and f"its battery is at {self.battery_percent} %: charge it",
            self.awake is False and "its screen is off, and a sleeping phone slows its cores: wake it",
            self._busy() and f"other work runs on it (load {self.load}): stop that",
            bool(self.capped) and f"cores {', '.join(map(str, self.capped))} may not reach their highest frequency now",
        )
        return tuple(text for text in found if text)

    def _busy(self) -> bool:
        """Android's own kernel threads count as load at rest: there the figure says nothing."""
        return self.thermal_status is None and (self.load or 0) >= BUSY_LOAD

    def _drained(self) -> bool:
        return self.battery_percent is not None and self.battery_percent < LOW_BATTERY_PERCENT


def read_facts(transport: Transport) -> Facts:
    """What the device is.

    Raises:
        Unreachable: it is gone.
        DeviceError: it does not answer as a Linux or Android does.
    """
    return facts(_look(transport))


def read_condition(transport: Transport) -> Condition:
    """How the device is at this moment; raises as ``read_facts``."""
    return condition(_look(transport))


def parse(text: str) -> dict[str, str]:
    """The look's answer as a dict from a file's or command's name to what stands in it.

    >>> parse("@@ /a\\n1\\n\\n@@ uname -m\\naarch64\\n")
    {'/a': '1', 'uname -m': 'aarch64'}
    """
    parts = re.split(r"^@@ (.+)\n", text.replace("\0", ""), flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def facts(seen: Seen) -> Facts:
    """The facts in a parsed look."""
    properties = _properties(seen)
    release, api = properties.get("ro.build.version.release"), properties.get("ro.build.version.sdk")
    fields = cpu_fields(seen.get("/proc/cpuinfo", ""))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    maker, phone = properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", "")
    soc = " ".join(filter(None, (properties.get("ro.soc.manufacturer"), properties.get("ro.soc.model"))))
    machine, bits = ABIS.get(properties.get("ro.product.cpu.abi", ""), ("", 0))
    classes = _classes(seen)
    return Facts(
        model=f"{maker} {phone}".strip() or seen.get("/sys/firmware/devicetree/base/model", ""),
        soc=soc or properties.get("ro.board.platform", "") or seen.get("/sys/devices/soc0/machine", "") or _hardware(seen),
        machine=machine or seen.get("uname -m", ""),
        os=f"Android {release} (API {api})" if release else _distribution(seen),
        build=properties.get("ro.build.fingerprint", ""),
        classes=classes,
        allowed_cpus=_cpu_list(_field(seen.get("/proc/self/status", ""), "Cpus_allowed_list")),
        isa=tuple(flag for flag in KERNEL_FLAGS if flag in flags),
        governor=seen.get(f"cpu{classes[0].cpus[0]}/cpufreq/scaling_governor", "") if classes else "",
        page_bytes=_number(seen.get("getconf PAGE_SIZE", "")),
        memory_bytes=_number(_field(seen.get("/proc/meminfo", ""), "MemTotal")) * 1024,
        bits=bits or _number(seen.get("getconf LONG_BIT", "")),
        glibc=seen.get("getconf GNU_LIBC_VERSION", "").removeprefix("glibc").strip(),
        kernel=seen.get("uname -sr", ""),
    )


def condition(seen: Seen) -> Condition:
    """The condition in a parsed look."""
    battery, power = seen.get("dumpsys battery", ""), seen.get("dumpsys power", "")
    status = re.search(r"Thermal Status: (\d+)", seen.get("dumpsys thermalservice", ""))
    cores = sorted(cpu for name in seen if (cpu := _core(name, "cpufreq/scaling_cur_freq")) is not None)
    tops = {cpu: [_number(seen.get(f"cpu{cpu}/cpufreq/{name}_max_freq", "")) for name in ("scaling", "cpuinfo")] for cpu in cores}
    return Condition(
        hottest_c=_hottest(seen),
        thermal_status=int(status[1]) if status else None,
        battery_percent=_number(_field(battery, "level")) if battery else None,
        charging=bool(re.search(r"(AC|USB|Wireless) powered: true", battery)) if battery else None,
        awake="mWakefulness=Awake" in power if "mWakefulness=" in power else None,
        load=float(seen["/proc/loadavg"].split()[0]) if "/proc/loadavg" in seen else None,
        mhz=tuple(_number(seen[f"cpu{cpu}/cpufreq/scaling_cur_freq"]) // 1000 for cpu in cores),
        capped=tuple(cpu for cpu, (now, ever) in tops.items() if 0 < now < ever),
    )


def _look(transport: Transport) -> dict[str, str]:
    result = transport.run(["sh", "-c", LOOK], timeout_s=LOOK_S)
    seen = parse(result.out)
    if "uname -m" not in seen or "/proc/cpuinfo" not in seen:
        raise DeviceError(f"{transport.name}: it does not answer as Linux or Android does: {' '.join(result.err.split()) or 'no words'}")
    return seen


def _classes(seen: Seen) -> tuple[CoreClass, ...]:
    """Cores grouped by part, capacity and highest frequency; those that are present without a line in cpuinfo sleep."""
    blocks = [cpu_fields(block) for block in seen.get("/proc/cpuinfo", "").split("\n\n")]
    named = {_number(block["processor"]): _core_name(block) for block in blocks if "processor" in block}
    cpus = sorted({*_cpu_list(seen.get("present", "")), *named})
    kinds, groups = {cpu: _kind(cpu, named, seen) for cpu in cpus}, dict[tuple[int, int, str], list[int]]()
    for cpu, kind in kinds.items():
        groups.setdefault(kind if cpu in named else _twin(kind, kinds, named), []).append(cpu)
    ordered = sorted(groups.items(), reverse=True)
    return tuple(CoreClass(name=name, cpus=tuple(c), max_mhz=mhz, capacity=capacity) for (capacity, mhz, name), c in ordered)


def _kind(cpu: int, named: Mapping[int, str], seen: Seen) -> tuple[int, int, str]:
    """Capacity, highest frequency in MHz and name; a core that sleeps has neither name nor frequency."""
    khz, capacity = (_number(seen.get(f"cpu{cpu}/{file}", "")) for file in ("cpufreq/cpuinfo_max_freq", "cpu_capacity"))
    return capacity, khz // 1000, named.get(cpu, "core")


def _twin(kind: tuple[int, int, str], kinds: Mapping[int, tuple[int, int, str]], named: Mapping[int, str]) -> tuple[int, int, str]:
    """What a sleeping core is, as those of its capacity show that are awake; where they are of several kinds, or none, it is not known."""
    awake = {kinds[cpu] for cpu in named if cpu in kinds}
    alike = {other for other in awake if other[0] == kind[0]}
    return alike.pop() if len(alike) == 1 else kind


def _core_name(block: Seen) -> str:
    if "CPU part" not in block:
        return " ".join(block.get("model name", "core").split())
    part = int(block["CPU part"], 16)
    arm = block.get("CPU implementer", "0x41") == "0x41"
    return PARTS.get(part, f"part {block['CPU part']}") if arm else f"part {block['CPU implementer']}:{block['CPU part']}"


def _hottest(seen: Seen) -> float | None:
    """Of the zones that name a processor, else of all; kernels write thousandths of a degree, a few old ones degrees."""
    zones = {name.removesuffix("/type"): kind.lower() for name, kind in seen.items() if name.endswith("/type") and "thermal_zone" in name}
    of_cpu = [zone for zone, kind in zones.items() if re.search(r"cpu|soc|x86_pkg", kind)]
    values = [_number(seen.get(f"{zone}/temp", "")) for zone in of_cpu or zones]
    degrees = [value / 1000 if value > 1000 else float(value) for value in values]
    sane = [value for value in degrees if 0 < value < 150]
    return max(sane) if sane else None


def _properties(seen: Seen) -> dict[str, str]:
    return dict(re.findall(r"^\[([^\]]+)\]: \[(.*)\]$", seen.get("getprop", ""), flags=re.MULTILINE))


def _distribution(seen: Seen) -> str:
    """Name and release, such as Ubuntu 22.04: without the third number, and the fourth, that an update moves on."""
    fields = dict(re.findall(r'^(NAME|VERSION_ID|PRETTY_NAME)="?([^"\n]*)', seen.get("/etc/os-release", ""), flags=re.MULTILINE))
    release = re.match(r"\d+(\.\d+)?", fields.get("VERSION_ID", ""))
    if "NAME" in fields and release:
        return f"{fields['NAME']} {release[0]}"
    return fields.get("PRETTY_NAME") or fields.get("NAME") or seen.get("uname -sr", "").partition(" ")[0]


def _hardware(seen: Seen) -> str:
    return _field(seen.get("/proc/cpuinfo", ""), "Hardware")


def _field(text: str, name: str) -> str:
    found = re.search(rf"^\s*{name}\s*:\s*(.*)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else ""


def _core(name: str, file: str) -> int | None:
    found = re.fullmatch(rf"cpu(\d+)/{file}", name)
    return int(found[1]) if found else None


def _cpu_list(text: str) -> tuple[int, ...]:
    """``0-3,6`` as numbers."""
    found: list[int] = []
    for part in re.findall(r"\d+(?:-\d+)?", text):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)


def _number(text: str) -> int:
    found = re.match(r"-?\d+", text)
    return int(found[0]) if found else 0
