"""How long a search will take: from a training speed measured in its first seconds, then from its own rows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from nas.cores import become_worker, torch_device
from nas.cost import count
from nas.store import Candidate
from nas.tasks.task import Task
from search_spaces.architecture import Architecture

__all__ = ["FORWARD", "Speed", "measured_speed", "speed_of"]

STEPS = 3
FORWARD = 1 / 3  # of the time of a training step
SLOWDOWN = 1.25  # a worker beside other busy workers, validation, and what the probe's few steps do not show


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Training time as a + b·MACs for one image; both in seconds."""

    per_image_s: float
    per_mac_s: float

    def seconds(self, arch: Architecture, images: int, epochs: float) -> float:
        """Expected seconds on one worker for ``epochs`` over ``images``."""
        return images * epochs * (self.per_image_s + self.per_mac_s * count(arch).macs)


def measured_speed(archs: Sequence[Architecture], task: Task, batch: int, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """The speed of this process, from a few training steps of some architectures on one thread.

    A worker process computes as fast where it has a core for itself; ``SLOWDOWN`` allows for what it shares.
    """
    import torch

    from nas.models import build

    become_worker()  # two threads on two cores would look faster than a worker is

    device = torch_device()
    x = torch.randn(batch, *task.input_chw, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.zeros(batch, dtype=torch.int64, device=device)
    points = []
    for arch in archs:
        network = build(arch, generator=torch.Generator().manual_seed(0)).to(device).to(memory_format=torch.channels_last)
        times = []
        for _ in range(STEPS + 1):
            began = clock()
            task.loss(network(x), y).backward()  # type: ignore[no-untyped-call]  # torch's
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(clock() - began)
        points.append((float(count(arch).macs), SLOWDOWN * median(times[1:]) / batch))
    return _line(points)


def speed_of(rows: Sequence[Candidate], images: int, fallback: Speed) -> Speed:
    """The speed that trained rows show, once there are some; ``fallback`` before that."""
    points = [
        (float(r.cost.macs), r.seconds / (images * r.epochs))
        for r in rows
        if r.status == "trained" and r.duplicate_of is None and r.cost and r.epochs and r.seconds
    ]
    return _line(points) if len(points) >= 3 else fallback


def _line(points: Sequence[tuple[float, float]]) -> Speed:
    """Least squares through (MACs, seconds), slope and intercept not below 0."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    slope = min(max(slope, 0.0), mean_y / mean_x if mean_x else 0.0)
    return Speed(per_image_s=mean_y - slope * mean_x, per_mac_s=slope)
