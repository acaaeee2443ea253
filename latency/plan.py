"""How a latency is measured: every knob with its unit and default, part of every measurement."""

from typing import Any, Literal

import msgspec

from latency.errors import InvalidPlan
from search_spaces.errors import UnknownName

__all__ = ["PLANS", "PUBLISH", "QUICK", "TABLE", "Cores", "OptLevel", "Precision", "Provider", "TimingPlan", "plan_named"]

OptLevel = Literal["disabled", "basic", "extended", "all"]
Provider = Literal["cpu", "xnnpack", "nnapi"]
Precision = Literal["fp32", "int8"]
Cores = Literal["", "big", "mid", "little"]


class TimingPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions and stopping rule of one measurement; the limits hold for each model in each process.

    Models are run in blocks of ``max(1, min(block_runs, block_ms / t))`` runs, one block of every model in turn being a round.
    A model is done when it has ``min_rounds`` rounds, ``min_samples`` samples and ``min_ms`` of timed runs, and half of the
    median's 95 % interval is at most ``half_width`` of the median; or when it reaches ``max_ms`` or ``max_samples``.

    - ``threads``: threads that work on one operator, the caller among them; operators run one after the other.
    - ``cpus``: indices of the cores that may be used; empty: those of ``cores``.
    - ``cores``: a class of cores by speed, where a device has several; "": left to the operating system.
    - ``opt_level``: ONNX Runtime's graph optimisation level. ``all`` on x86 uses a layout that ARM does not have.
    - ``precision``: what the model's weights and activations are; a label of the model, not a request to convert it.
    - ``processes``: times that all of it is done anew in a process of its own: each lays out memory differently.
    - ``more_processes``: so many more for a model whose processes differ by more than 3 % (coefficient of variation).
    - ``anchor``: a fixed network is timed in every round, so that what slows the device as a whole can be divided out.
    - ``warmup_runs``, ``warmup_ms``: the least warm-up; it goes on, to at most 5 times that, until it no longer gets faster.
    - ``settle_s``: look at the device before: wait as long for it to cool, and say what else stands against measuring. 0: do not.
    """

    threads: int = 1
    cpus: tuple[int, ...] = ()
    cores: Cores = ""
    provider: Provider = "cpu"
    precision: Precision = "fp32"
    opt_level: OptLevel = "all"
    processes: int = 1
    more_processes: int = 0
    anchor: bool = False
    warmup_runs: int = 5
    warmup_ms: float = 50.0
    block_runs: int = 10
    block_ms: float = 20.0
    min_rounds: int = 10
    min_samples: int = 20
    max_samples: int = 5000
    min_ms: float = 100.0
    max_ms: float = 600.0
    half_width: float = 0.02
    settle_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("threads", "processes", "warmup_runs", "block_runs", "min_rounds", "min_samples"):
            self._require(name, "must be at least 1", getattr(self, name) >= 1)
        for name in ("more_processes", "warmup_ms", "min_ms", "settle_s"):
            self._require(name, "must not be negative", getattr(self, name) >= 0)
        self._require("block_ms", "must be above 0", self.block_ms > 0)
        self._require("cpus", "must be distinct and not negative", min(self.cpus, default=0) >= 0 and len(set(self.cpus)) == len(self.cpus))
        self._require("half_width", "must lie between 0 and 1", 0 < self.half_width < 1)
        self._require("max_ms", f"must be at least min_ms ({self.min_ms:g})", self.max_ms >= self.min_ms)
        self._require("max_samples", f"must be at least min_samples ({self.min_samples})", self.max_samples >= self.min_samples)

    @property
    def longest_ms(self) -> float:
        """Milliseconds that a model takes at most: warm-ups and timed runs of all processes, without loading."""
        return (self.processes + self.more_processes) * (5 * self.warmup_ms + self.max_ms)

    @property
    def caller_works_alone(self) -> bool:
        """Whether the calling thread does all of the work, so that its CPU time tells what other processes took of the wall time.

        Of a provider other than ``cpu`` it may only wait for an accelerator, or for threads of the provider's own.
        """
        return self.threads == 1 and self.provider == "cpu"

    def _require(self, name: str, rule: str, holds: bool) -> None:
        if not holds:
            raise InvalidPlan(f"timing plan: {name} {rule}, got {getattr(self, name)}")


QUICK = TimingPlan(cores="big")
"""For the search, in one process: at most 0.85 s a network; known to 2 % where the computer is quiet."""

TABLE = TimingPlan(
    cores="big", processes=3, anchor=True, warmup_runs=3, warmup_ms=10.0, block_runs=50, block_ms=1.5, min_rounds=8, min_samples=16,
    min_ms=12.0, max_ms=80.0,
)  # fmt: skip
"""For the pieces of a look-up table: three short processes that together take a piece at most 0.39 s.

Blocks go by time, so that every piece, of 10 µs or of 1 ms, has its rounds beside the same others.
"""

PUBLISH = TimingPlan(
    cores="big", processes=3, more_processes=2, anchor=True, warmup_runs=10, warmup_ms=500.0, min_rounds=30, min_samples=30, min_ms=300.0,
    max_ms=10_000.0, half_width=0.01, settle_s=600.0,
)  # fmt: skip
"""For figures that are reported: three processes, five where they differ, each known to 1 % where the device is quiet.

At most 10 s of timed runs a model and process, 50 s in all; about 3 s where the device is quiet. Waits up to 10 min for a hot device.
"""

PLANS = {"quick": QUICK, "table": TABLE, "publish": PUBLISH}


def plan_named(name: str, **changes: Any) -> TimingPlan:  # Any: a field's own type
    """A plan of ``PLANS`` with some fields replaced.

    Raises:
        UnknownName: no such plan.
        InvalidPlan: a changed field breaks a rule.
    """
    if name not in PLANS:
        raise UnknownName.among("timing plan", name, PLANS)
    return msgspec.structs.replace(PLANS[name], **changes)
