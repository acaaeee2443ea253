"""VERB  python -m latency.estimate NETWORK… --table FILE: what a latency table says of networks, without the device."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latency.verbs import Exits

if TYPE_CHECKING:
    from latency.console import Console
    from latency.table import Estimate, LatencyTable
    from latency.table_record import Conditions
    from search_spaces.architecture import Architecture
    from search_spaces.errors import NasError

__all__ = ["main"]

COLUMNS = ("network", "latency", "90 % interval", "predicted")


@click.command(cls=Exits)
@click.argument("asked", metavar="NETWORK…", nargs=-1, required=True)
@click.option("--table", "path", type=click.Path(path_type=Path), required=True, help="A table that latency.build_table wrote.")
@click.option("--measured-only", is_flag=True, help="Refuse networks with pieces that the table lacks, in place of predicting those.")
@click.option("--json", "as_document", is_flag=True, help="Print JSON in place of a table.")
def main(asked: Sequence[str], path: Path, measured_only: bool, as_document: bool) -> None:
    """Estimate latencies: each NETWORK is a published one such as mobilenet_v2 or mnasnet_a1@0.5 (its width) at the table's input and
    outputs, a run of nas.search (its front and baselines), or an architecture in a .json file.

    "predicted" is the part of a network's time that was not measured. Exit code 1 says that there is no estimate of a network.
    """
    from latency.console import open_console
    from latency.table import open_table
    from latency.table_text import size

    console, table = open_console(), open_table(path, predict=not measured_only)
    conditions = table.record.conditions
    networks = _networks(asked, conditions)
    found, errors = _estimates(table, networks)
    where = f"{conditions.device.name} with {conditions.device.runtime}, {conditions.plan.threads} thread(s), {size(conditions.input_chw)}"
    if as_document:
        console.result(_as_json(found, errors, conditions).decode())
    else:
        _show(found, f"estimates for {where}", console)
        for name, error in errors.items():
            console.error(f"{name}: {error}")
    if errors:
        raise click.exceptions.Exit(1)


def _estimates(table: "LatencyTable", networks: "Mapping[str, Architecture]") -> "tuple[dict[str, Estimate], dict[str, NasError]]":
    """What there is an estimate of, and why of the rest there is none."""
    from latency.errors import MissingPieces

    found: dict[str, Estimate] = {}
    errors: dict[str, NasError] = {}
    for name, arch in networks.items():
        try:
            found[name] = table.estimate(arch)
        except MissingPieces as error:
            errors[name] = error
    return found, errors


def _networks(asked: Sequence[str], conditions: "Conditions") -> "dict[str, Architecture]":
    """The networks by a name each.

    Raises:
        InvalidModel: no such file or folder, or no network in it.
        UnknownName: neither a file nor a published network.
    """
    from latency.model_inputs import InvalidModel
    from search_spaces.baselines import BASELINES
    from search_spaces.errors import UnknownName

    found: dict[str, Architecture] = {}
    for argument in asked:
        path = Path(argument)
        if argument.partition("@")[0] in BASELINES:
            found[argument] = _published(argument, conditions)
        elif path.is_dir():
            found |= _of_run(path)
        elif path.is_file():
            found[path.stem] = _of_file(path)
        elif path.suffix or len(path.parts) > 1:
            raise InvalidModel(f"there is no file or folder {argument}")
        else:
            raise UnknownName.among("network", argument, [*BASELINES, "a run's folder", "an architecture in a .json file"])
    return found


def _published(argument: str, conditions: "Conditions") -> "Architecture":
    from search_spaces.baselines import baseline, published

    name, factor = published(argument)
    return baseline(name, width=factor, input_chw=conditions.input_chw, outputs=conditions.head.outputs)


def _of_run(folder: Path) -> "dict[str, Architecture]":
    """The networks that a run's manifest lists, by baseline or id."""
    import msgspec

    from latency.model_inputs import InvalidModel
    from search_spaces.architecture import from_json

    try:
        content: Any = msgspec.json.decode((folder / "manifest.json").read_bytes())  # Any: JSON
        return {entry["baseline"] or entry["id"]: from_json(entry["architecture"]) for entry in content["models"]}
    except (OSError, msgspec.DecodeError, LookupError, TypeError) as error:
        raise InvalidModel(f"{folder} is no finished run of nas.search: its manifest.json lists no networks") from error


def _of_file(path: Path) -> "Architecture":
    from search_spaces.architecture import from_json
    from search_spaces.errors import InvalidArchitecture

    try:
        return from_json(path.read_bytes())
    except InvalidArchitecture as error:
        raise InvalidArchitecture(f"{path}: {error}; latency.profile times .onnx files") from error


def _show(found: "Mapping[str, Estimate]", title: str, console: "Console") -> None:
    from latency.console import three_digits

    rows = [
        (name, f"~{three_digits(e.ms)} ms", f"{three_digits(e.low_ms)} to {three_digits(e.high_ms)} ms", f"{e.predicted_share:.0%}")
        for name, e in found.items()
    ]
    if rows:
        console.table(title, COLUMNS, rows)


def _as_json(found: "Mapping[str, Estimate]", errors: "Mapping[str, NasError]", conditions: "Conditions") -> bytes:
    import msgspec

    document = {
        "device": {"id": conditions.device.id, **msgspec.to_builtins(conditions.device)}, "plan": conditions.plan,
        "input_chw": conditions.input_chw, "estimates": found, "errors": {name: str(error) for name, error in errors.items()},
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


if __name__ == "__main__":
    main()
