"""Which devices there are, and what is wrong with those that cannot be used."""

import re
from collections.abc import Sequence

import msgspec

from latency.devices.adb import AdbLink, Phone, check_serial, choose, phones
from latency.devices.android import require_adb
from latency.devices.facts import Condition, Facts, read_condition, read_facts
from latency.devices.local import require_way
from latency.devices.remote import Link, Remote
from latency.devices.remote_device import split_address, split_kind
from latency.devices.ssh import SshLink
from latency.devices.transport import LocalTransport, Transport
from latency.errors import DeviceError
from latency.host import host_info

__all__ = ["Entry", "look_at", "look_around"]

KINDS = ("local", "ssh", "android")
LOOK_HERE = ", and see python -m latency.devices"  # which is what this is


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device. ``address`` is what ``--device`` takes; ``problems`` say what to do, and ``is_ready`` whether it can be used at all."""

    address: str
    name: str
    is_ready: bool
    problems: tuple[str, ...] = ()
    facts: Facts | None = None
    condition: Condition | None = None


def look_around(adb: str | None = None) -> tuple[Entry, ...]:
    """This computer and all phones on adb; boards are not searched for: they are named (``look_at``). ``adb``: see ``find_adb``."""
    return (_local(), *_phones(adb))


def look_at(addresses: Sequence[str], adb: str | None = None) -> tuple[Entry, ...]:
    """The devices at these addresses, in their order; one that is not there is an entry too.

    Raises:
        UnknownName: no such kind of device, or no such option.
        InvalidDevice: an address is malformed, or names none of several phones.
    """
    for address in addresses:
        split_kind(address, KINDS)
    return tuple(_named(address, adb) for address in addresses)


def _named(address: str, adb: str | None) -> Entry:
    kind, rest = split_kind(address, KINDS)
    place, _ = split_address(rest, kind)
    if kind == "local":
        require_way(place)
        return _local(address)
    if kind == "ssh":
        return _linked(address, SshLink(place))
    serial = place and check_serial(place)
    try:
        program = require_adb(adb)
        serial = serial if ":" in serial else choose(phones(program), serial).serial
        return _linked(f"android:{serial}", AdbLink(program, serial))
    except DeviceError as error:
        return Entry(address=address, name="", is_ready=False, problems=(_bare(error),))


def _local(address: str = "local") -> Entry:
    try:
        facts, condition = _seen(LocalTransport())
    except DeviceError:  # no Linux: its name is all there is
        return Entry(address=address, name=host_info(runtime="", runtime_build="").name, is_ready=True)
    return Entry(
        address=address, name=facts.info("local").cpu, is_ready=True, problems=condition.problems(), facts=facts, condition=condition
    )  # fmt: skip


def _phones(chosen: str | None) -> tuple[Entry, ...]:
    try:
        adb = require_adb(chosen)
        return tuple(_phone(adb, phone) for phone in phones(adb))
    except DeviceError as error:
        return (Entry(address="android", name="", is_ready=False, problems=(_bare(error),)),)


def _phone(adb: str, phone: Phone) -> Entry:
    address = f"android:{phone.serial}"
    if not phone.usable:
        return Entry(address=address, name=phone.model, is_ready=False, problems=(f"{phone.state}: {phone.advice}",))
    return _linked(address, AdbLink(adb, phone.serial))


def _linked(address: str, link: Link) -> Entry:
    transport = Remote(link)
    try:
        facts, condition = _seen(transport)
    except DeviceError as error:
        return Entry(address=address, name="", is_ready=False, problems=(_bare(error),))
    finally:
        transport.close()
    return Entry(
        address=address, name=facts.info("").cpu, is_ready=True, problems=condition.problems(), facts=facts, condition=condition
    )  # fmt: skip


def _seen(transport: Transport) -> tuple[Facts, Condition]:
    return read_facts(transport), read_condition(transport)


def _bare(error: DeviceError) -> str:
    """What happened and what to do, without the names of the device and of ssh: the line begins with the address."""
    return re.sub(r"^(android( \S+)?: |ssh \S+: (ssh: )?)", "", str(error)).removesuffix(LOOK_HERE)
