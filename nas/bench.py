"""Everything a search works with, opened from its configuration: data, space, device and its meter, the cores for each."""

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from latency import QUICK, Failed, Measurement, TimingPlan, open_device
from latency.console import Console, ms
from latency.cores import cpus_for
from latency.devices.facts import CoreClass, read_facts
from latency.devices.transport import LocalTransport
from latency.onnx_graph import emit
from latency.pool import DevicePool
from latency.store import open_store
from latency.table import LatencyTable, open_table
from latency.table_text import other_kernel
from nas.budget.split import Plan
from nas.config import RunConfig
from nas.cores import usable_cores
from nas.errors import NothingFeasible, UnknownName
from nas.jobs import open_config_task
from nas.measuring import Meter
from nas.samplers import SAMPLERS
from nas.store import Candidate
from nas.tasks.task import Task
from search_spaces import Pick, SearchSpace, open_space
from search_spaces.architecture import Architecture
from search_spaces.baselines import published

__all__ = ["Bench", "check_floor", "open_bench", "overlaps", "samples", "shared_out"]

OVERLAP_CORES = 4  # from here on measuring has a core of its own
REMOTE = ("ssh", "android")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Everything a run works with."""

    config: RunConfig
    out: Path
    console: Console
    task: Task
    space: SearchSpace
    device: DevicePool
    meter: Meter
    workers: int
    cpus: tuple[int, ...]  # of the workers; empty: any
    overlap: bool
    began: float  # on the clock of time.monotonic, as the next
    deadline: float | None  # None: no budget
    free: frozenset[str] = frozenset()  # fields of the configuration that the budget decides
    plan: Plan | None = None  # of the budget
    opened_s: float = 0.0  # that opening all this took
    is_searched: bool = False  # the search is over, and only full trainings are left
    reuses: Mapping[str, Candidate] = field(default_factory=dict)  # full trainings to take over, by architecture id

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left; negative once it is used up."""
        assert self.deadline is not None, "there is a budget"
        return self.deadline - time.monotonic()


@contextlib.contextmanager
def open_bench(config: RunConfig, out: Path, console: Console, *, began: float, used_s: float = 0.0) -> Iterator[Bench]:
    """Opens what the configuration names, and closes it at the end; ``used_s`` of the budget were used by ``began``.

    Raises:
        NasError: bad names, data, device or table.
    """
    if config.sampler not in SAMPLERS:
        raise UnknownName.among("sampler", config.sampler, SAMPLERS)
    for name in config.baselines:
        published(name)
    open_space(config.space)
    with contextlib.ExitStack() as stack:
        open_one = partial(open_device, runtime=config.runtime)
        device = DevicePool(config.devices, wait_s=config.device_wait_s, say=console.say, open_one=open_one)
        stack.callback(device.close)
        store = open_store(warn=console.warn)
        stack.callback(store.close)
        task = open_config_task(config)
        space = open_space(config.space, width=config.width, input_chw=task.input_chw)
        cores = usable_cores()
        overlap = overlaps(config, device.info().kind, len(cores))
        apart = overlap and device.info().kind == "local" and len(cores) > config.threads
        cpus, measuring = shared_out(cores, _core_classes(), config.threads) if apart else ((), ())
        plan = msgspec.structs.replace(QUICK, threads=config.threads, cpus=measuring)
        table = _table(config, device, plan, space, task, console.say)
        yield Bench(
            config=config, out=out, console=console, task=task, device=device, cpus=cpus, overlap=overlap,
            space=space,
            meter=Meter(device, plan, store=store, is_fresh=config.fresh, table=table),
            workers=1 if config.executor == "serial" else config.workers or (len(cpus) if apart else len(cores)),
            began=began, deadline=began + config.budget_s - used_s if config.budget_s else None,
        )  # fmt: skip


