"""What people see: results on stdout, the story on stderr, colours and live lines only on a terminal; the only user of rich."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

if TYPE_CHECKING:
    import rich.console

    from latency.measurement import Measurement

__all__ = ["Console", "Tick", "count", "duration", "measured", "ms", "open_console", "three_digits"]

QUIET_S = 10.0  # between progress lines where there is no terminal
NUMBER = re.compile(r"[~±+−-]?[\d,]+(\.\d+)?[kMG%×]?( .*)?")  # and a unit; an id that begins with a digit is none

Style = Literal["", "yellow", "bold red"]


class Tick(Protocol):
    """Moves a progress line on."""

    def __call__(self, text: str = "", *, advance: int = 1, earlier: bool = False) -> None:
        """Count ``advance`` more as done and show ``text`` behind the figures; the time left is not told by what was done ``earlier``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Console:
    """Two streams to write to; ``rich_out`` and ``rich_err`` are None where the stream is no terminal."""

    out: TextIO
    err: TextIO
    rich_out: "rich.console.Console | None"
    rich_err: "rich.console.Console | None"
    clock: Callable[[], float] = time.monotonic

    def result(self, text: str) -> None:
        """Print a result to stdout."""
        _print(text, self.out, self.rich_out)

    def say(self, text: str) -> None:
        """Print a line of the story to stderr."""
        _print(text, self.err, self.rich_err)

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        _print(f"warning: {text}", self.err, self.rich_err, "yellow")

    def error(self, text: str) -> None:
        """Print an error to stderr."""
        _print(f"error: {text}", self.err, self.rich_err, "bold red")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, to: Literal["out", "err"] = "out") -> None:
        """Print a table; columns in which every cell begins like a number are set to the right. Never cut where there is no terminal."""
        stream, terminal = (self.out, self.rich_out) if to == "out" else (self.err, self.rich_err)
        if terminal is None:
            _print(_plain_table(title, columns, rows), stream, None)
        else:
            _rich_table(terminal, title, columns, rows)

    @contextlib.contextmanager
    def progress(self, total: int | None, what: str) -> Iterator[Tick]:
        """A line on stderr that follows work of ``total`` steps (None: unknown); without a terminal a line every 10 seconds at most.

        It is drawn by the ticks alone, with no thread of its own: nothing runs beside what is being timed.
        """
        with _live(self, self.rich_err, total, what) if self.rich_err else _quiet(self, total, what) as tick:
            yield tick


def open_console(out: TextIO | None = None, err: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> Console:
    """A console on the given streams, by default the process's own; rich is loaded only if one of them is a terminal."""
    out, err = out or sys.stdout, err or sys.stderr
    return Console(out=out, err=err, rich_out=_terminal(out), rich_err=_terminal(err), clock=clock)


def three_digits(value: float) -> str:
    """A number to three significant digits, without an exponent.

    >>> three_digits(0.41234), three_digits(41.25), three_digits(1234.5), three_digits(0.0)
    ('0.412', '41.2', '1234', '0')
    """
    return f"{value:.{_decimals(value)}f}" if value else "0"


def ms(p50: float, low: float, high: float) -> str:
    """A latency in milliseconds and how far its interval reaches.

    >>> ms(0.4123, 0.4071, 0.4185), ms(12.34, 12.339, 12.341), ms(0.138, 0.13794, 0.138)
    ('0.412 ms (±0.006)', '12.3 ms (±0.001)', '0.138 ms (±0.00006)')
    """
    half = max(high - p50, p50 - low)
    decimals = _decimals(p50)
    shown = f"{half:.{decimals}f}"
    return f"{three_digits(p50)} ms (±{shown if float(shown) or not half else _one_digit(half)})"


def _one_digit(value: float) -> str:
    """A small number to one significant digit, without an exponent."""
    return f"{value:.{max(0, -int(f'{value:.0e}'.partition('e')[2]))}f}"


def measured(measurement: "Measurement") -> str:
    """A measurement with its conditions: ``0.412 ms (±0.006) p50, n=200, local (Acme 9, 2 cores), 1 thread``."""
    threads = measurement.plan.threads
    figure = ms(measurement.p50_ms, *measurement.ci_ms)
    return f"{figure} p50, n={measurement.runs}, {measurement.device.name}, {threads} thread{'' if threads == 1 else 's'}"


def count(value: float) -> str:
    """A count with k, M or G, to three significant digits; whole below 1000.

    >>> count(1234567), count(999), count(88_000_000), count(999_999)
    ('1.23M', '999', '88.0M', '1.00M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return three_digits(value / size) + letter
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """A time for people, in its two largest units.

    >>> duration(0.25), duration(9.6), duration(250), duration(7380)
    ('0.2 s', '9.6 s', '4 min 10 s', '2 h 3 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _decimals(value: float) -> int:
    """Decimals that show three significant digits, after rounding: 9.996 has two digits before the point."""
    digits = f"{abs(value):.2e}"
    return max(0, 2 - int(digits.partition("e")[2]))


def _terminal(stream: TextIO) -> "rich.console.Console | None":
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return None
    from rich.console import Console as RichConsole

    return RichConsole(file=stream, highlight=False)


def _print(text: str, stream: TextIO, terminal: "rich.console.Console | None", style: Style = "") -> None:
    if terminal is None:
        print(text, file=stream, flush=True)
    else:
        terminal.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _is_figure(cell: str) -> bool:
    return NUMBER.fullmatch(cell) is not None or not cell.strip("–- ")


def _right_aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    return [bool(rows) and all(_is_figure(row[i]) for row in rows) for i in range(len(columns))]


def _plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    right = _right_aligned(columns, rows)
    widths = [max(len(line[i]) for line in (columns, *rows)) for i in range(len(columns))]
    lines = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in (columns, ["-" * w for w in widths], *rows)
    ]
    return "\n".join(([title] if title else []) + lines)


def _rich_table(terminal: "rich.console.Console", title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left")
    for name, right in zip(columns, _right_aligned(columns, rows), strict=True):
        table.add_column(Text(name), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    terminal.print(table)


@contextlib.contextmanager
def _live(console: Console, terminal: "rich.console.Console", total: int | None, what: str) -> Iterator[Tick]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    what_column, text_column = (TextColumn("{task.description}", markup=False), TextColumn("{task.fields[text]}", markup=False))
    columns = (what_column, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), text_column)
    with Progress(*columns, console=terminal, auto_refresh=False, transient=True, redirect_stdout=False, get_time=console.clock) as bar:
        task = bar.add_task(what, total=total, text="")

        def tick(text: str = "", *, advance: int = 1, earlier: bool = False) -> None:
            if earlier:
                bar.tasks[0].completed += advance  # update() would take it for speed
            bar.update(task, advance=0 if earlier else advance, text=text, refresh=True)

        yield tick


@contextlib.contextmanager
def _quiet(console: Console, total: int | None, what: str) -> Iterator[Tick]:
    began = said = console.clock()
    done, before, shown = 0, 0, -1

    def line(text: str) -> str:
        gone = console.clock() - began
        of = f" of {total}" if total is not None else ""
        left = f", about {duration(gone / (done - before) * (total - done))} left" if total is not None and before < done < total else ""
        return f"{what}: {done}{of} in {duration(gone)}{left}" + (f": {text}" if text else "")

    def tick(text: str = "", *, advance: int = 1, earlier: bool = False) -> None:
        nonlocal done, before, said, shown
        before += advance if earlier else 0
        done += advance
        if console.clock() - said >= QUIET_S:
            said, shown = console.clock(), done
            console.say(line(text))

    try:
        yield tick
    finally:
        if done != shown:
            console.say(line(""))
