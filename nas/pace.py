"""How fast a device runs now, against the speed that a latency table was built at: estimates are brought to that of the search.

A computer whose clock wanders, or a phone that is warm, is faster or slower by some per cent as a whole than when its table was built.
The first networks of a search, which are measured whatever the table says, tell by how much; from then on the pace stays, so that a
search that is taken up goes on as it would have.
"""

from statistics import median

import msgspec

from nas.screening import Estimate

__all__ = ["Pace"]

ENOUGH = 8
WORTH_TELLING = 0.03


class _AtPace(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate times the pace."""

    ms: float
    low_ms: float
    high_ms: float


class Pace:
    """The median of measured over estimated latency of the first ``ENOUGH`` networks; 1 until there are as many."""

    def __init__(self) -> None:
        self._ratios: list[float] = []

    @property
    def lacking(self) -> int:
        """How many networks must still be measured before the pace is known."""
        return ENOUGH - len(self._ratios)

    @property
    def factor(self) -> float:
        """Latencies now over latencies of the table."""
        return 1.0 if self.lacking else median(self._ratios)

    def learn(self, measured_ms: float, estimated_ms: float) -> None:
        """Takes in a network that was measured, and what the table says of it; once the pace is known, nothing."""
        if self.lacking:
            self._ratios.append(measured_ms / estimated_ms)

    def applied(self, estimate: Estimate) -> Estimate:
        """The estimate at the device's speed of now."""
        factor = self.factor
        return _AtPace(ms=estimate.ms * factor, low_ms=estimate.low_ms * factor, high_ms=estimate.high_ms * factor)

    def story(self) -> str:
        """A sentence where the device runs at another speed than its table; "" where not."""
        change = self.factor - 1
        if abs(change) < WORTH_TELLING:
            return ""
        how = "slower" if change > 0 else "faster"
        return f"the device is {abs(change):.0%} {how} than when its table was built, and estimates follow it"
