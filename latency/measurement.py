"""What was measured: raw nanoseconds with their conditions, the statistics on them, and reasons not to trust them."""

import functools
import hashlib
import math
from typing import Literal

import msgspec
import numpy as np

from latency import doubts
from latency.bootstrap import interval, resampled_medians, two_level
from latency.plan import TimingPlan
from latency.samples import Kept, Rounds, kept

__all__ = ["DeviceInfo", "Measurement", "Stop", "half_width"]

NORMAL_95 = 1.96

Stop = Literal["converged", "max_ms", "max_samples", "throttled"]


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a latency was measured on. ``timer_ns`` is the clock's resolution, ``max_mhz`` 0 and ``governor`` "" where not readable.

    ``kernel`` is the operating system's own version, which comes with any update: a condition, and no part of which device it is.
    """

    kind: str
    cpu: str
    cores: int
    machine: str
    os: str
    runtime: str
    runtime_build: str = ""
    isa: tuple[str, ...] = ()
    governor: str = ""
    max_mhz: int = 0
    timer_ns: int = 1
    kernel: str = ""

    @property
    def id(self) -> str:
        """First 12 hex digits of SHA-256 over all but governor, clock resolution and kernel: what a stored latency is keyed by.

        Devices of one model and build have one id, whichever of them it is: tables and stored latencies are of the model.
        """
        bare = {**msgspec.structs.asdict(self), "governor": "", "timer_ns": 1}
        del bare["kernel"]
        return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()[:12]

    @property
    def name(self) -> str:
        """A short name for people: ``local (Intel(R) Xeon(R) Processor, 2 cores)``."""
        return f"{self.kind} ({self.cpu}, {self.cores} core{'' if self.cores == 1 else 's'})"


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Every timed run of one model, by round, and its conditions.

    ``samples_ns`` is wall time; ``cpu_ns`` has the same shape and is the CPU time of the thread that ran the model (empty where
    there is none to trust: more than one thread, another provider than cpu, or a coarse clock). ``warmup_ns`` is the duration of
    all warm-ups, ``load_ns`` and ``first_run_ns`` those of loading the model and of its first run, in the first process.
    ``taken_at`` is ISO 8601 in UTC.

    The statistics are over samples that were not preempted (wall − CPU at most 2 % + 2 µs; over the CPU times of a process in which
    more than half of them were), in rounds at the usual frequency.

    - ``process_rounds``: how many of the rounds each process has; empty: all are of one.
    - ``stopped``: why each process ended its rounds.
    - ``anchor_ns``: by round the median of the anchor, a fixed network timed in turns with this one; empty without one.
    - ``anchor_reference_ns``: its median when the device was cool; 0: not known.
    - ``mhz``: by round the frequency of the core in use; empty where the device does not tell.
    - ``cpus``: the cores that the runs were kept on; empty: any.
    - ``between_cv``: spread between processes that earlier measurements on this device had (coefficient of variation); 0: not known.
    - ``notes``: what stood against measuring, as the device was: a sentence each.
    """

    samples_ns: Rounds
    cpu_ns: Rounds = ()
    process_rounds: tuple[int, ...] = ()
    stopped: tuple[Stop, ...] = ()
    warmup_ns: int
    load_ns: int
    first_run_ns: int = 0
    anchor_ns: tuple[int, ...] = ()
    anchor_reference_ns: int = 0
    mhz: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()
    between_cv: float = 0.0
    notes: tuple[str, ...] = ()
    plan: TimingPlan
    device: DeviceInfo
    model_sha256: str
    taken_at: str

    @property
    def p50_ms(self) -> float:
        """Median latency in milliseconds; of several processes the median of their medians."""
        return float(np.median(self.process_p50_ms))

    @property
    def process_p50_ms(self) -> tuple[float, ...]:
        """The median of each process in milliseconds."""
        return tuple(p.p50_ns / 1e6 for p in self._kept.processes)

    @property
    def process_cv(self) -> float | None:
        """Standard deviation (n − 1) of the processes' medians over their mean; None for one process."""
        medians = self.process_p50_ms
        return float(np.std(medians, ddof=1) / np.mean(medians)) if len(medians) > 1 else None

    @property
    def min_ms(self) -> float:
        """The fastest run in milliseconds."""
        return float(self._kept.values_ns.min()) / 1e6

    @property
    def p10_ms(self) -> float:
        """10th percentile in milliseconds: the most repeatable single number, and blind to a slow mode."""
        return self._percentile_ms(10)

    @property
    def p90_ms(self) -> float:
        """90th percentile of the latency in milliseconds."""
        return self._percentile_ms(90)

    @property
    def p99_ms(self) -> float:
        """99th percentile of the latency in milliseconds."""
        return self._percentile_ms(99)

    @property
    def cpu_p50_ms(self) -> float | None:
        """Median CPU time of all runs in milliseconds; None where it is not known."""
        return float(np.median([v for r in self.cpu_ns for v in r])) / 1e6 if self.cpu_ns else None

    @property
    def ci_ms(self) -> tuple[float, float]:
        """95 % interval of the median in milliseconds, over processes and, in them, rounds (``two_level``); the same at every call.

        Of one process it covers the noise within that process, and another
        may differ by several per cent more: given the device's ``between_cv``, both ends are moved out to √(d² + (1.96 · cv · p50)²),
        where d is their distance from p50.
        """
        low, high = self._interval_ms
        if len(self.process_p50_ms) > 1 or not self.between_cv:
            return low, high
        p50, more = self.p50_ms, NORMAL_95 * self.between_cv * self.p50_ms
        return max(0.0, p50 - math.hypot(p50 - low, more)), p50 + math.hypot(high - p50, more)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of a process's own median over that median: the middle one of the processes."""
        return float(np.median([_half_width(medians, p.p50_ns) for medians, p in zip(self._medians, self._kept.processes, strict=True)]))

    @property
    def anchor_ratio(self) -> tuple[float, float, float] | None:
        """Latency over that of the anchor in the same rounds, and its 95 % interval; None without an anchor."""
        return self._ratio

    @property
    def normalised_ms(self) -> float | None:
        """Latency as it would be with the anchor at its reference: what slowed the whole device is divided out."""
        ratio = self.anchor_ratio
        return ratio[0] * self.anchor_reference_ns / 1e6 if ratio and self.anchor_reference_ns else None

    @property
    def spread(self) -> float:
        """Interquartile range over the median: 0.05 means that the middle half of the runs lies within 5 % of the median."""
        low, mid, high = np.percentile(self._kept.values_ns, (25, 50, 75))
        return float((high - low) / mid)

    @property
    def runs(self) -> int:
        """Timed runs, the preempted ones among them."""
        return sum(map(len, self.samples_ns))

    @property
    def rejected_share(self) -> float:
        """Share of the timed runs during which another process had the core; 0 where CPU time is not known."""
        return self._kept.rejected_share

    @property
    def cpu_time_processes(self) -> int:
        """Processes of which the CPU times count, since more than half of their runs were preempted."""
        return sum(p.is_cpu_time for p in self._kept.processes)

    @property
    def slowed_share(self) -> float:
        """Share of the rounds that were left out for a lower frequency than usual; 0 where none was read."""
        return self._kept.slowed_share

    def split(self) -> tuple["Measurement", ...]:
        """A measurement for each process."""
        parts, at = [], 0
        for i, count in enumerate(self.process_rounds or (len(self.samples_ns),)):
            mine = slice(at, at + count)
            parts.append(
                msgspec.structs.replace(
                    self, samples_ns=self.samples_ns[mine], cpu_ns=self.cpu_ns[mine], anchor_ns=self.anchor_ns[mine],
                    mhz=self.mhz[mine], process_rounds=(), stopped=self.stopped[i : i + 1],
                )
            )  # fmt: skip
            at += count
        return tuple(parts)

    def problems(self) -> tuple[str, ...]:
        """Reasons not to trust the figure, a sentence each; empty means trustworthy, of a single process within that process."""
        return doubts.of(self)

    def round_medians_ns(self) -> tuple[tuple[float, ...], ...]:
        """Of each process the medians of the rounds that count, in their order."""
        return tuple(tuple(p.round_medians_ns.tolist()) for p in self._kept.processes)

    def _percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self._kept.values_ns, percent)) / 1e6

    @functools.cached_property
    def _kept(self) -> Kept:
        return kept(self.samples_ns, self.cpu_ns, self.process_rounds, self.mhz)

    @functools.cached_property
    def _medians(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [resampled_medians(p.values_ns, p.rounds, rng) for p in self._kept.processes]

    @functools.cached_property
    def _interval_ms(self) -> tuple[float, float]:
        low, high = interval(two_level(self._medians, np.random.default_rng(1)), self.p50_ms * 1e6)
        return max(0.0, low / 1e6), high / 1e6

    @functools.cached_property
    def _ratio(self) -> tuple[float, float, float] | None:
        if not self.anchor_ns:
            return None
        anchor, rng = np.array(self.anchor_ns, dtype=np.float64), np.random.default_rng(2)
        ratios = [p.round_medians_ns / anchor[p.places] for p in self._kept.processes]
        center = float(np.median([np.median(r) for r in ratios]))
        return center, *interval(two_level([resampled_medians(r, np.arange(len(r)), rng) for r in ratios], rng), center)


def half_width(samples_ns: Rounds, cpu_ns: Rounds = ()) -> float:
    """Half of the median's 95 % interval over the median, as ``Measurement.ci_ms`` has it: the stopping rule of every device."""
    (process,) = kept(samples_ns, cpu_ns).processes
    return _half_width(resampled_medians(process.values_ns, process.rounds, np.random.default_rng(0)), process.p50_ns)


def _half_width(resampled_ns: np.ndarray, p50_ns: float) -> float:
    low, high = interval(resampled_ns, p50_ns)
    return (high - low) / 2 / p50_ns
