import contextlib
import io
import re
import subprocess
import sys

import pytest

from latency.console import count, duration, measured, ms, open_console, three_digits
from latency.devices import open_device
from latency.plan import QUICK
from tests.latency.models import conv_net


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that goes on by one step at every look."""

    def __init__(self, step_s: float) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


@pytest.fixture(autouse=True)
def _terminal_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_results_go_to_stdout_and_the_story_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console = open_console()
    console.result("42")
    console.say("working")
    console.warn("slow")
    console.error("broken")
    assert capsys.readouterr() == ("42\n", "working\nwarning: slow\nerror: broken\n")


def test_table_is_plain_aligned_and_uncut_without_a_terminal() -> None:
    out = io.StringIO()
    open_console(out, io.StringIO()).table("Front", ("id", "ms"), [("a" * 200, "1.5"), ("b", "~12.25")])
    assert out.getvalue().splitlines() == [
        "Front", "id" + " " * 204 + "ms", "-" * 200 + "  ------", "a" * 200 + "     1.5", "b" + " " * 201 + "~12.25",
    ]  # fmt: skip


def test_ids_that_begin_with_a_digit_are_no_figures() -> None:
    out = io.StringIO()
    open_console(out, io.StringIO()).table("", ("id", "MACs"), [("35a6947f4c40", "1.08M"), ("7823", "17.9k")])
    assert [line.split(" ")[0] for line in out.getvalue().splitlines()] == ["id", "-" * 12, "35a6947f4c40", "7823"]


def test_table_can_go_to_stderr() -> None:
    out, err = io.StringIO(), io.StringIO()
    open_console(out, err).table("", ("a",), [("1",)], to="err")
    assert (out.getvalue(), err.getvalue()) == ("", "a\n-\n1\n")


def test_table_without_rows_shows_its_columns() -> None:
    out = io.StringIO()
    open_console(out, io.StringIO()).table("", ("id", "ms"), [])
    assert out.getvalue() == "id  ms\n--  --\n"


@pytest.mark.parametrize("forced", ["FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"])
def test_pipes_get_no_escapes_even_when_colour_is_forced(monkeypatch: pytest.MonkeyPatch, forced: str) -> None:
    monkeypatch.setenv(forced, "1")
    out, err = io.StringIO(), io.StringIO()
    console = open_console(out, err, clock=Clock(60))
    console.warn("careful")
    console.table("t", ("a",), [("1",)])
    with console.progress(2, "training") as tick:
        tick("one")
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_terminal_gets_colour_and_text_as_it_is() -> None:
    err = Terminal()
    open_console(io.StringIO(), err).error("no [bold]file[/] :smile:")
    assert "error: no [bold]file[/] :smile:" in re.sub(r"\x1b\[[0-9;]*m", "", err.getvalue())
    assert "\x1b" in err.getvalue()


def test_terminal_tables_show_brackets_as_they_are() -> None:
    out = Terminal()
    open_console(out, io.StringIO()).table("t [x]", ("a [b]",), [("[red]c",)])
    assert all(text in out.getvalue() for text in ("t [x]", "a [b]", "[red]c"))


def test_dumb_terminal_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    err = Terminal()
    open_console(io.StringIO(), err).warn("careful")
    assert err.getvalue() == "warning: careful\n"


def test_progress_on_a_terminal_shows_work_done_and_text() -> None:
    err = Terminal()
    console = open_console(io.StringIO(), err)
    with console.progress(3, "training [s]") as tick:
        tick("candidate [7]")
        console.say("a line between")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.getvalue())
    assert "training [s]" in shown
    assert "1/3" in shown
    assert "candidate [7]" in shown
    assert "a line between" in shown


def test_progress_without_a_terminal_says_a_line_every_10_seconds_at_most() -> None:
    err = io.StringIO()
    clock = Clock(0.0)
    with open_console(io.StringIO(), err, clock=clock).progress(100, "training") as tick:
        for _ in range(100):
            clock.now += 1.0
            tick()
    lines = err.getvalue().splitlines()
    assert lines[0] == "training: 10 of 100 in 10 s, about 1 min 30 s left"
    assert len(lines) == 10


def test_progress_tells_no_time_left_by_what_an_earlier_process_did() -> None:
    err = io.StringIO()
    clock = Clock(0.0)
    with open_console(io.StringIO(), err, clock=clock).progress(100, "training") as tick:
        tick("from before", advance=80, earlier=True)
        for _ in range(10):
            clock.now += 1.0
            tick()
    assert err.getvalue() == "training: 90 of 100 in 10 s, about 10 s left\n"


def test_progress_on_a_terminal_tells_no_time_left_by_what_an_earlier_process_did() -> None:
    err = Terminal()
    clock = Clock(0.0)
    with open_console(io.StringIO(), err, clock=clock).progress(100, "training") as tick:
        for number in range(11):
            clock.now += number != 1
            tick(advance=80 if number == 1 else 1, earlier=number == 1)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.getvalue()).split("training")[-1]
    assert last.split()[-3:] == ["90/100", "0:00:10", "0:00:10"]


def test_progress_ends_with_a_line_that_says_how_far_it_came() -> None:
    err = io.StringIO()
    with open_console(io.StringIO(), err, clock=Clock(0.0)).progress(None, "measuring") as tick:
        tick("m", advance=3)
    assert err.getvalue() == "measuring: 3 in 0.0 s\n"


def test_interrupted_progress_still_says_how_far_it_came() -> None:
    err = io.StringIO()
    console = open_console(io.StringIO(), err, clock=Clock(0.0))
    with contextlib.suppress(KeyboardInterrupt), console.progress(5, "training") as tick:
        tick()
        raise KeyboardInterrupt
    assert err.getvalue().startswith("training: 1 of 5 in ")


def test_measured_says_figure_and_conditions() -> None:
    (taken,) = open_device("fake:ms=4.2,noise=0").time([conv_net()], QUICK)
    assert measured(taken) == "4.20 ms (±0.00) p50, n=20, fake (no processor, 1 core), 1 thread"


@pytest.mark.parametrize(
    ("value", "text"), [(9.996, "10.0"), (0.09996, "0.100"), (123.4, "123"), (4.2, "4.20"), (12345.6, "12346"), (0.00012345, "0.000123")]
)
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_ms_shows_the_farther_side_of_the_interval() -> None:
    assert ms(4.21, 4.20, 4.27) == "4.21 ms (±0.06)"


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (1000, "1.00k"), (999_600, "1.00M"), (300_774_272, "301M"), (2.5e9, "2.50G")])
def test_count(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (9.97, "10 s"), (59.6, "1 min 0 s"), (3599.9, "1 h 0 min"), (7199, "1 h 59 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_importing_loads_neither_rich_nor_onnxruntime() -> None:
    code = "import sys, latency.console, latency; print(sorted({'rich', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == "[]\n"
