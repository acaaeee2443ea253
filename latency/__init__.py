"""How long a network takes on a device: measurements with their conditions and reasons to doubt them."""

from latency.devices import DEVICES, Device, open_device
from latency.errors import DeviceError, Failed, InvalidDevice, InvalidPlan, InvalidRuntime, Unreachable
from latency.measurement import DeviceInfo, Measurement
from latency.plan import FINAL, QUICK, TimingPlan

__all__ = [
    "DEVICES", "Device", "DeviceError", "DeviceInfo", "FINAL", "Failed", "InvalidDevice", "InvalidPlan", "InvalidRuntime", "Measurement",
    "QUICK", "TimingPlan", "Unreachable", "open_device",
]  # fmt: skip
