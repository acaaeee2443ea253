"""Everything a refinement works with, and the refusals that come before any work."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from latency import QUICK, Failed, open_device
from latency.console import Console, ms, three_digits
from latency.onnx_graph import emit
from latency.pool import DevicePool
from latency.store import open_store
from nas import outputs
from nas.config import RunConfig
from nas.cores import workers_of
from nas.errors import InvalidConfig, NothingFeasible
from nas.measuring import Meter
from nas.refinement.beside import beside
from nas.refinement.part import Part
from nas.refinement.places import Kind, nearest, smallest
from nas.refinement.pricing import Pricing, open_pricing
from nas.refinement.record import Scale, kept_scale
from nas.refinement.seeds import Seed
from nas.refinement.settings import Refinement, held_out_count
from nas.store import Latency, read_rows
from nas.tasks.task import Task
from search_spaces.architecture import Architecture

__all__ = ["STEP_PLAN", "RefineBench", "open_refine_bench", "refuse_impossible"]

STEP_PLAN = msgspec.structs.replace(QUICK, processes=12, min_ms=200.0)
"""A step's network is told from the one before by a few per cent, and a step saves twice the ± at least, so each is timed in a dozen
processes: with the step's network and the seed beside it that takes a quarter of a minute, and longer where the device is restless."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineBench:
    """What is opened once; the seed's latency is measured when the run begins, and kept with it."""

    config: RunConfig
    settings: Refinement
    seed: Seed
    out: Path
    console: Console
    task: Task
    device: DevicePool
    meter: Meter
    pricing: Pricing
    part: Part
    workers: int
    seed_latency: Latency
    scale: Scale
    floor: Latency | None  # of the smallest relative; None: the run has begun, so the target is above it

    @property
    def target_ms(self) -> float:
        """The latency to reach."""
        return self.targets_ms(self.seed_latency.p50_ms)[-1]

    def targets_ms(self, seed_ms: float) -> tuple[float, ...]:
        """The latencies passed on the way, then the one to reach, where the seed takes ``seed_ms``."""
        last = self.settings.target_ms or self.settings.target_ratio or 0.0
        return tuple(target * (1.0 if self.settings.target_ms else seed_ms) for target in (*self.settings.passing, last))

    @property
    def least_ms(self) -> float:
        """A smaller step would be lost in the noise of what is timed in turns."""
        return self.scale.least_ms

    @property
    def delta_ms(self) -> float:
        """What the first step saves at least."""
        return max(self.settings.delta * self.seed_latency.p50_ms, self.least_ms)


@contextlib.contextmanager
def open_refine_bench(
    config: RunConfig, settings: Refinement, seed: Seed, out: Path, task: Task, console: Console
) -> Iterator[RefineBench]:
    """Opens the device and what prices proposals, and times the seed, its nearest and its smallest relative in turns unless the folder
    has what came of that; writes nothing.

    Raises:
        NasError: a device, a table or a number of held-out images that cannot be; a folder begun on another device or other data.
    """
    held_out = held_out_count(settings.held_out, len(task.train), len(task.classes))
    with contextlib.ExitStack() as stack:
        open_one = partial(open_device, runtime=config.runtime)
        device = DevicePool(config.devices, wait_s=config.device_wait_s, say=console.say, open_one=open_one)
        stack.callback(device.close)
        outputs.refuse_other_device(out, device.info())
        outputs.refuse_other_data(out, task)
        store = open_store(warn=console.warn)
        stack.callback(store.close)
        plan = msgspec.structs.replace(STEP_PLAN, threads=config.threads)
        meter = Meter(device, plan, store=store, is_fresh=True)  # of a few per cent, last week's figure says nothing
        pricing = open_pricing(config.table, device.info(), plan)
        pricing.ms([seed.arch])  # what a table cannot estimate is said before anything is measured
        latency = next((r.latency for r in read_rows(out / "candidates.jsonl") if r.stage == "refine"), None)
        scale, floor = kept_scale(out), None
        if latency is None or scale is None:
            console.say(f"measuring {seed.origin}, and the least that can be told from it")
            first, scale, least = _measured(meter, seed.arch, settings.kinds)
            latency, floor = (latency, None) if latency else (first, least)
        yield RefineBench(
            config=config, settings=settings, seed=seed, out=out, console=console, task=task, device=device, meter=meter,
            pricing=pricing, part=Part(held_out=held_out, steps=settings.steps, seed=config.seed),
            workers=workers_of(config),
            seed_latency=latency, scale=scale, floor=floor,
        )  # fmt: skip


def refuse_impossible(bench: RefineBench) -> None:
    """Refuses a target that the seed meets, that cannot be told from it here, or that even its smallest relative does not meet.

    Raises:
        InvalidConfig: the first.
        NothingFeasible: the others; with what can be told apart, or the measured floor.
    """
    seed, target, where = bench.seed_latency, bench.target_ms, bench.device.info().name
    own = ms(seed.p50_ms, seed.low_ms, seed.high_ms)
    if above := [t for t in bench.targets_ms(seed.p50_ms) if t >= seed.p50_ms]:
        raise InvalidConfig(f"--target-ms {above[0]:g} is no less than what {bench.seed.origin} takes on {where}, {own}: nothing to refine")
    if bench.least_ms > seed.p50_ms - target:
        raise NothingFeasible(
            f"{where} is too restless to tell {three_digits(target)} ms from what {bench.seed.origin} takes, {own}: networks timed "
            f"in turns are told apart by ±{three_digits(bench.least_ms / 2)} ms there, and a step must save twice that; let nothing else "
            "run there and start again, or ask for less"
        )
    least = bench.floor
    if least and least.low_ms > target:
        raise NothingFeasible(
            f"{three_digits(target)} ms cannot be reached from {bench.seed.origin} ({own}) by shrinking {', '.join(bench.settings.kinds)}: "
            f"with everything as small as it gets it takes {ms(least.p50_ms, least.low_ms, least.high_ms)} on {where}; "
            "ask for more, allow more --kinds, or begin with another seed"
        )


def _measured(meter: Meter, seed: Architecture, kinds: Sequence[Kind]) -> tuple[Latency, Scale, Latency]:
    """The seed's latency, what can be told from it, and its floor, all of one session."""
    began = time.monotonic()
    taken = []
    for timed in meter.time([emit(a) for a in (seed, nearest(seed, kinds), smallest(seed, kinds))], together=True):
        if isinstance(timed, Failed):
            raise timed
        taken.append(timed.measurement)
    own, *others = taken
    near, floor = (beside(m, own, own.p50_ms) for m in others)
    least_ms = 2 * max(near.p50_ms - near.low_ms, near.high_ms - near.p50_ms)
    return Latency.of(own), Scale(least_ms=least_ms, timing_s=time.monotonic() - began), floor
