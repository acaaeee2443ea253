"""``python -m nas.distill`` with flags that no training would heed: one line, and nothing is done."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from nas.distill import main


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--loss", "plain", "--teacher", "file:typo"], "--teacher belongs to --loss kd, dkd, dist, nkd or skd, and here is --loss plain"),
        (["--loss", "bdkd", "--teacher", "file:x", "--teacher-arch", "resnet32"], "with --online-teacher resnet32 in place of it"),
        (["--loss", "uskd", "--online-teacher", "resnet20"], "--online-teacher belongs to --loss bdkd"),
        (["--loss", "uskd", "--teacher-epochs", "3"], "--teacher-epochs belongs to --teacher train:NAME"),
        (["--loss", "uskd", "--set", "mu=-1", "--set", "mu=1"], "--set has mu twice"),
        (["--loss", "uskd", "--sweep", "mu=1,2", "--sweep", "mu=3"], "--sweep has mu twice"),
    ],
)
def test_flag_that_would_not_count_is_refused_in_one_line(finished: Path, arguments: list[str], says: str) -> None:
    before = (finished / "candidates.jsonl").read_bytes()
    done = CliRunner().invoke(main, [str(finished), *arguments])
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert (finished / "candidates.jsonl").read_bytes() == before
