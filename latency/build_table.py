"""VERB  python -m latency.build_table: measures every piece of a search space once and for all, and says how good estimates are."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latency.verbs import Exits, require_writable, runtime_option

if TYPE_CHECKING:
    from latency.console import Console
    from latency.devices import Device
    from latency.table_record import Conditions
    from search_spaces import SearchSpace

__all__ = ["main"]

IMAGE_SIZE = 224


def _shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int, int] | None:
    """An option's callback: ``1,1,1000`` as three positive numbers."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,8}),([1-9]\d{0,8}),([1-9]\d{0,8})", value.strip())
    if not found:
        raise click.BadParameter(f"expected channels, height, width, such as 3,96,160 or, of a signal, 1,1,1000; got {value!r}", ctx, param)
    return int(found[1]), int(found[2]), int(found[3])


@click.command(cls=Exits)
@click.option("--space", "space_name", required=True, help="A built-in search space, or a .toml file.")
@click.option("--device", "spec", default="local", show_default=True, help="Where to measure.")
@runtime_option
@click.option("--image-size", type=click.IntRange(min=1), help="Pixels of the sides of colour images.  [224]")
@click.option("--input", "input_chw", callback=_shape, metavar="C,H,W", help="Any other input: 3,96,160, or 1,1,1000 of a signal.")
@click.option("--width", type=float, default=1.0, show_default=True, help="Width multiplier of the space.")
@click.option("--outputs", type=click.IntRange(min=1), default=10, show_default=True, help="Classes: the last layer's size.")
@click.option("--plan", "plan_name", type=click.Choice(["table", "quick", "publish"]), default="table", show_default=True,
              help="How long each piece is timed; its processes are spread over the whole session.")  # fmt: skip
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the runtime.")
@click.option("--fit", type=click.IntRange(min=1), default=60, show_default=True, help="Whole networks to calibrate by.")
@click.option("--held-out", type=click.IntRange(min=1), default=40, show_default=True, help="Whole networks to judge estimates by.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the orders and the networks.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The table.  [a name in tables/ that says what it is of]")
@click.option("--json", "as_document", is_flag=True, help="Print JSON in place of sentences.")
def main(
    space_name: str, spec: str, runtime: str, image_size: int | None, input_chw: tuple[int, int, int] | None, width: float, outputs: int,
    plan_name: str, threads: int, fit: int, held_out: int, seed: int, out: Path | None, as_document: bool,
) -> None:  # fmt: skip
    """Measure a look-up table of latencies: each distinct piece of a search space by itself, and whole networks to calibrate by.

    Given the same command after an interruption, it goes on where it was. latency.table.open_table reads the table.
    """
    from latency.console import open_console
    from latency.devices import open_device
    from latency.plan import plan_named
    from latency.table import open_table
    from latency.table_record import Conditions, pieces_sha256
    from latency.table_report import as_json, show
    from search_spaces import open_space
    from search_spaces.architecture import Head

    if image_size and input_chw:
        raise click.UsageError("--image-size is --input 3,PIXELS,PIXELS: give one of the two")
    console, plan, side = open_console(), plan_named(plan_name, threads=threads), image_size or IMAGE_SIZE
    space, head = open_space(space_name, width=width, input_chw=input_chw or (3, side, side)), Head(outputs=outputs)
    menu, device = space.pieces(head), open_device(spec, runtime=runtime)
    try:
        conditions = Conditions(
            space=space_name, width=width, input_chw=space.input_chw, head=head, pieces=len(menu), device_spec=spec, runtime=runtime,
            device=device.info(), plan=plan, fit=fit, held_out=held_out, seed=seed, pieces_sha256=pieces_sha256(menu),
        )  # fmt: skip
        path = _path(out, space.name, conditions)
        _build(path, conditions, space, device, console)
    finally:
        device.close()
    table = open_table(path)
    if as_document:
        console.result(as_json(table).decode())
    else:
        show(table, console)


def _build(path: Path, conditions: "Conditions", space: "SearchSpace", device: "Device", console: "Console") -> None:
    """Measures what the table lacks, alone; on an interruption or a loss says how to go on."""
    from latency.errors import DeviceError
    from latency.lease import Leased
    from latency.table_building import build, open_record, work_left
    from latency.table_record import locked
    from latency.table_report import announce
    from latency.table_text import command, other_kernel

    with locked(path):
        record = open_record(path, conditions)
        work = work_left(record, space)
        announce(record, work, console)
        if text := other_kernel(record.conditions.device, device.info()):
            console.warn(f"{path}: {text}")
        try:
            with console.progress(work.timings, "timed") as tick:
                build(record, space, Leased(device, conditions.device_spec, say=console.warn), tick, console.warn)
        except KeyboardInterrupt:
            console.say(f"interrupted: what was measured is kept; to go on: {command(record)}")
            raise click.exceptions.Exit(130) from None
        except DeviceError:
            console.say(f"what was measured is kept; to go on: {command(record)}")
            raise


def _path(out: Path | None, space_name: str, conditions: "Conditions") -> Path:
    """The file to write; a folder for it is made where the name was not given."""
    from latency.table_text import default_name

    path = out or Path("tables") / default_name(conditions, space_name)
    if out is None:
        path.parent.mkdir(exist_ok=True)
    require_writable(path)
    return path


if __name__ == "__main__":
    main()
