"""Facts about this computer that a latency depends on."""

import os
import platform
import re
import time
from pathlib import Path

from latency.measurement import DeviceInfo

__all__ = ["host_info"]

CPUINFO = Path("/proc/cpuinfo")
CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
TREE_MODEL = Path("/sys/firmware/devicetree/base/model")
# Instruction sets that ONNX Runtime's kernels choose by, as Linux spells them.
KERNEL_FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip


def host_info(*, runtime: str, runtime_build: str) -> DeviceInfo:
    """This computer, with the runtime that times on it; the same at every call."""
    fields = cpu_fields(_text(CPUINFO))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return DeviceInfo(
        kind="local",
        cpu=_cpu_name(fields),
        cores=os.cpu_count() or 1,
        machine=platform.machine(),
        os=platform.system(),
        kernel=f"{platform.system()} {platform.release()}",
        runtime=runtime,
        runtime_build=runtime_build,
        isa=tuple(flag for flag in KERNEL_FLAGS if flag in flags),
        governor=_text(CPUFREQ / "scaling_governor").strip(),
        max_mhz=int(_text(CPUFREQ / "cpuinfo_max_freq").strip() or 0) // 1000,
        timer_ns=max(1, round(time.get_clock_info("perf_counter").resolution * 1e9)),
    )


def cpu_fields(cpuinfo: str) -> dict[str, str]:
    """The first processor of Linux's ``/proc/cpuinfo`` as a dict.

    >>> cpu_fields("processor : 0\\nmodel name : Acme 9\\n\\nprocessor : 1\\nmodel name : Acme 1\\n")["model name"]
    'Acme 9'
    """
    pairs = (line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cpu_name(fields: dict[str, str]) -> str:
    """The processor's name; ARM boards have none in cpuinfo, their device tree names the board, and part numbers the core."""
    board = _text(TREE_MODEL).rstrip("\0\n ")
    part = fields.get("CPU part", "")
    name = fields.get("model name") or " ".join(filter(None, (board, part and f"CPU part {part}"))) or platform.processor()
    return re.sub(r"\s+", " ", name) or platform.machine() or "unknown processor"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
