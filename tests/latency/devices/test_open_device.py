import pytest

from latency import InvalidDevice, open_device
from search_spaces.errors import UnknownName


def test_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'local'"):
        open_device("locl")


def test_local_names_its_ways_to_time() -> None:
    with pytest.raises(InvalidDevice, match="may stand runner or python, got 'here'"):
        open_device("local:here")
