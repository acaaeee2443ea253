"""The menu of devices: a name, and what opens it given the rest of its address."""

from collections.abc import Callable

from latency.devices.android import open_android
from latency.devices.base import Device, Model
from latency.devices.fake import open_fake
from latency.devices.local import open_local
from latency.devices.ssh import open_ssh
from search_spaces.errors import UnknownName

__all__ = ["DEVICES", "Device", "Model", "open_device"]

DEVICES: dict[str, Callable[[str], Device]] = {
    "local": open_local,
    "ssh": open_ssh,
    "android": open_android,
    "fake": open_fake,
}


def open_device(spec: str) -> Device:
    """The device at an address: ``local``, ``ssh:[user@]host[:port]``, ``android[:SERIAL]``, or ``fake`` with its options.

    Raises:
        UnknownName: no such device, or no such option.
        InvalidDevice: the part behind the colon is malformed.
        Unreachable: a board or a phone is not there; the text says what to do.
    """
    name, _, address = spec.partition(":")
    if name not in DEVICES:
        raise UnknownName.among("device", name, DEVICES)
    return DEVICES[name](address)
