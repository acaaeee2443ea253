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
@click.option("--show", "shows", is_flag=True, help="Show what is done so far of all this, and train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(
    run: Path, config_file: Path | None, networks: int, epochs: int | None, workers: int | None, executor: str | None, shows: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Rank networks of RUN's space by inherited scores (its bank is trained where it has none), by a training alone with one seed, by one
    with another seed (the ceiling), by parameters and by MACs. An interrupted ranking goes on when the same command is given again.

    RUN may be a search of either kind, or a new folder for --config; its own settings stay as they are.
    """
    import msgspec

    from latency.console import open_console
    from nas.config import config_from_file
    from nas.sharing.rank_rows import ranked
    from nas.sharing.ranking import FEWEST, agreement
    from nas.store import write_atomic

    console, changed = open_console(), {k: v for k, v in (("workers", workers), ("executor", executor)) if v}
    there = run / "config.json"
    evaluate = config_from_file(there, {}).evaluate if there.exists() else "inherited"
    own = config_from_file(config_file or there, {"evaluate": evaluate})
    config = msgspec.structs.replace(own, evaluate="inherited", **changed)
    rows = ranked(config, run, networks=networks, epochs=epochs or config.epochs, console=console, shows=shows, kept=own)
    twice = [row for row in rows if len(row.alone) > 1]
    figures: dict[str, list[tuple[float, float]]] = {  # (figure, truth) of each network
        "inherited": [(row.inherited, row.alone[0]) for row in rows if row.inherited is not None],
        "trained alone, other seed": [(row.alone[1], row.alone[0]) for row in twice],
        "params": [(row.params, row.alone[0]) for row in rows],
        "macs": [(row.macs, row.alone[0]) for row in rows],
    }
    found = {name: agreement(*zip(*pairs, strict=True)) for name, pairs in figures.items() if len(pairs) >= FEWEST or not shows}
    if as_json:
        console.result(msgspec.json.encode(found).decode())
    else:
        _show(console, found, rows)
    if shows:
        return
    path = run / f"ranking-{networks}x{epochs or config.epochs}.json"
    write_atomic(path, msgspec.json.format(msgspec.json.encode({"agreement": found, "networks": rows}), indent=1))
    console.say(f"wrote {path}")


def _show(console: "Console", found: "dict[str, Agreement]", rows: "list[Ranked]") -> None:
    if not found:
        console.say("too few networks are trained to rank them")
        return
    ceiling = found.get("trained alone, other seed")
    cells = [(name, str(f.networks), _figure(f.tau), _figure(f.rho), _share(f, ceiling)) for name, f in found.items()]
    seconds = sum(row.inherited_seconds for row in rows) / len(rows)
    took = f"; an inherited score took {seconds:.2f} s" if "inherited" in found else ""
    title = f"agreement with {len(rows)} networks trained alone, 95 % intervals over networks{took}"
    console.table(title, ("ranked by", "networks", "Kendall tau", "Spearman rho", "tau / ceiling"), cells)


def _share(found: "Agreement", ceiling: "Agreement | None") -> str:
    """Of the ceiling's tau, where that is of the same networks."""
    comparable = ceiling is not None and ceiling.networks == found.networks and ceiling.tau.value > 0
    return f"{found.tau.value / ceiling.tau.value:.2f}" if ceiling and comparable else "–"


def _figure(found: Any) -> str:  # Any: an Interval
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


if __name__ == "__main__":
    main()
