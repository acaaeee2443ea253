"""VERB  python -m nas.refine results/RUN: from a trained network to a target latency, giving up the least accuracy per millisecond."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latency.verbs import runtime_option
from nas.verbs import Exits

if TYPE_CHECKING:
    from nas.config import RunConfig
    from nas.refinement.seeds import Seed
    from nas.tasks.task import Task

__all__ = ["main"]

KINDS = "expansion, bottleneck, head, se, kernel, depth"
OWN = ("delta", "delta_decay", "steps", "kinds", "keep", "choose", "held_out", "tune_lr", "members", "search")
FLAGS = (
    click.option("--model", metavar="ID", help="The model of RUN to begin with, or the beginning of its id.  [the front's most accurate]"),
    click.option("--seed-model", metavar="NAME", help="Begin with a published network, NAME[@WIDTH], trained first, or with "
                 "torchvision:NAME[:FILE], which has weights and learns the classes first."),
    click.option("--target-ms", type=float, multiple=True, help="Latency to reach; of several the lowest, and the path's "
                 "network at each is trained in full."),
    click.option("--target-ratio", type=float, multiple=True, help="The same as a share of the seed's measured latency, e.g. 0.7."),
    click.option("--out", type=click.Path(path_type=Path), help="Run folder; an unfinished one goes on.  [RUN/refined/ID-TARGET]"),
    click.option("--delta", type=float, help="Least that a step saves, of the seed's latency.  [0.01]"),
    click.option("--delta-decay", type=float, help="Each step's delta over that of the one before, e.g. 0.96.  [1]"),
    click.option("--steps", type=int, help="Optimizer steps of each proposal's fine-tuning.  [100]"),
    click.option("--kinds", help=f"What may shrink, with commas between: {KINDS}.  [expansion,bottleneck]"),
    click.option("--keep-rule", "keep", type=click.Choice(["l2", "taylor"]), help="Which channels stay: by their filters' norm, or by what "
                 "the loss would feel.  [l2]"),
    click.option("--choose", type=click.Choice(["ratio", "accuracy"]), help="The best of a step: by accuracy given up per ms saved, or by "
                 "accuracy.  [ratio]"),
    click.option("--held-out", type=int, help="Training images that proposals are scored on.  [a fifth, at most 5,000]"),
    click.option("--tune-lr", type=float, help="Learning rate of fine-tuning, of the recipe's.  [0.1]"),
    click.option("--members", type=int, help="Networks of the path that are trained from scratch beside scaled ones, where there is "
                 "one target.  [3]"),
    click.option("--search", type=int, help="Train so many networks of a search for the latency reached, to compare with.  [0]"),
    click.option("--epochs", type=int, help="Epochs of each of these; the best three are trained in full.  [5]"),
    click.option("--table", help="Latency table of the device (latency.build_table), to size proposals by; without one MACs do."),
    click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file or config.json of a search: data, recipe."),
    click.option("--data", help="As of nas.search; with RUN its own."),
    click.option("--data-root", help="Where downloaded data sets are kept.  [data]"),
    click.option("--image-size", type=int, help="Pixels; default: the data set's own."),
    click.option("--train-images", type=int, help="Train on so many images; default: all."),
    click.option("--device", "devices", multiple=True, help="Where latency is measured: local, ssh:[user@]host, android[:SERIAL].  "
                 "[RUN's, or local]"),
    runtime_option,
    click.option("--device-wait", help="How long to wait for a device that is unplugged on the way.  [15m]"),
    click.option("--threads", type=int, help="Threads of the measured runtime.  [1]"),
    click.option("--final-epochs", type=int, help="Epochs of the full trainings.  [30]"),
    click.option("--workers", type=int, help="Trainings at a time.  [one a core]"),
    click.option("--executor", type=click.Choice(["ray", "serial"]), help="Ray Tune, or this process.  [ray]"),
    click.option("--ray-address", help="A running Ray cluster."),
    click.option("--seed", type=int, help="Fixes the held-out images, batches and weights; RUN's data stay as they were split.  [0]"),
)  # fmt: skip


def _with_flags(command: Any) -> Any:  # Any: click's decorators
    for flag in reversed(FLAGS):
        command = flag(command)
    return command


@click.command(cls=Exits)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@_with_flags
def main(
    run: Path | None, model: str | None, seed_model: str | None, out: Path | None, config_file: Path | None, device_wait: str | None,
    **flags: Any,  # Any: values of the flags above
) -> None:  # fmt: skip
    """Shrink a trained network of RUN, or a published one, to a latency on your device, step by step (NetAdapt, as MobileNetV3 uses it).

    Each step fine-tunes a proposal for every layer that can save --delta, keeps the best and measures it. Ends with a long
    fine-tuning and a training from scratch, networks scaled in width beside them, path.csv and path.png.
    """
    from nas.errors import InvalidConfig
    from nas.refinement.settings import Refinement

    own = {name: flags.pop(name) for name in OWN}
    own = {name: value for name, value in own.items() if value is not None}
    own |= _targets({name: flags.pop(name) for name in ("target_ms", "target_ratio")}, has_members="members" in own)
    if "kinds" in own:
        own["kinds"] = _kinds(own["kinds"])
    if model and (run is None or seed_model):
        raise InvalidConfig(f"--model names a model of RUN: {'leave out --seed-model' if run else 'name RUN too'}")
    if run is None and seed_model is None:
        raise InvalidConfig("name a RUN of nas.search to take a model from, or a --seed-model")
    Refinement(seed_id="", origin="", **own)  # mistakes in flags are said before data is read
    config = _config(run, config_file, device_wait, {k: v for k, v in flags.items() if v not in (None, (), "")})
    if run is None and out is None:
        raise InvalidConfig("--out must name a folder where there is no RUN")
    config, task, seed = _opened(run, model, seed_model, config)
    settings = Refinement(seed_id=seed.arch.id, origin=seed.origin, search_in=config.space if seed.is_of_space else "", **own)

    from nas.refinement.run import refine

    refine(config, settings, seed, out or _folder(run, settings), task=task)


def _targets(given: dict[str, tuple[float, ...]], *, has_members: bool) -> dict[str, Any]:  # Any: values of a Refinement's fields
    """The lowest target of each flag, and those on the way to it."""
    from nas.errors import InvalidConfig

    found: dict[str, Any] = {}
    for name, values in given.items():
        if values:
            found[name], *passing = sorted(set(values))
            found["passing"] = tuple(reversed(passing))
    if found.get("passing") and has_members:
        raise InvalidConfig("--members belongs to one target: with several, the path's network at each is trained in full; leave it out")
    return found


def _kinds(text: str) -> tuple[str, ...]:
    from nas.errors import UnknownName
    from nas.refinement.places import KINDS as KNOWN

    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in KNOWN:
            raise UnknownName.among("kind of place", name, KNOWN)
    return names


def _config(run: Path | None, file: Path | None, device_wait: str | None, given: dict[str, Any]) -> "RunConfig":  # Any: a field's values
    """RUN's configuration, or a file's, or the defaults, with the flags in place of single fields."""
    import msgspec

    from nas.config import config_from_file, config_from_table, parse_duration_s
    from nas.errors import NasError

    if device_wait is not None:
        given["device_wait_s"] = parse_duration_s(device_wait, may_be_zero=True)
    if file is not None:
        return config_from_file(file, given)
    if run is None:
        return config_from_table(given)
    if not (run / "config.json").exists():
        raise NasError(f"{run} is no run folder (it has no config.json)")
    whole = config_from_file(run / "config.json", given)
    # the limits of a search say nothing here, and its table is of its own device
    table = given.get("table", None if "devices" in given else whole.table)
    return msgspec.structs.replace(whole, budget_s=None, max_ms=None, table=table)


def _opened(run: Path | None, model: str | None, seed_model: str | None, config: "RunConfig") -> tuple["RunConfig", "Task", "Seed"]:
    """The configuration with its data split as in RUN where the seed is of RUN, its data, and the seed."""
    from nas.jobs import open_config_task
    from nas.outputs import refuse_other_data
    from nas.refinement.seeds import named_seed, seed_of_run, with_splits_of
    from nas.store import load_run

    if seed_model:
        task = open_config_task(config)
        return config, task, named_seed(seed_model, task)
    assert run is not None, "one of the two is given"
    begun = load_run(run)
    config = with_splits_of(begun, config)
    task = open_config_task(config)
    if all(getattr(config, name) == getattr(begun.config, name) for name in ("data", "image_size", "train_images")):
        refuse_other_data(run, task)
    return config, task, seed_of_run(begun, model, task)


def _folder(run: Path | None, settings: Any) -> Path:  # Any: a Refinement
    from nas.refinement.settings import refined_folder

    assert run is not None, "without RUN --out is given"
    return refined_folder(run, settings)


if __name__ == "__main__":
    main()
