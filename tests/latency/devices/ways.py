"""The two ways in which this computer is timed, for tests that hold for both."""

import platform

import pytest

from latency.runner import program_for
from latency.runtime import installed

__all__ = ["LOCAL_WAYS", "RUNNER"]

_library = installed() if platform.system() == "Linux" else None
_there = _library is not None and program_for(_library.libc, _library.machine) is not None
RUNNER = pytest.param("local:runner", marks=pytest.mark.skipif(not _there, reason="no runner and runtime library for this computer"))
LOCAL_WAYS = ("local:python", RUNNER)
