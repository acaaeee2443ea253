"""Made-up measurements for the tests of what keeps them."""

import numpy as np

from latency import QUICK, DeviceInfo, Measurement, TimingPlan

__all__ = ["DEVICE", "NOW", "taken"]

DEVICE = DeviceInfo(kind="ssh", cpu="Board", cores=4, machine="aarch64", os="Linux", runtime="onnxruntime 1.2.3")
NOW = "2026-11-23T05:00:00Z"


def taken(
    model: str = "a" * 64, ms: float = 1.0, *, plan: TimingPlan = QUICK, device: DeviceInfo = DEVICE, at: str = NOW, noise: float = 0.001
) -> Measurement:
    """A measurement of ``model`` about ``ms``; trustworthy unless there is much noise."""
    values = ms * 1e6 * (1 + noise * np.random.default_rng(0).standard_normal((10, 10)))
    samples = tuple(tuple(int(v) for v in row) for row in values)
    return Measurement(samples_ns=samples, warmup_ns=1, load_ns=1, plan=plan, device=device, model_sha256=model, taken_at=at)
