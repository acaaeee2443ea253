"""What this process computes on: its processor cores or a GPU, how many workers a run has on them, and what makes a process one."""

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from nas.config import RunConfig

__all__ = ["become_worker", "torch_device", "usable_cores", "workers_of"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES, LARGEST_BYTES = 2**31 - 1, 2**25  # the most that mallopt takes of each


def usable_cores() -> tuple[int, ...]:
    """Their numbers, ascending; where the system does not say, as many as the computer has."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def torch_device(asked: "torch.device | str | None" = None) -> "torch.device":
    """The device asked for; by default CUDA where present."""
    import torch

    return torch.device(asked if asked is not None else "cuda" if torch.cuda.is_available() else "cpu")


def workers_of(config: "RunConfig") -> int:
    """How many trainings a run has at a time, unless a core is kept for measuring: in this process one, else as asked, or one a core."""
    return 1 if config.executor == "serial" else config.workers or len(usable_cores())


def become_worker() -> None:
    """One thread for torch, and freed memory is kept for the next step: a training frees and asks for the same tensors at every step.

    By default glibc gives a large block back to the system when it is freed, and the system clears every page of the next one: 7 and
    16 % of the median speed of two small networks, whose processes differ by more (``benchmarks/allocator.md``). Other C libraries are left
    as they are. What measures latencies has processes of its own, unless the device is ``local:python``.
    """
    import torch

    torch.set_num_threads(1)
    try:
        library = ctypes.CDLL(None)
        set_option = library.mallopt
        library.gnu_get_libc_version  # noqa: B018  # others have a mallopt with other options
    except (AttributeError, OSError, TypeError):
        return
    set_option(M_MMAP_THRESHOLD, LARGEST_BYTES)
    set_option(M_TRIM_THRESHOLD, KEPT_BYTES)
