import contextlib
from pathlib import Path

import pytest

from latency import InvalidDevice, InvalidRuntime, open_device
from latency.runtime import installed
from search_spaces.errors import UnknownName
from tests.latency.runtimes import aar

LIBRARY = installed()


def test_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'local'"):
        open_device("locl")


def test_local_names_its_ways_to_time() -> None:
    with pytest.raises(InvalidDevice, match="may stand runner or python, got 'here'"):
        open_device("local:here")


def test_fake_takes_no_runtime_and_says_where_it_belongs() -> None:
    with pytest.raises(InvalidDevice, match=r"fake: it runs no ONNX Runtime; name x\.aar behind the device it is for"):
        open_device("fake", runtime="x.aar")


def test_python_times_with_the_installed_package_alone() -> None:
    with pytest.raises(InvalidDevice, match=r"times with the onnxruntime package of this Python: to time x\.so, say local:runner"):
        open_device("local:python", runtime="x.so")


@pytest.mark.skipif(LIBRARY is None, reason="onnxruntime's package has no library of its own here")
@pytest.mark.parametrize("spec", ["local", "local:runner", "local,runtime={}"])
def test_this_computer_is_timed_with_the_library_that_is_named(spec: str) -> None:
    assert LIBRARY
    path = str(LIBRARY.path)
    with contextlib.closing(open_device(spec.format(path), runtime="" if "{}" in spec else path)) as device:
        assert device.info().runtime == f"onnxruntime {LIBRARY.version} (runner)"
        assert device.info().runtime_build == f"sha256 {LIBRARY.sha256[:16]}"


@pytest.mark.parametrize(("way", "runner"), [("", True), ("python", False), ("runner", True)])
@pytest.mark.skipif(LIBRARY is None, reason="onnxruntime's package has no library of its own here")
def test_runtime_may_name_the_way_to_time_this_computer(way: str, runner: bool) -> None:
    with contextlib.closing(open_device("local", runtime=way)) as device:
        assert device.info().runtime.endswith("(runner)" if runner else "(python)")


def test_python_times_this_computer_where_there_is_no_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with contextlib.closing(open_device("local")) as device:
        assert device.info().runtime.endswith("(python)")


def test_a_library_for_phones_is_refused_for_this_computer(tmp_path: Path) -> None:
    with pytest.raises(InvalidRuntime, match=r"and the device is \w+ \(glibc\)"):
        open_device("local", runtime=str(aar(tmp_path)))
