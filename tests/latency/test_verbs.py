import click
import pytest
from click.testing import CliRunner

from latency.errors import Failed, InvalidPlan
from latency.verbs import Exits


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidPlan("a plan"), 2, "error: a plan\n"),
        (Failed("a model"), 1, "error: a model\n"),
        (FileNotFoundError(2, "No such file", "x.onnx"), 1, "error: No such file: x.onnx\n"),
        (OSError("disk"), 1, "error: disk\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(error: BaseException, code: int, line: str) -> None:
    @click.command(cls=Exits)
    def verb() -> None:
        raise error

    done = CliRunner().invoke(verb)
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", line)
