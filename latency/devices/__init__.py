"""The menu of devices: a name, and what opens it given the rest of its address and the runtime that the user chose."""

from collections.abc import Callable

from latency.devices.android import open_android
from latency.devices.base import Device, Model
from latency.devices.fake import open_fake
from latency.devices.local import open_local
from latency.devices.ssh import open_ssh
from search_spaces.errors import UnknownName

__all__ = ["DEVICES", "Device", "Model", "open_device"]

DEVICES: dict[str, Callable[[str, str], Device]] = {
    "local": open_local,
    "ssh": open_ssh,
    "android": open_android,
    "fake": open_fake,
}


def open_device(spec: str, *, runtime: str = "") -> Device:
    """The device at an address: ``local``, ``ssh:[user@]host[:port]``, ``android[:SERIAL]``, or ``fake`` with its options.

    Args:
        spec: the address; ``,runtime=FILE`` behind a local, ssh or android one says more than ``runtime`` does.
        runtime: ONNX Runtime for it: a .aar, .whl, .tgz or .so; ``fetch``; ``python`` or ``runner`` for this computer. "": its own way.

    Raises:
        UnknownName: no such device, or no such option.
        InvalidDevice: the part behind the colon is malformed.
        InvalidRuntime: the runtime is none, or does not fit the device; a phone has none without being told.
        Unreachable: a board or a phone is not there; the text says what to do.
    """
    name, _, address = spec.partition(":")
    if "," in name:  # local,runtime=FILE
        name, _, address = spec.partition(",")
    if name not in DEVICES:
        raise UnknownName.among("device", name, DEVICES)
    return DEVICES[name](address, runtime)
