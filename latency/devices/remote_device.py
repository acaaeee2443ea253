"""From a link to a device: look at what is there, find the runtime for it, hand both to the runner."""

from collections.abc import Callable

from latency.devices.facts import read_facts
from latency.devices.remote import Link, Remote
from latency.devices.runner_device import RunnerDevice
from latency.errors import DeviceError, InvalidDevice
from latency.runtime import RuntimeLibrary, require_fit
from search_spaces.errors import UnknownName

__all__ = ["MACHINES", "open_link", "split_address"]

MACHINES = ("aarch64", "x86_64")


def split_address(address: str, kind: str) -> tuple[str, str]:
    """An address and the runtime named behind it, "" where none is.

    >>> split_address("pi@board:22,runtime=ort.whl", "ssh"), split_address("", "android")
    (('pi@board:22', 'ort.whl'), ('', ''))

    Raises:
        UnknownName: an option that is not ``runtime``.
        InvalidDevice: an option without a value, or twice.
    """
    parts = address.split(",")
    place, options = ("", parts) if "=" in parts[0] else (parts[0], parts[1:])
    runtimes = []
    for option in options:
        name, _, value = option.partition("=")
        if name != "runtime":
            raise UnknownName.among(f"option of the device {kind}", name, ["runtime"])
        runtimes.append(value)
    if not all(runtimes) or len(runtimes) > 1:
        raise InvalidDevice(f"{kind}: expected runtime=FILE once, got {address!r}")
    return place, runtimes[0] if runtimes else ""


def open_link(link: Link, *, kind: str, library: Callable[[str], RuntimeLibrary]) -> RunnerDevice:
    """The device at the other end of a link, reached and looked at; ``library`` gives the runtime for a machine.

    Raises:
        Unreachable: it is not there.
        DeviceError: it is no 64-bit Arm or x86 machine.
        InvalidRuntime: there is no runtime for it, or it cannot load that.
    """
    transport = Remote(link)
    try:
        facts = read_facts(transport)
        if facts.machine not in MACHINES or facts.bits == 32:
            kind_of = f"{facts.machine or 'unknown'}{', with 32-bit programs' if facts.bits == 32 else ''}"
            raise DeviceError(f"{transport.name} is {kind_of}, and ONNX Runtime is there for {' and '.join(MACHINES)} only")
        found = library(facts.machine)
        require_fit(found, name=transport.name, page_bytes=facts.page_bytes, glibc=facts.glibc)
        return RunnerDevice(transport, found, facts.info(kind), seen=facts)
    except BaseException:
        transport.close()
        raise
