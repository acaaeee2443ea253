"""``python -m nas.search --budget`` from flags to files, in the time that it says."""

import signal
import time
from pathlib import Path

import msgspec
import pytest

from nas.budget.kept import kept_budget
from nas.budget.split import LEAST_EPOCHS
from nas.jobs import plan_for
from nas.sharing.bank_file import load_bank
from nas.store import BANK_FILE, load_run
from tests.nas.small import command, ended, front, kill, line_count, rows, start, wait_until, write_inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BUDGET_S = 60
HIGH = 2.5  # of the budget: the promise is 1.05 on a computer that keeps its speed; no lower bound, since a fast one runs out of networks


def flags(folder: Path, *more: object) -> list[object]:
    inputs = write_inputs(folder)
    given = ["--space", inputs["space"], "--data", inputs["data"], "--device", "fake", "--baseline", "mnasnet_small", "--baseline",
             "mobilenet_v3_small_minimal", "--budget", f"{BUDGET_S}s", "--out", folder / "run"]  # fmt: skip
    return [*given, *more]


def finished(folder: Path, *more: object, executor: str) -> tuple[float, str]:
    """Seconds and story of a search; skips the test where the computer is so busy that the budget is refused."""
    began = time.monotonic()
    code, story = ended(start(*flags(folder, *more), executor=executor), 400)
    skip_if_refused(code, story)
    return time.monotonic() - began, story


def skip_if_refused(code: int, story: str) -> None:
    """A computer may be so busy that nothing fits: then that is what is said, and there is nothing to test."""
    if code == 2 and "is too short for" in story:
        pytest.skip(story.strip())
    assert code in (0, -signal.SIGKILL), story


def test_search_on_ray_ends_within_its_budget_and_leaves_out_no_part(tmp_path: Path) -> None:
    seconds, story = finished(tmp_path, executor="ray")
    assert seconds < HIGH * BUDGET_S, story
    config, found = load_run(tmp_path / "run").config, rows(tmp_path / "run")
    searched, finals = ([r for r in found if r.stage == stage and r.status == "trained"] for stage in ("search", "final"))
    assert searched
    assert {r.epochs for r in searched} == {config.epochs}
    assert {r.epochs for r in finals} == {config.final_epochs}
    assert config.final_epochs >= LEAST_EPOCHS
    assert len({r.id for r in finals if not r.baseline}) <= config.front_size
    assert len(front(tmp_path / "run")) == len(finals) >= 2
    kept = kept_budget(tmp_path / "run")
    assert kept is not None
    assert kept.searched_s == BUDGET_S
    assert kept.began_at == 0.0
    assert abs(kept.used_s - seconds) < 30  # but for the end of the process


def test_search_with_a_bank_keeps_to_its_time_over_a_kill_and_goes_on_with_the_same_bank(tmp_path: Path) -> None:
    out, inherited, began = tmp_path / "run", ("--evaluate", "inherited"), time.monotonic()
    process = start(*flags(tmp_path, *inherited))
    wait_until(lambda: line_count(out) >= 3 or process.poll() == 2, process, 300)
    _, story = kill(process)
    skip_if_refused(process.returncode, story)
    bank, killed_s = (out / BANK_FILE).read_bytes(), time.monotonic() - began
    seconds, story = finished(tmp_path, *inherited, executor="serial")
    assert (out / BANK_FILE).read_bytes() == bank
    assert "budget   " in story
    assert killed_s + seconds < HIGH * BUDGET_S + 20, story  # it is opened twice
    assert {r.score_source for r in rows(out) if r.stage == "search" and r.duplicate_of is None} == {"inherited"}
    kept, config = kept_budget(out), load_run(out).config
    assert kept is not None
    assert kept.used_s > seconds
    assert load_bank(out / BANK_FILE)[0].plan == plan_for(config)


def test_complete_run_is_shown_by_the_same_command_and_goes_further_with_more_time(tmp_path: Path) -> None:
    line = [*flags(tmp_path), "--executor", "serial", "--budget"]
    first = command(*line, "20s")
    skip_if_refused(first.exit_code, first.stderr)
    before, config = len(rows(tmp_path / "run")), load_run(tmp_path / "run").config
    again = command(*line, "20s")
    assert again.exit_code == 0, again.output
    assert "is complete" in again.stderr
    more = command(*line, "30s")
    assert more.exit_code == 0, more.output
    assert len(rows(tmp_path / "run")) >= before
    after = load_run(tmp_path / "run").config
    assert msgspec.structs.replace(after, budget_s=config.budget_s, trials=config.trials) == config
