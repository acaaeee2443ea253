"""Phones on adb."""

import os

from latency.devices.adb import AdbLink, check_serial, choose, find_adb, phones
from latency.devices.remote_device import open_link, split_address
from latency.devices.runner_device import RunnerDevice
from latency.errors import InvalidRuntime, Unreachable
from latency.runtime_source import NO_RUNTIME, for_phone

__all__ = ["RUNTIME_VARIABLE", "open_android", "require_adb"]

RUNTIME_VARIABLE = "ONNXRUNTIME_ANDROID"


def open_android(address: str, runtime: str = "") -> RunnerDevice:
    """The phone at ``[SERIAL][,runtime=FILE]``: the only one where no serial is given; see ``adb devices`` for the serials.

    The runtime is that in the address, else ``runtime``, else what ``$ONNXRUNTIME_ANDROID`` names; see ``for_phone``.

    Raises:
        InvalidDevice: the address is malformed, or several phones are there and none is named.
        InvalidRuntime: no runtime is named, or it does not fit.
        Unreachable: there is no adb, no phone, or it cannot be used yet; the text says what to do.
        DeviceError: see ``open_link``.
    """
    serial, named = split_address(address, "android")
    if serial:
        check_serial(serial)
    chosen = named or runtime or os.environ.get(RUNTIME_VARIABLE, "")
    if not chosen:
        raise InvalidRuntime(NO_RUNTIME)
    adb = require_adb()
    if ":" not in serial:  # one on the network may have to be connected first
        serial = choose(phones(adb), serial).serial
    return open_link(AdbLink(adb, serial), kind="android", library=lambda machine: for_phone(machine, chosen))


def require_adb(chosen: str | None = None) -> str:
    """The adb program, see ``find_adb``.

    Raises:
        Unreachable: there is none.
    """
    adb = find_adb(chosen)
    if adb is None:
        raise Unreachable("android: there is no adb here: install it (Debian: apt install adb; or pip install adbutils), or set $ADB")
    return adb
