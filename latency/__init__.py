"""How long a network takes on a device: measurements with their conditions and reasons to doubt them.

The names are imported when they are first asked for, so that ``--help`` of a verb does not wait for the devices.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latency.devices import DEVICES, Device, open_device
    from latency.errors import (
        Busy,
        DeviceError,
        Failed,
        InvalidDevice,
        InvalidPlan,
        InvalidRuntime,
        InvalidTable,
        MissingPieces,
        Unreachable,
    )
    from latency.measurement import DeviceInfo, Measurement
    from latency.plan import PLANS, PUBLISH, QUICK, TABLE, TimingPlan, plan_named
    from latency.table import Estimate, LatencyTable, open_table

__all__ = [
    "Busy", "DEVICES", "Device", "DeviceError", "DeviceInfo", "Estimate", "Failed", "InvalidDevice", "InvalidPlan", "InvalidRuntime",
    "InvalidTable", "LatencyTable", "Measurement", "MissingPieces", "PLANS", "PUBLISH", "QUICK", "TABLE", "TimingPlan", "Unreachable",
    "open_device", "open_table", "plan_named",
]  # fmt: skip

_HOMES = {
    "latency.devices": {"DEVICES", "Device", "open_device"},
    "latency.errors": {
        "Busy", "DeviceError", "Failed", "InvalidDevice", "InvalidPlan", "InvalidRuntime", "InvalidTable", "MissingPieces", "Unreachable",
    },
    "latency.measurement": {"DeviceInfo", "Measurement"},
    "latency.plan": {"PLANS", "PUBLISH", "QUICK", "TABLE", "TimingPlan", "plan_named"},
    "latency.table": {"Estimate", "LatencyTable", "open_table"},
}  # fmt: skip


def __getattr__(name: str) -> Any:  # Any: whichever of the names above
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
