import pytest

from latency import InvalidDevice, open_device
from search_spaces.errors import UnknownName


def test_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'local'"):
        open_device("locl")


def test_local_has_no_address() -> None:
    with pytest.raises(InvalidDevice, match="nothing may follow the colon"):
        open_device("local:here")
