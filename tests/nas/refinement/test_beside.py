from collections.abc import Sequence
from contextlib import closing

import msgspec
import pytest

from latency import DeviceInfo, Failed, Measurement, TimingPlan, open_device
from latency.devices import Model
from latency.onnx_graph import emit
from latency.paired import ratio
from latency.pool import DevicePool
from nas.measuring import Meter
from nas.refinement.beside import timed_beside
from nas.refinement.scaling import scaled
from nas.store import Latency
from tests.nas.refinement.walks import SEED

HALF = scaled(SEED, 0.5)


class Board:
    """The fake device, so many times slower."""

    def __init__(self, slower: float = 1.0) -> None:
        self._fake, self._slower, self.asked = open_device("fake:noise=0.05"), slower, list[int]()

    def info(self) -> DeviceInfo:
        return self._fake.info()

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        self.asked.append(len(models))
        return tuple(map(self._slowed, self._fake.time(models, plan)))

    def close(self) -> None:
        self._fake.close()

    def _slowed(self, found: Measurement) -> Measurement:
        samples = tuple(tuple(round(ns * self._slower) for ns in of_round) for of_round in found.samples_ns)
        return msgspec.structs.replace(found, samples_ns=samples, cpu_ns=samples)


def taken(meter: Meter, then: Latency) -> Latency:
    (found,) = timed_beside(SEED, then, [HALF], meter, lambda text: None)
    assert not isinstance(found, Failed)
    return found


def test_seed_and_network_are_timed_on_one_of_several_devices() -> None:
    boards = {"one": Board(), "two": Board(3.0)}
    own, half = Board().time([emit(SEED), emit(HALF)], Meter(Board()).plan)
    seed_ms, half_ms = own.p50_ms, own.p50_ms * ratio(half, own)[0]
    with closing(DevicePool(list(boards), say=pytest.fail, open_one=boards.__getitem__)) as pool:
        meter = Meter(pool)
        then = Latency(p50_ms=seed_ms, low_ms=seed_ms, high_ms=seed_ms)
        # the pool takes them in turn: the second is the slower device
        assert [taken(meter, then).p50_ms / half_ms for _ in range(2)] == pytest.approx([1.0, 1.0], rel=1e-3)
    assert [board.asked for board in boards.values()] == [[2], [2]]


def test_interval_is_that_of_the_ratio_to_the_seed() -> None:
    meter = Meter(Board())
    own, half = Board().time([emit(SEED), emit(HALF)], meter.plan)
    found = taken(meter, Latency(p50_ms=2.0, low_ms=1.0, high_ms=3.0))  # the seed's own says nothing about the two beside each other
    assert (found.p50_ms, found.low_ms, found.high_ms) == pytest.approx(tuple(2.0 * r for r in ratio(half, own)))
    assert found.low_ms < found.p50_ms < found.high_ms


def test_what_is_wrong_with_the_seeds_timing_is_wrong_with_the_network_beside_it() -> None:
    meter = Meter(open_device("fake:noise=0.5"))
    (own,) = open_device("fake:noise=0.5").time([emit(SEED)], meter.plan)
    assert own.problems()
    found = taken(meter, Latency.of(own))
    assert [p for p in found.problems if p.startswith("of the seed beside it: ")] == [f"of the seed beside it: {p}" for p in own.problems()]
