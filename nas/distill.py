"""VERB  python -m nas.distill results/RUN: teaches found networks with a larger one, beside plain training of the same budget."""

from pathlib import Path
from typing import Any

import click

from nas.verbs import Exits

__all__ = ["main"]

TEACHER = """torchvision:NAME, timm:NAME, run:RUN/ID, file:WEIGHTS (safetensors, or torch weights without pickled objects), or
train:NAME, which is trained here first, such as train:resnet56."""
ARCH = "Network of file:WEIGHTS: resnet20 to resnet110 for CIFAR, vit_tiny, clst_r, kd_cnn_r or kd_mobilenet_r for signals, or a baseline."
NORM = "How a file's network was fed: task, imagenet, cifar10 or half; auto takes what scores best on validation images."
MODEL = "A candidate's id or its beginning, or a published network such as mobilenet_v2@0.35; again for more.  [the front]"
LOSS = "kd, dkd, dist, nkd or skd (with --teacher), uskd or bdkd (without), or plain, to compare with; may be given again."
SETTING = "Of the loss: temperature, alpha, beta, ...; weight and task_weight of the two parts; warmup, a fraction of the training."
START = "Fresh weights, the run's, or what a candidate inherits from the run's bank (--evaluate inherited).  [scratch]"
KEEP = "Keep the teacher's outputs for further trainings with the same seed.  [keep]"

FLAGS = (
    click.option("--teacher", default="", metavar="SPEC", help=TEACHER),
    click.option("--teacher-arch", metavar="NAME", help=ARCH),
    click.option("--teacher-norm", default="auto", show_default=True, metavar="NORM", help=NORM),
    click.option("--teacher-epochs", type=int, help="Epochs of train:NAME.  [--epochs]"),
    click.option("--online-teacher", "online", default="", metavar="NAME", help="Network that bdkd trains along.  [the teacher's]"),
    click.option("--loss", "losses", multiple=True, required=True, help=LOSS),
    click.option("--model", "models", multiple=True, metavar="ID", help=MODEL),
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help=SETTING),
    click.option("--sweep", multiple=True, metavar="NAME=V,V,...", help="Try each value, best on valid; several: every combination."),
    click.option("--seeds", type=int, default=1, show_default=True, help="Train each so many times, for a spread."),
    click.option("--epochs", type=int, help="Epochs of each training.  [the run's final epochs]"),
    click.option("--lr", type=float, help="Learning rate; take a lower one with --start run or bank.  [the run's]"),
    click.option("--start", type=click.Choice(["scratch", "run", "bank"]), default="scratch", help=START),
    click.option("--keep-logits/--no-keep-logits", "keeps_logits", default=True, help=KEEP),
    click.option("--show", "shows", is_flag=True, help="Show what is done so far of all this, and train nothing."),
    click.option("--workers", type=int, help="Trainings at a time.  [the run's]"),
    click.option("--executor", type=click.Choice(["ray", "serial"]), help="Ray Tune, or this process.  [the run's]"),
)


def _with_flags(command: Any) -> Any:  # Any: click's decorators
    for flag in reversed(FLAGS):
        command = flag(command)
    return command


@click.command(cls=Exits)
@click.argument("run", type=click.Path(path_type=Path))
@_with_flags
def main(run: Path, settings: tuple[str, ...], sweep: tuple[str, ...], **flags: Any) -> None:  # Any: values of the flags above
    """Distil students of RUN: trained anew (or from the run's weights) with a teacher's help, compared with plain training.

    Each training is a row of the run and can be exported; the same command goes on where it was interrupted.
    """
    from nas.distillation.run import Request, distill
    from nas.distillation.settings import parse_settings, parse_sweep

    distill(run, Request(settings=parse_settings(settings), sweep=parse_sweep(sweep), **flags))


if __name__ == "__main__":
    main()
