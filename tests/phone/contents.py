"""What the test phone says about itself: properties, services, a big.LITTLE processor, temperatures."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CORES", "PROPERTIES", "Core", "write_contents"]


@dataclass(frozen=True, kw_only=True)
class Core:
    """One core, as the kernel's files describe it."""

    part: int
    variant: int
    max_khz: int
    capacity: int


CORES = (Core(part=0xD05, variant=1, max_khz=1804800, capacity=400), Core(part=0xD0B, variant=3, max_khz=2841600, capacity=1024))
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
PROPERTIES = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "Fake Phone",
    "ro.product.device": "fakephone",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.soc.manufacturer": "Example",
    "ro.soc.model": "SM0000",
    "ro.build.fingerprint": "example/fake/fakephone:14/UP1A/1:user/test-keys",
}
GETPROP = """#!/system/bin/sh
while IFS='=' read -r name value; do
  if [ $# = 0 ]; then echo "[$name]: [$value]"; elif [ "$name" = "$1" ]; then echo "$value"; exit 0; fi
done < /system/build.prop
[ $# = 0 ] || echo "$2"
"""
DUMPSYS = """#!/system/bin/sh
case "$1" in
  thermalservice)
    echo "IsStatusOverride: false"; echo "Thermal Status: $(cat /fake/thermal)"; echo "Cached temperatures:"
    echo "	Temperature{mValue=$(cat /fake/zone)e-3, mType=0, mName=CPU0, mStatus=$(cat /fake/thermal)}";;
  battery) cat /fake/battery;;
  power) echo "  mWakefulness=Awake";;
  *) echo "Can't find service: $1"; exit 1;;
esac
"""
BATTERY = "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  level: 87\n  temperature: 305\n"


def write_contents(root: Path) -> None:
    """Write the Android-like files below the phone's root; those under ``/fake`` may be changed while it runs."""
    _write(root / "system/build.prop", "".join(f"{name}={value}\n" for name, value in PROPERTIES.items()))
    _write(root / "system/bin/getprop", GETPROP, mode=0o755)
    _write(root / "system/bin/dumpsys", DUMPSYS, mode=0o755)
    _write(root / "fake/thermal", "0\n")
    _write(root / "fake/battery", BATTERY)
    _write(root / "fake/cpuinfo", "".join(_cpuinfo(i, core) for i, core in enumerate(CORES)) + "Hardware\t: Example SM0000\n")
    _write(root / "fake/zone", "38500\n")
    _write(root / "fake/big_core_max_freq", f"{CORES[-1].max_khz}\n")
    for i, (kind, source) in enumerate((("cpu-1-0", "/fake/zone"), ("battery", "/fake/battery_zone"))):
        zone = root / f"sys/class/thermal/thermal_zone{i}"
        _write(zone / "type", f"{kind}\n")
        _link(zone / "temp", source)
    _write(root / "fake/battery_zone", "30500\n")
    cores = root / "sys/devices/system/cpu"
    _write_cores(cores)
    _link(cores / f"cpu{len(CORES) - 1}/cpufreq/scaling_max_freq", "/fake/big_core_max_freq")


def _cpuinfo(index: int, core: Core) -> str:
    return (
        f"processor\t: {index}\nBogoMIPS\t: 38.40\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x{core.variant:x}\nCPU part\t: 0x{core.part:03x}\nCPU revision\t: 0\n\n"
    )


def _write_cores(folder: Path) -> None:
    every = f"0-{len(CORES) - 1}"
    for name in ("present", "possible", "online"):
        _write(folder / name, every + "\n")
    _write(folder / "kernel_max", "7\n")
    for i, core in enumerate(CORES):
        values = {
            "cpu_capacity": core.capacity, "cpufreq/cpuinfo_max_freq": core.max_khz, "cpufreq/cpuinfo_min_freq": 300000,
            "cpufreq/scaling_max_freq": core.max_khz, "cpufreq/scaling_cur_freq": core.max_khz, "cpufreq/scaling_governor": "schedutil",
            "cpufreq/related_cpus": i, "topology/physical_package_id": 0, "topology/core_id": i, "topology/core_siblings_list": every,
            "topology/cluster_cpus_list": i, "topology/thread_siblings_list": i,
        }  # fmt: skip
        for name, value in values.items():
            _write(folder / f"cpu{i}" / name, f"{value}\n")


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
