"""A board and a phone for the tests that want one; those are skipped where there can be none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from latency.devices.base import Device
from latency.devices.ssh import open_ssh
from tests.latency.devices.phones import device_of
from tests.latency.devices.sshd import Board, board
from tests.phone.phone import SECOND, SERIAL, FakePhone, phone

REAL = {"shared_board", "own_board", "shared_phone", "own_phone", "two_phones"}


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
def own_phone(tmp_path: Path) -> Iterator[FakePhone]:
    """A phone to break."""
    with phone(tmp_path) as made:
        yield made


@pytest.fixture
def two_phones(tmp_path: Path) -> Iterator[FakePhone]:
    """Two phones, one behind the other's ``adb``."""
    with phone(tmp_path, daemons=2) as made:
        for serial in (SERIAL, SECOND):
            made.call("connect", serial)
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
    device = device_of(shared_phone)
    yield device
    device.close()
