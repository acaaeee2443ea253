"""Latency under load that does not end: a model run back to back for minutes, until the device is as hot as it gets."""

import time
from collections.abc import Callable

import msgspec
import numpy as np

from latency.console import Console, Tick, duration, ms, three_digits
from latency.devices.base import Device
from latency.errors import DeviceError
from latency.measurement import Measurement
from latency.model_files import NamedModel
from latency.plan import TimingPlan

__all__ = ["UNFINISHED", "Point", "Sustained", "chunk_plan", "show", "sustain"]

CHUNK_S, CHUNKS, LEAST_S = 30.0, 10, 0.5
ROWS = 12  # of the curve, in a table
UNFINISHED = "it was not finished"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of runs: when it began and ended, in seconds from the start, and what was measured in it. ``mhz`` 0: not told."""

    began_s: float
    ended_s: float
    p50_ms: float
    low_ms: float
    high_ms: float
    p90_ms: float
    runs: int
    busy_s: float
    mhz: int
    problems: tuple[str, ...]


class Sustained(msgspec.Struct, frozen=True, kw_only=True):
    """A model's latency over time; ``error`` says what ended it early. Only where it did is there perhaps no point."""

    model: str
    device: str
    points: tuple[Point, ...]
    error: str = ""

    @property
    def slowdown(self) -> tuple[float, float, float]:
        """Latency at the end over that at the start, and the range that their two intervals allow."""
        first, last = self.points[0], self.points[-1]
        return last.p50_ms / first.p50_ms, last.low_ms / first.high_ms, last.high_ms / first.low_ms

    @property
    def busy_share(self) -> float:
        """Share of the time that the model ran: between stretches it is loaded anew, and the device rests."""
        return sum(p.busy_s for p in self.points) / self.points[-1].ended_s

    @property
    def text(self) -> str:
        """The outcome in a sentence."""
        if not self.points:
            return f"{self.model} on {self.device}: nothing was measured: {self.error}"
        first, last = self.points[0], self.points[-1]
        ratio, low, high = self.slowdown
        start = f"{ms(first.p50_ms, first.low_ms, first.high_ms)} in the first {duration(first.ended_s - first.began_s)}"
        end = f"{ms(last.p50_ms, last.low_ms, last.high_ms)} in the last, up to {duration(last.ended_s)}"
        factor = f"{ratio:.2f} times as long ({low:.2f}–{high:.2f})"
        return f"{self.model} on {self.device}: {start}, {end}: {factor}; it ran {self.busy_share:.0%} of the time"


def chunk_plan(plan: TimingPlan, seconds: float) -> TimingPlan:
    """One stretch of so many seconds of the plan's threads, cores and provider: no stop before, no second process, no warm-up."""
    return msgspec.structs.replace(
        plan, processes=1, more_processes=0, anchor=False, settle_s=0.0, warmup_runs=1, warmup_ms=0.0, block_ms=100.0, block_runs=10_000,
        min_rounds=1, min_samples=1, min_ms=seconds * 1000, max_ms=seconds * 1000, max_samples=10_000_000,
    )  # fmt: skip


def sustain(
    model: NamedModel, spec: str, device: Device, plan: TimingPlan, seconds: float, *, tick: Tick | None = None,
    so_far: Callable[[Sustained], object] | None = None, clock: Callable[[], float] = time.monotonic,
) -> Sustained:  # fmt: skip
    """Runs the model back to back for so many seconds, in stretches of at most 30 s. A device that is lost ends it early.

    ``so_far`` is told after every stretch what there is by then, with ``UNFINISHED`` as its error.
    """
    stretch_s = max(LEAST_S, min(CHUNK_S, seconds / CHUNKS))
    chunk, first = chunk_plan(plan, stretch_s), True
    began, points, error = clock(), list[Point](), ""
    while not points or points[-1].ended_s < seconds:
        at = clock() - began
        try:
            (taken,) = device.time([model.model], msgspec.structs.replace(chunk, settle_s=plan.settle_s if first else 0.0))
        except DeviceError as lost:
            error = str(lost)
            break
        if first and plan.settle_s:  # the wait before is no part of the load
            began, at, first = clock() - stretch_s, 0.0, False
        points.append(_point(taken, at, clock() - began))
        if so_far:
            so_far(Sustained(model=model.name, device=spec, points=tuple(points), error=UNFINISHED))
        if tick:
            tick(f"{three_digits(points[-1].p50_ms)} ms at {duration(points[-1].ended_s)}", advance=1)
    return Sustained(model=model.name, device=spec, points=tuple(points), error=error)


def show(found: Sustained, console: Console) -> None:
    """Prints the curve, thinned to a dozen rows, and the outcome in a sentence."""
    if not found.points:
        console.result(found.text)
        return
    picked = sorted({round(i) for i in np.linspace(0, len(found.points) - 1, min(ROWS, len(found.points)))})
    rows = [
        (duration(p.ended_s), ms(p.p50_ms, p.low_ms, p.high_ms), f"{three_digits(p.p90_ms)} ms", str(p.runs), str(p.mhz or "–"))
        for p in (found.points[i] for i in picked)
    ]
    console.table(f"{found.model} on {found.device}, run back to back", ("up to", "latency p50", "p90", "runs", "MHz"), rows)
    for problem in dict.fromkeys(problem for p in (found.points[0], found.points[-1]) for problem in p.problems):
        console.result(f"doubtful: {found.model} on {found.device}: {problem}")
    console.result(found.text)


def _point(taken: Measurement, began_s: float, ended_s: float) -> Point:
    low, high = taken.ci_ms
    known = [v for v in taken.mhz if v]
    return Point(
        began_s=began_s, ended_s=ended_s, p50_ms=taken.p50_ms, low_ms=low, high_ms=high, p90_ms=taken.p90_ms, runs=taken.runs,
        busy_s=sum(map(sum, taken.samples_ns)) / 1e9, mhz=round(float(np.median(known))) if known else 0, problems=taken.problems(),
    )  # fmt: skip
