"""The processor cores that this process may use, and how many workers a run has on them."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.config import RunConfig

__all__ = ["usable_cores", "workers_of"]


def usable_cores() -> tuple[int, ...]:
    """Their numbers, ascending; where the system does not say, as many as the computer has."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def workers_of(config: "RunConfig") -> int:
    """How many trainings a run has at a time, unless a core is kept for measuring: in this process one, else as asked, or one a core."""
    return 1 if config.executor == "serial" else config.workers or len(usable_cores())
