"""Phones on adb."""

import os
from pathlib import Path

from latency.devices.adb import AdbLink, check_serial, choose, find_adb, phones
from latency.devices.remote_device import open_link, split_address
from latency.devices.runner_device import RunnerDevice
from latency.errors import InvalidDevice, Unreachable
from latency.runtime import from_file

__all__ = ["RUNTIME_VARIABLE", "open_android", "require_adb"]

RUNTIME_VARIABLE = "ONNXRUNTIME_ANDROID"
NO_RUNTIME = (
    "android: a phone needs ONNX Runtime's library for Android, and none is fetched unasked: download the .aar of "
    "com.microsoft.onnxruntime:onnxruntime-android from Maven Central and name it, "
    f"android:SERIAL,runtime=FILE or {RUNTIME_VARIABLE}=FILE in the environment"
)


def open_android(address: str) -> RunnerDevice:
    """The phone at ``[SERIAL][,runtime=FILE]``: the only one where no serial is given; see ``adb devices`` for the serials.

    Raises:
        InvalidDevice: the address is malformed, no runtime is named, or several phones are there and none is named.
        Unreachable: there is no adb, no phone, or it cannot be used yet; the text says what to do.
        DeviceError, InvalidRuntime: see ``open_link``.
    """
    serial, named = split_address(address, "android")
    if serial:
        check_serial(serial)
    runtime = named or _runtime_of_environment()
    if runtime is None:
        raise InvalidDevice(NO_RUNTIME)
    adb = require_adb()
    if ":" not in serial:  # one on the network may have to be connected first
        serial = choose(phones(adb), serial).serial
    return open_link(AdbLink(adb, serial), kind="android", library=lambda machine: from_file(runtime, machine=machine, libc="bionic"))


def require_adb(chosen: str | None = None) -> str:
    """The adb program, see ``find_adb``.

    Raises:
        Unreachable: there is none.
    """
    adb = find_adb(chosen)
    if adb is None:
        raise Unreachable("android: there is no adb here: install it (Debian: apt install adb; or pip install adbutils), or set $ADB")
    return adb


def _runtime_of_environment() -> Path | None:
    named = os.environ.get(RUNTIME_VARIABLE)
    return Path(named) if named else None
