import pickle

from latency.errors import Failed, InvalidDevice, Unreachable


def test_failed_keeps_its_model_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(Failed("no such operator", model_index=3)))
    assert (str(copy), copy.model_index) == ("no such operator", 3)


def test_run_time_failures_exit_1_and_wrong_usage_2() -> None:
    assert (Failed.exit_code, Unreachable.exit_code, InvalidDevice.exit_code) == (1, 1, 2)
