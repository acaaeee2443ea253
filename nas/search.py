"""VERB  python -m nas.search: from a data set and a device to a Pareto front of trained, measured ONNX models."""

import time
from pathlib import Path
from typing import Any

import click

from latency.verbs import runtime_option
from nas.verbs import Exits

__all__ = ["main"]

FLAGS = (
    click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file or a run's config.json; flags win over it."),
    click.option("--out", type=click.Path(path_type=Path), required=True, help="Run folder, e.g. results/NAME; an unfinished run goes on."),
    click.option("--space", help="mnasnet, mnasnet-offgrid, mobilenetv3, tiny, or a .toml file.  [mnasnet]"),
    click.option("--width", type=float, help="Width multiplier of the space.  [1]"),
    click.option("--task", help="What is learned.  [classify]"),
    click.option("--data", help="photos, digits, cifar10, cifar100, imagenette, folder:PATH or npz:PATH.  [photos]"),
    click.option("--data-root", help="Where downloaded data sets are kept.  [data]"),
    click.option("--image-size", type=int, help="Pixels; default: the data set's own."),
    click.option("--train-images", type=int, help="Train on so many images; default: all."),
    click.option("--device", "devices", multiple=True, help="Where latency is measured: local, ssh:[user@]host, android[:SERIAL]; may be "
                 "given again for more of the same model.  [local]"),
    runtime_option,
    click.option("--device-wait", help="How long to wait for a device that is unplugged on the way, e.g. 15m.  [15m]"),
    click.option("--table", help="Latency table of the device (latency.build_table): only what it puts near the front is measured."),
    click.option("--fresh", is_flag=True, default=None, help="Measure again what an earlier run measured alike on the same device."),
    click.option("--remeasure", is_flag=True, default=None, help="Go on with a run of another device: what is trained stays, every latency "
                 "is taken anew on this one."),
    click.option("--reuse", metavar="RUN", help="A run whose full trainings are taken over where data, recipe and seed are equal."),
    click.option("--threads", type=int, help="Threads of the measured runtime.  [1]"),
    click.option("--sampler", help="random, tpe or nsga2.  [tpe]"),
    click.option("--reward", type=click.Choice(["pareto", "soft", "hard", "abs"]), help="Pareto front, or one reward.  [pareto]"),
    click.option("--target-ms", type=float, help="T of the rewards soft, hard and abs."),
    click.option("--w", type=float, help="Exponent of soft, weight of abs.  [-0.07, -0.10]"),
    click.option("--max-ms", type=float, help="Reject slower candidates before training them."),
    click.option("--evaluate", type=click.Choice(["alone", "inherited"]), help="Train each candidate for --epochs, or score it with "
                 "weights from one bank that is trained for --bank-epochs.  [alone]"),
    click.option("--bank-epochs", type=int, help="Epochs of the bank of --evaluate inherited.  [30]"),
    click.option("--epochs", type=int, help="Epochs of each candidate.  [5]"),
    click.option("--final-epochs", type=int, help="Epochs of the front and the baselines.  [30]"),
    click.option("--trials", type=int, help="Candidates to train.  [100]"),
    click.option("--budget", help="Wall time for all of the run, e.g. 10m: numbers that you do not set "
                 "(trials, all epochs, front size, baseline widths) are chosen to fit. What earlier starts of it took counts."),
    click.option("--front-size", type=int, help="Members of the front that are trained in full.  [8]"),
    click.option("--baseline", "baselines", multiple=True, help="A baseline family, or one network of it, NAME@WIDTH; may be given again.  "
                 "[six of them]"),
    click.option("--baseline-widths", type=int, help="Widths of each baseline family, inside the front's latency range.  [2]"),
    click.option("--stages", help="What to do, with commas between: search, then refine and/or distill of its front.  [search]"),
    click.option("--refine-ratio", type=float, help="Latency to refine to, as a share of the network's own.  [0.7]"),
    click.option("--refine-ms", type=float, help="The same in milliseconds."),
    click.option("--refine-members", type=int, help="Found networks that are refined, the most accurate first.  [1]"),
    click.option("--teacher", metavar="SPEC", help="Teacher of the stage distill, as nas.distill takes it, e.g. train:resnet56."),
    click.option("--teacher-arch", metavar="NAME", help="Network of --teacher file:WEIGHTS."),
    click.option("--loss", help="What is learned from the teacher: nkd, kd, dkd, dist, ..., uskd without one.  [nkd]"),
    click.option("--loss-set", "loss_options", multiple=True, metavar="NAME=VALUE", help="Of the loss, as nas.distill --set, e.g. "
                 "temperature=2; may be given again."),
    click.option("--distill-baselines", is_flag=True, default=None, help="Teach the baselines too, for a fair comparison."),
    click.option("--workers", type=int, help="Trainings at a time.  [one a core]"),
    click.option("--executor", type=click.Choice(["ray", "serial"]), help="Ray Tune, or this process.  [ray]"),
    click.option("--ray-address", help="A running Ray cluster."),
    click.option("--seed", type=int, help="Fixes proposals, weights and data subsets.  [0]"),
)


def _with_flags(command: Any) -> Any:  # Any: click's decorators
    for flag in reversed(FLAGS):
        command = flag(command)
    return command


@click.command(cls=Exits)
@_with_flags
def main(
    config_file: Path | None, out: Path, budget: str | None, device_wait: str | None, stages: str | None,
    **flags: Any,  # Any: values of the flags above
) -> None:  # fmt: skip
    """Search networks for a data set and a device; ends with trained ONNX models, baselines beside them, front.csv and front.png.

    An interrupted or killed search goes on when the same command is given again.
    """
    began = time.monotonic()
    from nas.budget.split import BUDGETED
    from nas.config import config_from_file, config_from_table, fields_of_file, parse_duration_s
    from nas.distillation.settings import parse_settings
    from nas.errors import InvalidConfig
    from nas.stages.rules import homeless, parse_stages

    given = {name: value for name, value in flags.items() if value not in (None, (), "")}
    if budget is not None:
        given["budget_s"] = parse_duration_s(budget)
    if device_wait is not None:
        given["device_wait_s"] = parse_duration_s(device_wait, may_be_zero=True)
    if "loss_options" in given:
        given["loss_options"] = parse_settings(given["loss_options"], "--loss-set")
    if stages is not None:
        given["stages"] = parse_stages(stages)
    config = config_from_file(config_file, given) if config_file else config_from_table(given)
    if wrong := homeless(given, config.stages):
        raise InvalidConfig(wrong)
    free = BUDGETED - given.keys() - (fields_of_file(config_file) if config_file else frozenset())

    from nas.stages.run import run_stages

    run_stages(config, out, free=free, began=began)


if __name__ == "__main__":
    main()
