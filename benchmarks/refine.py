"""Does a refinement's step take as long as it says, and how long does finding its proposals take?

    python benchmarks/refine.py [--seed-model mnasnet_a1@0.35] [--table TABLE.jsonl] [--steps 100] [--workers 2] [--out benchmarks]

On photo patches of 32 px: the proposals of the first step (delta 2.5 %) are looked up ten times over, after a first time for the caches;
then the step's time is forecast as nas.refine does, its trainings are run with Ray on so many workers, and the two are compared. The seed
is untrained, and latencies are the fake device's: neither matters here. Wanted: at most 50 ms, and within 25 %. Writes refine.md.
"""

import argparse
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from latency import open_device, open_table
from latency.console import duration
from nas.config import RunConfig
from nas.cost import count
from nas.executors import EXECUTORS
from nas.jobs import DONE, Done, Job, Outcome, open_config_task
from nas.measuring import Meter
from nas.models import build
from nas.refinement.bench import STEP_PLAN
from nas.refinement.forecast import measured_tuning
from nas.refinement.part import Part
from nas.refinement.places import places
from nas.refinement.pricing import ByMacs, ByTable, Pricing
from nas.refinement.record import open_record
from nas.refinement.seeds import named_seed
from nas.refinement.settings import USUAL_KINDS, Refinement, held_out_count
from nas.refinement.sizing import sized
from nas.refinement.steps import Steps, tuning_recipe
from nas.store import Candidate, Latency, RunFolder, open_run
from nas.weights import save
from search_spaces.architecture import Architecture

DELTA, TIMES = 0.025, 10
LATENCY = Latency(p50_ms=1.0, low_ms=1.0, high_ms=1.0)


def main() -> None:
    """Times look-ups and one step, prints and writes both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed-model", default="mnasnet_a1@0.35")
    parser.add_argument("--table")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args()
    config = RunConfig(devices=("fake",), workers=given.workers)
    arch = named_seed(given.seed_model, open_config_task(config)).arch
    pricing: Pricing = ByTable(open_table(given.table, predict=True)) if given.table else ByMacs()
    first_ms, later_ms, proposals = looked_up(arch, pricing)
    load = os.getloadavg()[0]
    forecast_s, taken_s, trainings = one_step(arch, config, pricing, given.steps)
    text = (
        f"# A step of a refinement\n\n`python benchmarks/refine.py --seed-model {given.seed_model} --steps {given.steps} --workers "
        f"{given.workers}`\n\n{datetime.now(UTC).date().isoformat()}, {os.cpu_count()} cores, load before {load:.1f}. The seed has "
        f"{count(arch).macs / 1e6:.1f}M MACs in {len(arch.blocks)} blocks.\n\n"
        f"| | wanted | |\n|---|---|---|\n"
        f"| {proposals} proposals of a step, by {'a table' if given.table else 'MACs'}, the first time | | {first_ms:.0f} ms |\n"
        f"| the same later (median of {TIMES}) | 50 ms | {later_ms:.0f} ms |\n"
        f"| {trainings} trainings of {given.steps} steps, forecast | | {duration(forecast_s)} |\n"
        f"| the same, taken | forecast ± 25 % | {duration(taken_s)}, {100 * (taken_s / forecast_s - 1):+.0f} % |\n"
    )
    (given.out / "refine.md").write_text(text)
    print(text)


def looked_up(arch: Architecture, pricing: Pricing) -> tuple[float, float, int]:
    """Milliseconds that the first step's proposals take the first time and later, and how many there are."""
    (own,) = pricing.ms([arch])
    taken, count_of = [], 0
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        count_of = len(sized(arch, places(arch, USUAL_KINDS), (1 - DELTA) * own, pricing.ms))
        taken.append(1000 * (time.perf_counter() - began))
    return taken[0], statistics.median(taken[1:]), count_of


def one_step(arch: Architecture, config: RunConfig, pricing: Pricing, steps: int) -> tuple[float, float, int]:
    """the forecast and the wall time of one step's trainings, and their number."""
    task = open_config_task(config)
    settings = Refinement(seed_id=arch.id, origin="benchmark", target_ratio=1 - DELTA, delta=DELTA, steps=steps)
    part = Part(held_out=held_out_count(None, len(task.train), len(task.classes)), steps=steps, seed=0)
    device = open_device("fake")
    with tempfile.TemporaryDirectory(prefix="refine-") as folder, open_run(Path(folder) / "run", config) as run:
        network = build(arch, generator=torch.Generator().manual_seed(0))
        weights = "weights/seed.safetensors"
        save(network.state_dict(), run.path / weights)
        seed = Candidate(stage="refine", status="trained", arch=arch, seed=0, latency=LATENCY, score=0.1, weights=weights)
        source = Steps(
            config=config, settings=settings, folder=RunFolder(path=run.path, rows=(seed,)), record=open_record(run.path, settings),
            task=task, meter=Meter(device, STEP_PLAN), pricing=pricing, part=part, target_ms=1e-9, delta_ms=DELTA, least_ms=DELTA,
            say=print,
        )  # fmt: skip
        forecast = measured_tuning(network, task, tuning_recipe(config, settings), part)
        trainings = 1 + len(sized(arch, places(arch, USUAL_KINDS), (1 - DELTA) * pricing.ms([arch])[0], pricing.ms))
        first = FirstStep(source, trainings)
        EXECUTORS["ray"](first, config, workers=config.workers or 1)
    device.close()
    return forecast.seconds(part, trainings=trainings, workers=config.workers or 1), first.seconds(config.workers or 1), trainings


class FirstStep:
    """The jobs of a source's first step alone, and when each was done."""

    def __init__(self, source: Steps, trainings: int) -> None:
        self._source, self._left, self._out = source, trainings, 0
        self._ends: list[float] = []

    def next(self) -> Job | Done | None:
        """The step's next job."""
        if not self._left:
            return None if self._out else DONE
        self._left, self._out = self._left - 1, self._out + 1
        return self._source.next()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Notes the time."""
        self._out -= 1
        self._source.finish(job, outcome)
        self._ends.append(time.perf_counter())

    def seconds(self, workers: int) -> float:
        """Wall time of all trainings, told from those between the first end and the last: workers take a while to start."""
        between = len(self._ends) - workers
        return (self._ends[-1] - self._ends[workers - 1]) * len(self._ends) / between


if __name__ == "__main__":
    main()
