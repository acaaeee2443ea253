import time

import onnx
import pytest

from latency import PUBLISH, QUICK, Failed, InvalidDevice, TimingPlan, Unreachable, open_device
from search_spaces.errors import UnknownName
from tests.latency.models import conv_net


def test_latency_is_that_of_nodes_and_macs_within_the_jitter() -> None:
    (taken,) = open_device("fake").time([conv_net(ch=16, depth=3, side=20)], QUICK)
    expected_ns = 3 * 2000 + 0.05 * 3 * 16 * 16 * 9 * 20 * 20
    # 2 % jitter of the graph and 0.1 % noise of the runs.
    assert taken.p50_ms * 1e6 == pytest.approx(expected_ns, rel=0.022)


def test_equal_models_give_equal_measurements_on_separate_devices() -> None:
    assert open_device("fake").time([conv_net()], QUICK) == open_device("fake").time([conv_net()], QUICK)


def test_weights_do_not_matter() -> None:
    model = conv_net()
    (before,) = open_device("fake").time([model], QUICK)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    (after,) = open_device("fake").time([model], QUICK)
    assert before.model_sha256 != after.model_sha256
    assert before.samples_ns == after.samples_ns


@pytest.mark.parametrize("plan", [QUICK, PUBLISH])
def test_fake_measurements_are_trustworthy(plan: TimingPlan) -> None:
    (taken,) = open_device("fake").time([conv_net()], plan)
    assert taken.problems() == ()


def test_ms_sets_the_latency_of_every_model() -> None:
    a, b = open_device("fake:ms=5").time([conv_net(), conv_net(ch=16)], QUICK)
    assert (a.p50_ms, b.p50_ms) == pytest.approx((5, 5), rel=0.002)


def test_noise_makes_measurements_that_did_not_converge() -> None:
    (taken,) = open_device("fake:noise=0.5").time([conv_net()], QUICK)
    assert "the median is known to" in taken.problems()[0]


def test_fail_1_fails_every_model() -> None:
    with pytest.raises(Failed, match="fail=1") as caught:
        open_device("fake:fail=1").time([conv_net()], QUICK)
    assert caught.value.model_index == 0


def test_fail_3_fails_about_a_third_of_the_graphs_always_the_same() -> None:
    models = [conv_net(ch=ch, depth=depth) for ch in range(1, 9) for depth in range(1, 8)]
    failed = [_fails(model) for model in models]
    # Binomial, 56 draws of 1 in 3: mean 19, standard deviation 3.5.
    assert 8 <= sum(failed) <= 30
    assert failed == [_fails(model) for model in models]


def test_lost_device_is_unreachable_after_its_models() -> None:
    device = open_device("fake:lost=2")
    device.time([conv_net(), conv_net()], QUICK)
    with pytest.raises(Unreachable, match="gone after 2 models"):
        device.time([conv_net()], QUICK)


def test_a_failing_model_is_found_before_any_is_timed() -> None:
    device = open_device("fake:lost=1")
    with pytest.raises(Failed):
        device.time([conv_net(), b"garbage"], QUICK)
    assert len(device.time([conv_net()], QUICK)) == 1


def test_sleep_lets_time_pass() -> None:
    began = time.monotonic()
    open_device("fake:sleep_ms=50").time([conv_net()], QUICK)
    assert time.monotonic() - began >= 0.05


def test_options_stand_side_by_side() -> None:
    with pytest.raises(Failed):
        open_device("fake:ms=5,fail=1").time([conv_net()], QUICK)


def test_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'fail'"):
        open_device("fake:fial=3")


@pytest.mark.parametrize("spec", ["fake:ms", "fake:ms=a", "fake:ms=-1", "fake:ms=nan", "fake:fail=1.5", "fake:ms=1,ms=2", "fake:ms=inf"])
def test_malformed_option_is_refused(spec: str) -> None:
    with pytest.raises(InvalidDevice, match=r"^fake: "):
        open_device(spec)


def _fails(model: onnx.ModelProto) -> bool:
    try:
        open_device("fake:fail=3").time([model], QUICK)
    except Failed:
        return True
    return False
