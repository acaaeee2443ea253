"""A board and a phone for the tests that want one; those are skipped where there can be none."""

from collections.abc import Iterator

import msgspec
import pytest

from latency.devices.adb import AdbLink
from latency.devices.base import Device
from latency.devices.remote_device import open_link
from latency.devices.ssh import open_ssh
from latency.runtime import RuntimeLibrary, from_file
from tests.latency.devices.sshd import Board, board
from tests.phone.phone import FOLDER, SERIAL, FakePhone, phone

REAL = {"shared_board", "own_board", "shared_phone", "own_phone"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a real sshd or adbd want programs of the system's, and root for the phone: run them with ``pytest -m device``."""
    for item in items:
        if REAL & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.device)


@pytest.fixture(scope="session")
def shared_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One board for many tests: what was deployed stays; leave it running."""
    with board(tmp_path_factory.mktemp("board")) as made:
        yield made


@pytest.fixture
def known_board(shared_board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """The shared board, with the ``ssh`` that knows it first on PATH."""
    monkeypatch.setenv("PATH", str(shared_board.tools), prepend=":")
    return shared_board


@pytest.fixture(scope="session")
def shared_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePhone]:
    """One phone for many tests: what was deployed stays; leave it plugged in."""
    with phone(tmp_path_factory.mktemp("phone")) as made:
        yield made


@pytest.fixture
def board_device(known_board: Board) -> Iterator[Device]:
    """The board as a device."""
    device = open_ssh(known_board.address)
    yield device
    device.close()


@pytest.fixture
def phone_device(shared_phone: FakePhone) -> Iterator[Device]:
    """The phone as a device."""
    device = open_link(AdbLink(str(shared_phone.adb), SERIAL), kind="android", library=_library)
    yield device
    device.close()


def _library(machine: str) -> RuntimeLibrary:
    """PyPI's library, which the test phone can load, named Android's: no registry has Microsoft's own."""
    return msgspec.structs.replace(from_file(FOLDER / "libonnxruntime.so", machine=machine), libc="bionic")
