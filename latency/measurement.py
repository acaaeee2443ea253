"""What was measured: raw nanoseconds with their conditions, the statistics on them, and reasons not to trust them."""

import functools
import hashlib

import msgspec
import numpy as np

from latency.plan import TimingPlan

__all__ = ["DeviceInfo", "Measurement", "half_width"]

RESAMPLES = 1000
CONTENDED, MOSTLY_PREEMPTED = 0.2, 0.5  # shares of preempted samples: worth a warning; too few left to take a median of
DRIFT, ORDERED = 0.05, 0.85  # change between the halves, and share of (early, late) pairs of rounds that show it: else it is noise

Rounds = tuple[tuple[int, ...], ...]


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a latency was measured on. ``timer_ns`` is the clock's resolution, ``max_mhz`` 0 and ``governor`` "" where not readable."""

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

    @property
    def id(self) -> str:
        """First 12 hex digits of SHA-256 over all but governor and clock resolution: what a stored latency is keyed by."""
        bare = msgspec.structs.replace(self, governor="", timer_ns=1)
        return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()[:12]

    @property
    def name(self) -> str:
        """A short name for people: ``local (Intel(R) Xeon(R) Processor, 2 cores)``."""
        return f"{self.kind} ({self.cpu}, {self.cores} core{'' if self.cores == 1 else 's'})"


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Every timed run of one model, by round, and its conditions.

    ``samples_ns`` is wall time; ``cpu_ns`` has the same shape and is the CPU time of the thread that ran the model (empty where
    there is none to trust: more than one thread, or a coarse clock). ``warmup_ns`` and ``load_ns`` are the durations of the
    whole warm-up and of loading the model. ``taken_at`` is ISO 8601 in UTC. The statistics are over samples that were not
    preempted (wall − CPU at most 2 % + 2 µs); over CPU time where more than half of them were.
    """

    samples_ns: Rounds
    cpu_ns: Rounds = ()
    warmup_ns: int
    load_ns: int
    plan: TimingPlan
    device: DeviceInfo
    model_sha256: str
    taken_at: str

    @property
    def p50_ms(self) -> float:
        """Median latency in milliseconds."""
        return float(np.median(self._kept.values_ns)) / 1e6

    @property
    def p90_ms(self) -> float:
        """90th percentile of the latency in milliseconds."""
        return float(np.percentile(self._kept.values_ns, 90)) / 1e6

    @property
    def ci_ms(self) -> tuple[float, float]:
        """95 % interval of the median in milliseconds: bootstrap over rounds, the same at every call.

        It covers the noise within one process. Another process may differ by several per cent more.
        """
        return self._interval_ms

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

    def problems(self) -> tuple[str, ...]:
        """Reasons not to trust the figure, a sentence each; empty means trustworthy within one process."""
        found = (self._too_few(), self._contended(), self._unsettled(), self._drift(), self._coarse())
        return tuple(problem for problem in found if problem)

    @functools.cached_property
    def _kept(self) -> "_Kept":
        return _kept(self.samples_ns, self.cpu_ns)

    @functools.cached_property
    def _interval_ms(self) -> tuple[float, float]:
        low, high = _interval_ns(self._kept)
        return low / 1e6, high / 1e6

    def _too_few(self) -> str:
        rounds, runs = len(self.samples_ns), self.runs
        if rounds >= self.plan.min_rounds and runs >= self.plan.min_samples:
            return ""
        return (
            f"only {runs} runs in {rounds} rounds fitted into {self.plan.max_ms:g} ms, and the plan wants "
            f"{self.plan.min_samples} in {self.plan.min_rounds}: give it a larger max_ms"
        )

    def _contended(self) -> str:
        share = self.rejected_share
        if share > MOSTLY_PREEMPTED:
            return f"{share:.0%} of the runs were preempted, so this is CPU time and not wall time: stop other work on the device"
        return f"{share:.0%} of the runs were preempted and left out: stop other work on the device" if share > CONTENDED else ""

    def _unsettled(self) -> str:
        low, high = self.ci_ms
        half = (high - low) / 2 / self.p50_ms
        if half <= self.plan.half_width:
            return ""
        wanted = f"the plan wants ±{self.plan.half_width:.1%}"
        return f"the median is known to ±{half:.1%} only, and {wanted}: measure longer or on a quieter device"

    def _drift(self) -> str:
        rounds = self._kept.round_medians_ns
        if len(rounds) < 4:
            return ""
        early, late = np.array_split(rounds, 2)
        change = float(np.median(late) / np.median(early) - 1)
        in_order = float(np.mean(np.sign(late[:, None] - early) == np.sign(change)))
        drifts = abs(change) > DRIFT and in_order >= ORDERED
        return f"the second half of the rounds is {change:+.1%} off the first: heat, frequency or other work" if drifts else ""

    def _coarse(self) -> str:
        timer_ns = self.device.timer_ns
        if self.p50_ms * 1e6 >= 100 * timer_ns:
            return ""
        return f"the device's clock counts in steps of {timer_ns} ns, more than 1 % of this latency"


class _Kept(msgspec.Struct, frozen=True):
    values_ns: np.ndarray  # (S,) float64
    rounds: np.ndarray  # (S,) the round of each value, 0 to R − 1 without gaps
    round_medians_ns: np.ndarray  # (R,)
    rejected_share: float


def half_width(samples_ns: Rounds, cpu_ns: Rounds = ()) -> float:
    """Half of the median's 95 % interval over the median, as ``Measurement.ci_ms`` has it: the stopping rule of every device."""
    kept = _kept(samples_ns, cpu_ns)
    low, high = _interval_ns(kept)
    return (high - low) / 2 / float(np.median(kept.values_ns))


def _kept(samples_ns: Rounds, cpu_ns: Rounds) -> _Kept:
    values = np.array([v for r in samples_ns for v in r], dtype=np.float64)
    rounds = np.repeat(np.arange(len(samples_ns)), [len(r) for r in samples_ns])
    share = 0.0
    if cpu_ns:
        cpu = np.array([v for r in cpu_ns for v in r], dtype=np.float64)
        clean = values - cpu <= 0.02 * values + 2000
        share = 1.0 - float(clean.mean())
        if share > MOSTLY_PREEMPTED:
            values = cpu
        else:
            values, rounds = values[clean], rounds[clean]
    _, rounds = np.unique(rounds, return_inverse=True)
    medians = np.array([np.median(values[rounds == r]) for r in range(rounds.max() + 1)])
    return _Kept(values, rounds, medians, share)


def _interval_ns(kept: _Kept) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the pooled median over ``RESAMPLES`` draws of whole rounds, with replacement."""
    count = len(kept.round_medians_ns)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    order = np.argsort(kept.values_ns, kind="stable")
    weight = np.cumsum(draws[:, kept.rounds[order]], axis=1, dtype=np.int32)  # (RESAMPLES, S)
    middle = np.argmax(weight * 2 >= weight[:, -1:], axis=1)
    low, high = np.percentile(kept.values_ns[order][middle], (2.5, 97.5))
    # Of an even number of runs a draw takes the lower middle one and the median their mean: it may lie a hair outside.
    median = np.median(kept.values_ns)
    return float(min(low, median)), float(max(high, median))
