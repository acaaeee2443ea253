"""What makes a process a worker, in processes of their own."""

import os
import subprocess
import sys

import pytest

PAGES = """
import resource
from nas.cores import become_worker
import torch

torch.set_num_threads(2)
{call}


def step():
    # as a training does: eight tensors of 8 MiB at once, then all are freed
    held = [torch.empty(2**21).fill_(1) for _ in range(8)]


step(), step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, torch.get_num_threads())
"""
OF_A_STEP = 8 * 2**23 // 4096


def pages_and_threads(call: str) -> tuple[int, int]:
    tuned = ("MALLOC_", "GLIBC_TUNABLES")  # what a user may have set
    environment = {name: value for name, value in os.environ.items() if not name.startswith(tuned)}
    done = subprocess.run([sys.executable, "-c", PAGES.format(call=call)], check=True, capture_output=True, text=True, env=environment)
    pages, threads = map(int, done.stdout.split())
    return pages, threads


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_worker_takes_no_new_pages_for_a_step_like_the_one_before() -> None:
    pages, threads = pages_and_threads("become_worker()")
    assert pages < OF_A_STEP / 4
    assert threads == 1


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_other_processes_take_new_pages() -> None:
    pages, threads = pages_and_threads("")
    assert pages > OF_A_STEP / 2  # what the worker saves: else the test above shows nothing
    assert threads == 2


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from nas import cores

    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    cores.become_worker()
    assert torch.get_num_threads() == 1
