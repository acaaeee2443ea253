"""VERB  python -m latency.build_table: measures every piece of a search space once and for all, and says how good estimates are."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latency.verbs import Exits, runtime_option

if TYPE_CHECKING:
    from latency.table_record import Conditions

__all__ = ["main"]


@click.command(cls=Exits)
@click.option("--space", "space_name", required=True, help="A built-in search space, or a .toml file.")
@click.option("--device", "spec", default="local", show_default=True, help="Where to measure.")
@runtime_option
@click.option("--image-size", type=click.IntRange(min=1), default=224, show_default=True, help="Pixels of the input's sides.")
@click.option("--width", type=float, default=1.0, show_default=True, help="Width multiplier of the space.")
@click.option("--outputs", type=click.IntRange(min=1), default=10, show_default=True, help="Classes: the last layer's size.")
@click.option("--plan", "plan_name", type=click.Choice(["table", "quick", "publish"]), default="table", show_default=True,
              help="How long each piece is timed; its processes are spread over the whole session.")  # fmt: skip
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the runtime.")
@click.option("--fit", type=click.IntRange(min=1), default=60, show_default=True, help="Whole networks to calibrate by.")
@click.option("--held-out", type=click.IntRange(min=1), default=40, show_default=True, help="Whole networks to judge estimates by.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the orders and the networks.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The table.  [tables/SPACE-PIXELS-DEVICE.jsonl]")
@click.option("--json", "as_document", is_flag=True, help="Print JSON in place of sentences.")
def main(
    space_name: str, spec: str, runtime: str, image_size: int, width: float, outputs: int, plan_name: str, threads: int, fit: int,
    held_out: int, seed: int, out: Path | None, as_document: bool,
) -> None:  # fmt: skip
    """Measure a look-up table of latencies: each distinct piece of a search space by itself, and whole networks to calibrate by.

    Given the same command after an interruption, it goes on where it was. latency.table.open_table reads the table.
    """
    from latency.console import open_console
    from latency.devices import open_device
    from latency.errors import DeviceError
    from latency.lease import Leased
    from latency.plan import plan_named
    from latency.table import LatencyTable, command
    from latency.table_building import build, open_record, work_left
    from latency.table_record import Conditions, locked, read
    from latency.table_report import announce, as_json, show
    from search_spaces import open_space
    from search_spaces.architecture import Head

    console, plan = open_console(), plan_named(plan_name, threads=threads)
    space, head = open_space(space_name, width=width, input_chw=(3, image_size, image_size)), Head(outputs=outputs)
    device = open_device(spec, runtime=runtime)
    try:
        conditions = Conditions(
            space=space_name, width=width, input_chw=space.input_chw, head=head, pieces=len(space.pieces(head)), device_spec=spec,
            runtime=runtime, device=device.info(), plan=plan, fit=fit, held_out=held_out, seed=seed,
        )  # fmt: skip
        path = _path(out, space.name, conditions)
        with locked(path):
            record = open_record(path, conditions)
            work = work_left(record, space)
            announce(record, work, console)
            try:
                with console.progress(work.timings, "timed") as tick:
                    build(record, space, Leased(device, spec, say=console.warn), tick)
            except KeyboardInterrupt:
                console.say(f"interrupted: what was measured is kept; to go on: {command(record)}")
                raise click.exceptions.Exit(130) from None
            except DeviceError:
                console.say(f"what was measured is kept; to go on: {command(record)}")
                raise
    finally:
        device.close()
    table = LatencyTable(read(path))
    if as_document:
        console.result(as_json(table).decode())
    else:
        show(table, console)


def _path(out: Path | None, space_name: str, conditions: "Conditions") -> Path:
    """The file to write; a folder for it is made where the name was not given."""
    from latency.errors import InvalidTable

    path = out or Path("tables") / f"{space_name}-{conditions.input_chw[1]}-{conditions.device.id}.jsonl"
    if out is None:
        path.parent.mkdir(exist_ok=True)
    elif not out.parent.is_dir():
        raise InvalidTable(f"there is no folder {out.parent} to write {out.name} to")
    return path


if __name__ == "__main__":
    main()
