"""A measurement is made of several processes: in which order models run in each, when more are wanted, and all of it as one value."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np

from latency.doubts import UNSTABLE
from latency.measurement import DeviceInfo, Measurement, Stop
from latency.plan import TimingPlan
from latency.samples import Rounds, kept

__all__ = ["Part", "combined", "in_processes"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one process measured of one model; the fields are those of ``Measurement``."""

    samples_ns: Rounds
    cpu_ns: Rounds
    stopped: Stop
    warmup_ns: int
    load_ns: int
    first_run_ns: int
    anchor_ns: tuple[int, ...] = ()
    anchor_reference_ns: int = 0
    mhz: tuple[int, ...] = ()

    @property
    def p50_ns(self) -> float:
        """Median of the runs that count."""
        return kept(self.samples_ns, self.cpu_ns, mhz=self.mhz).processes[0].p50_ns


def in_processes(models: int, plan: TimingPlan, run: Callable[[list[int]], list[Part]]) -> list[list[Part]]:
    """The parts of each model, from the plan's processes and, for models whose processes differ, those it allows beyond them.

    Args:
        models: how many there are.
        plan: how many processes.
        run: times models in one process; given their numbers, it gives a part for each in that order.
    """
    parts: list[list[Part]] = [[] for _ in range(models)]
    for process in range(plan.processes + plan.more_processes):
        wanted = list(range(models)) if process < plan.processes else [i for i in range(models) if _differ(parts[i])]
        if not wanted or any(p.stopped == "throttled" for each in parts for p in each):
            break
        order = _shuffled(wanted, process)
        for i, part in zip(order, run(order), strict=True):
            parts[i].append(part)
    return parts


def combined(
    parts: Sequence[Part], *, plan: TimingPlan, device: DeviceInfo, model_sha256: str, cpus: tuple[int, ...] = (), notes: Sequence[str] = ()
) -> Measurement:
    """All processes of one model as its measurement, taken now."""
    first = parts[0]
    anchored, told = all(p.anchor_ns for p in parts), all(p.mhz for p in parts)
    return Measurement(
        samples_ns=tuple(r for p in parts for r in p.samples_ns), cpu_ns=tuple(r for p in parts for r in p.cpu_ns),
        process_rounds=tuple(len(p.samples_ns) for p in parts) if len(parts) > 1 else (), stopped=tuple(p.stopped for p in parts),
        warmup_ns=sum(p.warmup_ns for p in parts), load_ns=first.load_ns, first_run_ns=first.first_run_ns,
        anchor_ns=tuple(ns for p in parts for ns in p.anchor_ns) if anchored else (),
        anchor_reference_ns=first.anchor_reference_ns if anchored else 0, mhz=tuple(v for p in parts for v in p.mhz) if told else (),
        cpus=cpus, notes=tuple(notes), plan=plan, device=device, model_sha256=model_sha256,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )  # fmt: skip


def _differ(parts: Sequence[Part]) -> bool:
    medians = [p.p50_ns for p in parts]
    return bool(np.std(medians, ddof=1) > UNSTABLE * np.mean(medians)) if len(medians) > 1 else False


def _shuffled(numbers: list[int], process: int) -> list[int]:
    """The first process takes the models as given; every other in an order of its own, the same at every call."""
    return numbers if process == 0 else [numbers[i] for i in np.random.default_rng(process).permutation(len(numbers))]
