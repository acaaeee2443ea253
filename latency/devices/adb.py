"""Google's ``adb`` program: where it is, which phones it sees, and one phone as a link."""

import importlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from latency.devices.remote_shell import Finished, decoded, finish
from latency.errors import InvalidDevice, Unreachable

__all__ = ["ADVICE", "AdbLink", "Phone", "check_serial", "choose", "find_adb", "parse_phones", "phones"]

CALL_S, BACK_S = 60.0, 30.0  # one word with adb's server; how long a lost phone may take to come back
ADVICE = {
    "unauthorized": "unlock it and allow this computer's key (USB debugging)",
    "authorizing": "unlock it and allow this computer's key (USB debugging)",
    "offline": "unplug it and plug it in again, or switch USB debugging off and on",
    "no permissions": "this user may not open the USB device: install adb's udev rules (Debian: android-sdk-platform-tools-common)",
    "recovery": "start Android itself: adb reboot",
    "sideload": "start Android itself: adb reboot",
    "rescue": "start Android itself: adb reboot",
    "bootloader": "start Android itself: fastboot reboot",
    "host": "this is a computer, not a phone",
}
NO_PHONE = "no phone on adb: plug one in, switch on USB debugging in its developer options, and see python -m latency.devices"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phone:
    """One line of ``adb devices -l``: ``state`` is ``device`` where it can be used; ``model`` is "" where adb does not know it."""

    serial: str
    state: str
    model: str = ""

    @property
    def usable(self) -> bool:
        """Whether commands can be run on it."""
        return self.state == "device"

    @property
    def advice(self) -> str:
        """What its owner can do about its state; "" for a usable one."""
        return "" if self.usable else ADVICE.get(self.state, "see adb devices -l")


