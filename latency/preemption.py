"""Which runs lost the core to another process: the one rule by which a run is left out. The runner's timing.c has the same."""

from typing import Any

import numpy as np

__all__ = ["MOSTLY", "undisturbed"]

SHARE, SLACK_NS = 0.02, 2000
MOSTLY = 0.5  # where more runs than that were preempted, too few are left to take a median of: CPU time stands in

Values = np.ndarray[Any, np.dtype[Any]]  # Any: integers or floats of any shape


def undisturbed(wall_ns: Values, cpu_ns: Values) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which runs had the core to themselves: wall time exceeds CPU time by at most 2 % + 2 µs. For one thread on the cpu provider only."""
    return wall_ns - cpu_ns <= SHARE * wall_ns + SLACK_NS
