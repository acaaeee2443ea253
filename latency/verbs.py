"""What all verbs share: errors become one line and an exit code, Ctrl-C becomes 130."""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

__all__ = ["Exits", "require_writable", "runtime_option", "seconds", "seconds_or_none"]

runtime_option = click.option(
    "--runtime", default="", metavar="FILE|fetch",
    help="ONNX Runtime for the device: a .aar, .whl, .tgz or .so, or fetch; python or runner on this computer. A phone needs it.",
)  # fmt: skip
"""What a verb passes to ``open_device`` as ``runtime``."""


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """An option's callback: a duration such as ``90s``, ``30m`` or ``1h`` as seconds."""
    found = seconds_or_none(ctx, param, value)
    if found == 0:
        raise click.BadParameter(f"expected a duration such as 90s, 30m or 1h, got {value!r}", ctx, param)
    return found


def seconds_or_none(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The same where ``0s`` has a meaning too."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", value.strip())
    if not found:
        raise click.BadParameter(f"expected a duration such as 90s, 30m or 1h, got {value!r}", ctx, param)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def require_writable(*files: Path | None, inputs: Sequence[str] = ()) -> None:
    """Refuses files that could not be written or are among the inputs, before anything is measured.

    Raises:
        InvalidModel: there is no folder for one, its folder takes no files, or it is to be read.
    """
    from latency.model_inputs import InvalidModel

    for file in filter(None, files):
        if not file.parent.is_dir():
            raise InvalidModel(f"there is no folder {file.parent} to write {file.name} to")
        try:
            tempfile.TemporaryFile(dir=file.parent).close()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise InvalidModel(f"the folder {file.parent} takes no files ({why}): write {file.name} elsewhere") from error
        if any(Path(name).exists() and file.exists() and file.samefile(name) for name in inputs):
            raise InvalidModel(f"{file} is a model to be read: name another file to write to")


class Exits(click.Command):
    """A click command whose ``NasError`` prints as one line (exit code of its class), without a traceback."""

    interrupted = "interrupted"  # what is said after Ctrl-C

    def invoke(self, ctx: click.Context) -> Any:  # Any: click's own signature
        """Runs the command; see the class."""
        from search_spaces.errors import NasError

        try:
            return super().invoke(ctx)
        except NasError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
        except OSError as error:
            place = f": {error.filename}" if error.filename else ""
            click.echo(f"error: {error.strerror or error}{place}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo(self.interrupted, err=True)
            sys.exit(130)
