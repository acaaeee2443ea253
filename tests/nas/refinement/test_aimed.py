from pathlib import Path

import pytest

from latency import Failed, open_device
from nas.measuring import Meter, Priced
from nas.refinement.aimed import Aim, NearAim
from nas.refinement.bench import STEP_PLAN
from nas.refinement.pricing import ByMacs
from nas.refinement.scaling import scaled
from search_spaces import Architecture
from tests.nas.refinement.walks import SEED, Walk

HALF = scaled(SEED, 0.5)


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(tmp_path)


def priced(found: Priced | Failed) -> Priced:
    assert isinstance(found, Priced)
    return found


def latencies(walk: Walk, aim_ms: float, pricing: ByMacs | None = None) -> NearAim:
    return NearAim(Aim(ms=aim_ms), [walk.seed_row()], pricing or ByMacs(), walk.meter, walk.said.append)


def p50_ms(walk: Walk, arch: Architecture) -> float:
    return walk.measured(arch).p50_ms


def test_latency_more_than_5_percent_away_is_infeasible() -> None:
    aim = Aim(ms=2.0)
    assert [aim.excess(ms) > 0 for ms in (1.89, 1.91, 2.0, 2.09, 2.11)] == [True, False, False, False, True]


def test_network_near_the_aim_is_measured_and_others_are_estimated(walk: Walk) -> None:
    near, far = latencies(walk, p50_ms(walk, HALF)).price([HALF, SEED], None)
    assert (priced(near).source, priced(far).source) == ("measured", "estimate")
    assert priced(near).latency.p50_ms == pytest.approx(p50_ms(walk, HALF), rel=1e-3)
    assert priced(far).latency.p50_ms == pytest.approx(p50_ms(walk, SEED))  # the seed's estimate at the path's pace is its measurement


def test_estimate_says_how_far_it_can_be_trusted(walk: Walk) -> None:
    (far,) = latencies(walk, p50_ms(walk, HALF)).price([SEED], None)
    latency = priced(far).latency
    assert latency.low_ms == pytest.approx(0.7 * latency.p50_ms)
    assert latency.high_ms == pytest.approx(1.3 * latency.p50_ms)


def test_pace_is_the_paths(walk: Walk) -> None:
    class Doubled(ByMacs):
        def ms(self, archs: object) -> list[float]:
            return [2 * ms for ms in super().ms(archs)]  # type: ignore[arg-type]  # as it came

    (plain,), (doubled,) = (latencies(walk, 1e-3, pricing).price([HALF], None) for pricing in (ByMacs(), Doubled()))
    assert priced(plain).latency == priced(doubled).latency


def test_what_slowed_the_device_since_the_path_began_is_divided_out(tmp_path: Path) -> None:
    walk = Walk(tmp_path, slower=0.5)  # the seed was measured at half of what it takes now
    near, _ = latencies(walk, 0.5 * p50_ms(walk, HALF)).price([HALF, SEED], None)
    assert priced(near).latency.p50_ms == pytest.approx(0.5 * p50_ms(walk, HALF), rel=1e-3)


def test_network_that_the_device_cannot_run_is_an_error_in_its_place(walk: Walk) -> None:
    aim = p50_ms(walk, HALF)
    able = latencies(walk, aim)
    device = open_device("fake:fail=1")
    unable = NearAim(Aim(ms=aim), [walk.seed_row()], ByMacs(), Meter(device, STEP_PLAN), walk.said.append)
    assert isinstance(able.price([HALF], None)[0], Priced)
    with pytest.raises(Failed):  # not even the seed, which is measured beside it
        unable.price([HALF], None)
    device.close()
