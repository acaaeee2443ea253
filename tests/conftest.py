"""What every test relies on: one torch thread, as in the product's workers (two on two busy cores are several times slower), and
Ctrl-C as a terminal has it."""

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

# Measured latencies and leases of devices: never the user's own.
os.environ["NAS_CACHE"] = tempfile.mkdtemp(prefix="nas-cache-")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start

import pytest
import torch

torch.set_num_threads(1)
atexit.register(shutil.rmtree, os.environ["NAS_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> Iterator[None]:
    """A shell starts its background jobs with SIGINT ignored, and their children inherit that: tests that send it need the default."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
