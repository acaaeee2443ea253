"""The processor cores that this process may use."""

import os

__all__ = ["usable_cores"]


def usable_cores() -> tuple[int, ...]:
    """Their numbers, ascending; where the system does not say, as many as the computer has."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
