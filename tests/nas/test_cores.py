"""What makes a process a worker, in processes of their own; glibc's own account of its memory is the truth."""

import ctypes
import os
import subprocess
import sys

import pytest

from nas.cores import become_worker

ACCOUNT = """
import ctypes
import torch
from nas.cores import become_worker

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Account = type("Account", (ctypes.Structure,), dict(_fields_=[(name, ctypes.c_size_t) for name in FIELDS]))
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Account

torch.set_num_threads(2)
{call}
before = mallinfo()
held = torch.empty(30 * 2**18)  # 30 MiB
mapped = mallinfo().hblkhd - before.hblkhd
del held
print(mapped >> 20, (mallinfo().arena - before.arena) >> 20, torch.get_num_threads())
"""
glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="no glibc, or one before 2.33")


def account(call: str) -> tuple[int, ...]:
    """MiB that a tensor took in pages of its own, MiB kept after it is gone, torch's threads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    line = [sys.executable, "-c", ACCOUNT.format(call=call)]
    return tuple(map(int, subprocess.run(line, check=True, capture_output=True, text=True, env=environment).stdout.split()))


@glibc
def test_worker_keeps_the_memory_of_a_tensor_for_the_next() -> None:
    mapped, kept, threads = account("become_worker()")
    assert mapped == 0
    assert kept >= 29  # what was free before may have served too
    assert threads == 1


@glibc
def test_other_processes_give_it_back() -> None:
    mapped, kept, threads = account("")
    assert mapped >= 30
    assert kept == 0
    assert threads == 2


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:  # has a mallopt, and is not glibc
        called = False

        def mallopt(self, option: int, value: int) -> int:
            Other.called = True
            return 1

    monkeypatch.setattr("ctypes.CDLL", lambda name: Other())
    become_worker()
    assert not Other.called
