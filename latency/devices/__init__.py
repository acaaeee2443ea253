"""The menu of devices: a name, and what opens it given the rest of its address."""

from collections.abc import Callable

from latency.devices.base import Device, Model
from latency.devices.fake import open_fake
from latency.devices.local import open_local
from search_spaces.errors import UnknownName

__all__ = ["DEVICES", "Device", "Model", "open_device"]

DEVICES: dict[str, Callable[[str], Device]] = {
    "local": open_local,
    "fake": open_fake,
}


def open_device(spec: str) -> Device:
    """The device at an address: ``local``, or ``fake`` with its options (``fake:ms=5,fail=3``).

    Raises:
        UnknownName: no such device, or no such option.
        InvalidDevice: the part behind the colon is malformed.
    """
    name, _, address = spec.partition(":")
    if name not in DEVICES:
        raise UnknownName.among("device", name, DEVICES)
    return DEVICES[name](address)