def find_adb(chosen: str | None = None, *, environ: Mapping[str, str] = os.environ) -> str | None:
    """The adb program: the chosen one or ``$ADB``, else that on PATH, of the Android SDK, or of the package adbutils; None without any.

    Raises:
        InvalidDevice: what was chosen is no program.
    """
    if named := chosen or environ.get("ADB"):
        if found := shutil.which(named, path=environ.get("PATH")):
            return found
        raise InvalidDevice(f"adb: {'--adb' if chosen else '$ADB'} must be a program, got {named!r}")
    roots = [environ[name] for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT") if environ.get(name)]
    folders = (environ.get("PATH", ""), *(str(Path(root, "platform-tools")) for root in roots))
    return shutil.which("adb", path=os.pathsep.join(folders)) or _adb_of_adbutils()


def check_serial(serial: str) -> str:
    """The serial itself.

    Raises:
        InvalidDevice: it has characters that no serial has, such as a shell's or an option's.
    """
    if not re.fullmatch(r"[A-Za-z0-9\[][\w.:%\[\]-]*", serial, flags=re.ASCII):
        raise InvalidDevice(f"android: a serial has letters, digits and . : _ - only, as adb devices shows it, got {serial!r}")
    return serial


def parse_phones(listing: str) -> tuple[Phone, ...]:
    """The phones in what ``adb devices -l`` prints.

    >>> parse_phones("List of devices attached\\n1A2B device usb:1-2 model:Pixel_6 device:oriole\\n9Z no permissions (udev); see [x]\\n")
    (Phone(serial='1A2B', state='device', model='Pixel 6'), Phone(serial='9Z', state='no permissions', model=''))
    """
    rows = re.findall(r"^(\S+)[ \t]+(no permissions|\S+)(.*)$", listing.partition("List of devices attached")[2], flags=re.MULTILINE)
    return tuple(Phone(serial=serial, state=state, model=_word(rest, "model").replace("_", " ")) for serial, state, rest in rows)


def phones(adb: str) -> tuple[Phone, ...]:
    """All phones that adb sees, the unusable ones too; starts adb's server where there is none.

    Raises:
        Unreachable: adb does not answer.
    """
    # The server is started apart: it would keep a pipe of ours open.
    finish([adb, "start-server"], timeout_s=CALL_S, stdout=Path(os.devnull))
    listed = finish([adb, "devices", "-l"], timeout_s=CALL_S)
    if listed.timed_out or "List of devices attached" not in decoded(listed.out):
        raise Unreachable(f"adb does not list its devices ({listed.says}): try adb kill-server")
    return parse_phones(decoded(listed.out))


def choose(seen: tuple[Phone, ...], serial: str) -> Phone:
    """The phone of that serial, or the only one where the serial is "".

    Raises:
        Unreachable: it is not there, or cannot be used; the text says what to do.
        InvalidDevice: several are there and none is named.
    """
    if serial:
        named = [phone for phone in seen if phone.serial == serial]
        if not named:
            there = ", ".join(phone.serial for phone in seen)
            raise Unreachable(f"android: no phone {serial} on adb: " + (f"there is {there}" if there else NO_PHONE.partition(": ")[2]))
        return _usable(named[0])
    usable = [phone for phone in seen if phone.usable]
    if len(usable) > 1:
        raise InvalidDevice(f"android: {len(usable)} phones are there, name one: {' or '.join(f'android:{p.serial}' for p in usable)}")
    if not seen:
        raise Unreachable(f"android: {NO_PHONE}")
    return usable[0] if usable else _usable(seen[0])


class AdbLink:
    """One phone on adb; the daemon on the phone runs commands as the user ``shell``."""

    home = "/data/local/tmp/hardware-aware-nas"  # the one place from which that user may run programs

    def __init__(self, adb: str, serial: str, *, back_s: float = BACK_S) -> None:
        self._adb, self._serial, self._back_s = adb, serial, back_s
        self.name = f"android {serial}"
        self._tried = False

    def connect(self) -> None:
        """See ``Link.connect``: a phone that was there may take ``back_s`` to come back, one that never was may not."""
        until = time.monotonic() + (self._back_s if self._tried else 0.0)
        if self._tried and ":" in self._serial:
            finish([self._adb, "disconnect", self._serial], timeout_s=CALL_S)  # else adb keeps a dead connection for 10 s
        self._tried = True
        while True:
            if ":" in self._serial:
                finish([self._adb, "connect", self._serial], timeout_s=CALL_S)
            try:
                choose(phones(self._adb), self._serial)
                return
            except Unreachable:
                if time.monotonic() >= until:
                    raise
            time.sleep(0.5)

    def shell(self, line: str, *, timeout_s: float) -> Finished:
        """See ``Link.shell``."""
        return finish([*self._on_phone, "shell", line], timeout_s=timeout_s)

    def send(self, source: Path, target: str, *, timeout_s: float) -> Finished:
        """See ``Link.send``."""
        return finish([*self._on_phone, "push", str(source.resolve()), target], timeout_s=timeout_s)

    def receive(self, source: str, target: Path, *, timeout_s: float) -> Finished:
        """See ``Link.receive``."""
        return finish([*self._on_phone, "pull", source, str(target.resolve())], timeout_s=timeout_s)

    def close(self) -> None:
        """Nothing is held: adb's server is the user's own."""

    @property
    def _on_phone(self) -> tuple[str, ...]:
        return (self._adb, "-s", self._serial)


def _usable(phone: Phone) -> Phone:
    if not phone.usable:
        raise Unreachable(f"android: the phone {phone.serial} is {phone.state}: {phone.advice}")
    return phone


def _word(rest: str, name: str) -> str:
    found = re.search(rf"\b{name}:(\S+)", rest)
    return found[1] if found else ""


def _adb_of_adbutils() -> str | None:
    """The extra's adb; an import by name, since it has no types and is seldom there."""
    try:
        return str(importlib.import_module("adbutils").adb_path())
    except ImportError:
        return None
