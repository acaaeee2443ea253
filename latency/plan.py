"""How a latency is measured: every knob with its unit and default, part of every measurement."""

from typing import Literal

import msgspec

from latency.errors import InvalidPlan

__all__ = ["FINAL", "QUICK", "OptLevel", "Precision", "Provider", "TimingPlan"]

OptLevel = Literal["disabled", "basic", "extended", "all"]
Provider = Literal["cpu"]
Precision = Literal["fp32"]


class TimingPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions and stopping rule of one measurement; the limits hold for each model, not for all models together.

    Models are run in blocks of ``max(1, min(block_runs, block_ms / t))`` runs, one block of every model in turn being a round.
    A model is done when it has ``min_rounds`` rounds, ``min_samples`` samples and ``min_ms`` of timed runs, and half of the
    median's 95 % interval is at most ``half_width`` of the median; or when it reaches ``max_ms`` or ``max_samples``.

    - ``threads``: threads that work on one operator, the caller among them; operators run one after the other.
    - ``cpus``: indices of the cores that may be used; empty: left to the operating system.
    - ``opt_level``: ONNX Runtime's graph optimisation level. ``all`` on x86 uses a layout that ARM does not have.
    - ``precision``: what the model's weights and activations are; a label of the model, not a request to convert it.
    - ``warmup_runs``, ``warmup_ms``: the least warm-up; it goes on, to at most 5 times that, until it no longer gets faster.
    """

    threads: int = 1
    cpus: tuple[int, ...] = ()
    provider: Provider = "cpu"
    precision: Precision = "fp32"
    opt_level: OptLevel = "all"
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

    def __post_init__(self) -> None:
        for name in ("threads", "warmup_runs", "block_runs", "min_rounds", "min_samples"):
            self._require(name, "must be at least 1", getattr(self, name) >= 1)
        for name in ("warmup_ms", "min_ms"):
            self._require(name, "must not be negative", getattr(self, name) >= 0)
        self._require("block_ms", "must be above 0", self.block_ms > 0)
        self._require("cpus", "must be distinct and not negative", min(self.cpus, default=0) >= 0 and len(set(self.cpus)) == len(self.cpus))
        self._require("half_width", "must lie between 0 and 1", 0 < self.half_width < 1)
        self._require("max_ms", f"must be at least min_ms ({self.min_ms:g})", self.max_ms >= self.min_ms)
        self._require("max_samples", f"must be at least min_samples ({self.min_samples})", self.max_samples >= self.min_samples)

    def _require(self, name: str, rule: str, holds: bool) -> None:
        if not holds:
            raise InvalidPlan(f"timing plan: {name} {rule}, got {getattr(self, name)}")


QUICK = TimingPlan()
"""For the search: a network of 0.1–2 ms takes about 0.2 s; half of the interval within 2 % of the median where the computer is quiet."""

FINAL = TimingPlan(warmup_runs=10, warmup_ms=300.0, min_rounds=30, min_ms=500.0, max_ms=5000.0, half_width=0.01)
"""For the reported front: within 1 % of the median where the computer is quiet, at most 7 s a network."""
