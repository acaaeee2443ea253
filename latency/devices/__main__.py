"""VERB  python -m latency.devices: the devices that are there, and what is wrong with the rest."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from latency.verbs import Exits

if TYPE_CHECKING:
    from latency.devices.listing import Entry

__all__ = ["main"]


@click.command(cls=Exits)
@click.argument("addresses", metavar="[ADDRESS]…", nargs=-1)
@click.option("--adb", type=click.Path(), help="The adb program.  [$ADB, PATH, the Android SDK, the package adbutils]")
@click.option("--json", "as_document", is_flag=True, help="Print JSON in place of a table.")
def main(addresses: Sequence[str], adb: str | None, as_document: bool) -> None:
    """List this computer and the phones on adb, or look at the devices named: local, ssh:[user@]host[:port], android[:SERIAL].

    A board is not searched for: name it. Exit code 1 says that a named device cannot be used.
    """
    import msgspec

    from latency.console import open_console
    from latency.devices.listing import look_around, look_at

    console = open_console()
    found = look_at(addresses, adb) if addresses else look_around(adb)
    if as_document:
        console.result(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        rows = [(e.address, _state(e), e.name or "–") for e in found]
        console.table("", ("device", "state", "what it is"), rows)
        for entry in found:
            for problem in entry.problems:
                console.say(f"{entry.address}: {problem}")
        if not addresses:
            if len(found) == 1:
                console.say("No phone on adb: plug one in and switch on USB debugging in its developer options")
            console.say("Boards are named, not searched for: python -m latency.devices ssh:user@host, or a name of your ~/.ssh/config")
        if ready := [e.address for e in found if e.is_ready and e.address != "local"]:
            runtime = " --runtime onnxruntime-android.aar" if ready[0].startswith("android") else ""
            console.say(f"To time a model there: python -m latency.profile MODEL.onnx --device {ready[0]}{runtime}")
    if addresses and not all(entry.is_ready for entry in found):
        sys.exit(1)


def _state(entry: "Entry") -> str:
    if not entry.is_ready:
        return "cannot be used"
    return "ready, with doubts" if entry.problems else "ready"


if __name__ == "__main__":
    main(prog_name="python -m latency.devices")
