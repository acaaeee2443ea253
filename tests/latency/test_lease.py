import subprocess
import sys
import threading
from pathlib import Path

import pytest

from latency import QUICK, Busy
from latency.devices.fake import FakeDevice, FakeOptions
from latency.devices.local import LocalDevice
from latency.lease import Leased, leased, place_of

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from latency.lease import leased
with leased("a phone", wait_s=0, say=print, folder=Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_device_is_held_by_one_at_a_time_and_others_wait_their_turn(tmp_path: Path) -> None:
    inside, most, said = list[int](), list[int](), list[str]()
    others_wait = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            others_wait.set()

    def measure() -> None:
        with leased("a phone", wait_s=60, say=say, folder=tmp_path):
            inside.append(1)
            most.append(len(inside))
            assert others_wait.wait(60)
            inside.pop()

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4
    assert said == ["waiting for a phone: another process measures on it now"] * 3


def test_different_devices_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with leased("one", wait_s=0, say=pytest.fail, folder=tmp_path), leased("two", wait_s=0, say=pytest.fail, folder=tmp_path):
        pass


def test_device_that_stays_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    with (
        leased("a phone", wait_s=0, say=pytest.fail, folder=tmp_path),
        pytest.raises(Busy, match="a phone was not free"),
        leased("a phone", wait_s=0.1, say=lambda text: None, folder=tmp_path),
    ):
        pass


def test_killed_holder_leaves_the_device_free(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        process.kill()

    with leased("a phone", wait_s=60, say=say, folder=tmp_path):
        assert said == ["waiting for a phone: another process measures on it now"]
    process.communicate()


def test_no_folder_for_locks_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with leased("a phone", wait_s=0, say=pytest.fail, folder=tmp_path / "file" / "leases"):
        pass


def test_device_that_another_process_times_on_is_waited_for(tmp_path: Path) -> None:
    said = list[str]()
    device = Leased(LocalDevice(), "local", say=said.append, wait_s=0.2)
    with leased("local", wait_s=0, say=said.append), pytest.raises(Busy, match=r"local was not free within"):
        device.time([b""], QUICK)
    assert said == ["waiting for local: another process measures on it now"]


def test_nobody_waits_for_the_device_that_is_computed() -> None:
    said = list[str]()
    device = Leased(FakeDevice(FakeOptions()), "fake", say=said.append)
    with leased(place_of("fake:ms=5"), wait_s=0, say=said.append):
        assert device.time([], QUICK) == ()
    assert said == []
