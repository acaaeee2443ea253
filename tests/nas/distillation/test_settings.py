import pytest

from nas.distillation.settings import parse_settings, parse_sweep
from nas.errors import InvalidConfig


def test_settings_are_read_from_text() -> None:
    assert parse_settings(["temperature=2", "ranking = log_softmax"]) == {"temperature": 2.0, "ranking": "log_softmax"}
    assert parse_sweep(["weight=0.5,1, 2", "mu=1"]) == {"weight": (0.5, 1.0, 2.0), "mu": (1.0,)}


@pytest.mark.parametrize("text", ["temperature", "temperature=", "=2", " =2", "temperature= "])
def test_setting_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="say NAME=VALUE"):
        parse_settings([text])


@pytest.mark.parametrize("text", ["temperature", "temperature=1,,2", "temperature=1,1.0", "=1,2"])
def test_sweep_with_a_value_missing_or_twice_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="say NAME=VALUE,VALUE"):
        parse_sweep([text])


def test_option_set_twice_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="--set has temperature twice"):
        parse_settings(["temperature=1", "mu=1", "temperature =2"])


def test_option_swept_twice_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="--sweep has temperature twice; give its values at once"):
        parse_sweep(["temperature=1,2", "temperature=4"])


def test_mistake_names_the_flag_that_it_was_given_with() -> None:
    with pytest.raises(InvalidConfig, match=r"^--loss-set alpha: say NAME=VALUE"):
        parse_settings(["alpha"], "--loss-set")
