"""VERB  python -m nas.rank: how well scores by inheritance rank networks, against the same networks trained alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.verbs import Exits

if TYPE_CHECKING:
    from latency.console import Console
    from nas.sharing.rank_rows import Ranked
    from nas.sharing.ranking import Agreement

__all__ = ["main"]


@click.command(cls=Exits)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file, where RUN is not there yet.")
@click.option("--networks", type=click.IntRange(min=3), default=20, show_default=True, help="Networks drawn at random and trained alone.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of each.  [the run's --epochs]")
@click.option("--workers", type=click.IntRange(min=1), help="Trainings at a time.  [one a core]")
@click.option("--executor", type=click.Choice(["ray", "serial"]), help="Ray Tune, or this process.  [the run's]")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(
    run: Path, config_file: Path | None, networks: int, epochs: int | None, workers: int | None, executor: str | None, as_json: bool
) -> None:
    """Rank networks of RUN's space by inherited scores (its bank is trained where it has none), by a training alone with one seed, by one
    with another seed (the ceiling), by parameters and by MACs. An interrupted ranking goes on when the same command is given again.
    """
    import msgspec

    from latency.console import open_console
    from nas.config import config_from_file
    from nas.sharing.rank_rows import ranked
    from nas.sharing.ranking import agreement
    from nas.store import write_atomic

    console, changed = open_console(), {k: v for k, v in (("workers", workers), ("executor", executor)) if v}
    config = config_from_file(config_file or run / "config.json", {"evaluate": "inherited", **changed})
    rows = ranked(config, run, networks=networks, epochs=epochs or config.epochs, console=console)
    truth = [row.alone[0] for row in rows]
    figures = {
        "inherited": [row.inherited for row in rows],
        "trained alone, other seed": [row.alone[1] for row in rows],
        "params": [float(row.params) for row in rows],
        "macs": [float(row.macs) for row in rows],
    }
    found = {name: agreement(values, truth) for name, values in figures.items()}
    path = run / f"ranking-{networks}x{epochs or config.epochs}.json"
    write_atomic(path, msgspec.json.format(msgspec.json.encode({"agreement": found, "networks": rows}), indent=1))
    if as_json:
        console.result(msgspec.json.encode(found).decode())
    else:
        _show(console, found, rows)
    console.say(f"wrote {path}")


def _show(console: "Console", found: "dict[str, Agreement]", rows: "list[Ranked]") -> None:
    ceiling = found["trained alone, other seed"].tau.value
    cells = [
        (name, _figure(f.tau), _figure(f.rho), f"{f.tau.value / ceiling:.2f}" if ceiling > 0 else "–") for name, f in found.items()
    ]  # fmt: skip
    seconds = sum(row.inherited_seconds for row in rows) / len(rows)
    title = f"agreement with {len(rows)} networks trained alone, 95 % intervals over networks; an inherited score took {seconds:.2f} s"
    console.table(title, ("ranked by", "Kendall tau", "Spearman rho", "tau / ceiling"), cells)


def _figure(found: Any) -> str:  # Any: an Interval
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


if __name__ == "__main__":
    main()
