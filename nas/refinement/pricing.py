"""What architectures are estimated to take: by a latency table or by MACs, and moved to agree with what the device said last."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from latency import DeviceInfo, LatencyTable, MissingPieces, TimingPlan, open_table
from latency.piece_work import piece_work
from nas.refinement.sizing import Estimate
from search_spaces.architecture import Architecture, pieces

__all__ = ["ByMacs", "ByTable", "Pricing", "anchored", "open_pricing", "paced"]


class Pricing(Protocol):
    """Where estimates come from; ``name`` is for people. ``doubt``: by what share a measurement may well differ even at the right pace."""

    name: str
    doubt: float

    def ms(self, archs: Sequence[Architecture]) -> list[float]:
        """A figure for each that rises with its latency; of a table the latency itself."""
        ...

    def interval_ms(self, arch: Architecture) -> tuple[float, float] | None:
        """Where a table says that a measurement lies in nine of ten cases; None where there is no such statement."""
        ...


class ByTable:
    """Estimates of a latency table; it guesses pieces of widths that were not measured, with a wider interval."""

    doubt = 0.0

    def __init__(self, table: LatencyTable) -> None:
        self._table = table
        self.name = f"the table {table.record.path}"

    def ms(self, archs: Sequence[Architecture]) -> list[float]:
        """The table's estimates."""
        return [e.ms for e in self._table.estimate_many(archs)]

    def interval_ms(self, arch: Architecture) -> tuple[float, float] | None:
        """The 90 % interval of a measurement."""
        estimate = self._table.estimate(arch)
        return estimate.low_ms, estimate.high_ms


class ByMacs:
    """Multiply-accumulates in millions: for want of a table; on most devices a poor guide between kinds of layers."""

    name = "MACs"
    doubt = 0.3

    def ms(self, archs: Sequence[Architecture]) -> list[float]:
        """Millions of MACs."""
        return [sum(piece_work(piece).macs for piece in pieces(arch)) / 1e6 for arch in archs]

    def interval_ms(self, arch: Architecture) -> tuple[float, float] | None:
        """None: MACs are no latency."""
        return None


def open_pricing(path: str | None, device: DeviceInfo, plan: TimingPlan) -> Pricing:
    """The table in a file, for this device and plan; MACs where there is no path.

    Raises:
        InvalidTable: no table, or one of another device or plan.
    """
    if path is None:
        return ByMacs()
    table = open_table(path, predict=True)
    table.require(device, plan)
    return ByTable(table)


def anchored(price: Callable[[Sequence[Architecture]], list[float]], arch: Architecture, measured_ms: float) -> Estimate:
    """Estimates times the factor that makes that of ``arch`` equal to its measured latency; infinite for what cannot be estimated.

    Raises:
        MissingPieces: ``arch`` itself cannot be.
    """
    (own,) = price([arch])
    return paced(price, measured_ms / own)


def paced(price: Callable[[Sequence[Architecture]], list[float]], factor: float) -> Estimate:
    """Estimates times a factor; infinite for what cannot be estimated."""

    def estimate(archs: Sequence[Architecture]) -> list[float]:
        try:
            return [ms * factor for ms in price(archs)]
        except MissingPieces as error:
            lacking = set(error.pieces)
        able = [lacking.isdisjoint(pieces(a)) for a in archs]
        known = iter(estimate([a for a, is_able in zip(archs, able, strict=True) if is_able]))
        return [next(known) if is_able else math.inf for is_able in able]

    return estimate