def _table(config: RunConfig, device: DevicePool, plan: TimingPlan, space: SearchSpace, task: Task, say: Say) -> LatencyTable | None:
    """The table that the configuration names, if any; refused where it is not of this device and plan, or of too different a space."""
    if config.table is None:
        return None
    table = open_table(config.table, predict=True)
    table.require(device.info(), plan)
    corners = [space.decode(picks, task.head) for picks in space.corners()]
    if set(table.missing(corners)) - table.record.unable.keys():
        table.estimate_many(corners)  # a table of something else, which says what
    if text := other_kernel(table.record.conditions.device, device.info()):
        say(f"table    {config.table}: {text}")
    menu = space.pieces(task.head)
    lacking = [p for p in menu if p not in table.pieces_ms]
    guessed = [p for p in lacking if table.can_guess(p)]
    if guessed and table.predictor:
        within = f"predicted to within a factor of {table.predictor.error.ratio_90:.2f} in nine of ten"
        say(f"table    {config.table} lacks {len(lacking)} of the space's {len(menu)} pieces: {len(guessed)} are {within}")
    if left := len(lacking) - len(guessed):
        say(f"table    {config.table} lacks {left} of the space's {len(menu)} pieces: candidates with one of them are measured")
    return table


def overlaps(config: RunConfig, kind: str, cores: int) -> bool:
    """Whether networks are measured while others train: on another machine always, here where a core is left over for it."""
    return config.overlap == "on" or (config.overlap == "auto" and (kind in REMOTE or cores >= OVERLAP_CORES))


def shared_out(cores: Sequence[int], classes: Sequence[CoreClass], threads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The cores for the workers and those to measure on: as many as threads, the last of the fastest class that has enough of them."""
    fast = cpus_for(msgspec.structs.replace(QUICK, threads=threads), classes, cores, name="local") or cores
    measuring = tuple(fast[-threads:])
    return tuple(cpu for cpu in cores if cpu not in measuring), measuring


def _core_classes() -> tuple[CoreClass, ...]:
    return read_facts(LocalTransport()).classes if platform.system() == "Linux" else ()


def check_floor(bench: Bench) -> None:
    """Refuses a limit that the space's fastest network, as far as measuring the smallest ones tells, does not meet.

    The smallest network is measured with each other op in each stage by itself, then with the fastest op of every stage at once.
    """
    limit = bench.config.max_ms
    if limit is None:
        return
    bench.meter.learn_spread([emit(a) for a in samples(bench)])
    smallest, _ = bench.space.corners()
    ops = {name: menu for name, menu in bench.space.choices().items() if name.endswith(".op")}
    singles = [(name, op) for name, menu in ops.items() for op in menu if op != smallest[name]]
    first, *others = _measured(bench, [smallest, *({**smallest, name: op} for name, op in singles)])
    best, fastest = dict(smallest), {name: first.p50_ms if first else float("inf") for name in ops}
    for (name, op), result in zip(singles, others, strict=True):
        if result and result.p50_ms < fastest[name]:
            best[name], fastest[name] = op, result.p50_ms
    found = [m for m in (first, *others, *_measured(bench, [best])) if m]
    floor = min(found, key=lambda m: m.p50_ms, default=None)
    if floor is not None and floor.ci_ms[0] > limit:
        raise NothingFeasible(
            f"--max-ms {limit:g} is below what {bench.space.name} can do at {bench.task.size} on {bench.device.info().name}: "
            f"the fastest of its {len(found)} smallest networks takes {ms(floor.p50_ms, *floor.ci_ms)}; allow more, or lower --width "
            "or --image-size"
        )


def samples(bench: Bench) -> list[Architecture]:
    """Three random networks of the space, the same at every start."""
    import numpy as np

    rng = np.random.default_rng(bench.config.seed)
    return [bench.space.decode(bench.space.sample(rng), bench.task.head) for _ in range(3)]


def _measured(bench: Bench, tried: list[dict[str, Pick]]) -> list[Measurement | None]:
    """A measurement of each of the picks; None where the device cannot run the network."""
    models = [emit(bench.space.decode(picks, bench.task.head)) for picks in tried]
    return [None if isinstance(m, Failed) else m.measurement for m in bench.meter.time(models)]
