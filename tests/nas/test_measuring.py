import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from latency import QUICK, DeviceInfo, Failed, Measurement, TimingPlan, Unreachable, open_device
from latency.devices import Model
from latency.devices.base import time_each
from latency.onnx_graph import emit
from latency.pool import DevicePool
from latency.store import LatencyStore
from latency.table import Estimate
from nas.measuring import Meter, Priced, Timed
from search_spaces import Architecture, Block, Head
from tests.latency.models import conv_net

NETS = [conv_net(ch=n) for n in (4, 8, 12, 16, 20)]


class Board:
    """The fake device's figures as those of a device that measures: the store keeps nothing of the device fake."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self._fake, self._then, self.asked = open_device("fake"), then, list[int]()

    def info(self) -> DeviceInfo:
        return msgspec.structs.replace(self._fake.info(), kind="board")

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        self.asked.append(len(models))
        self._then()
        return tuple(msgspec.structs.replace(m, device=self.info()) for m in self._fake.time(models, plan))

    def close(self) -> None:
        self._fake.close()


def opened(path: Path) -> LatencyStore:
    # what the fake device says was taken at the epoch
    return LatencyStore(path / "latencies.sqlite", warn=pytest.fail, now=lambda: datetime(1970, 1, 2, tzinfo=UTC))


def timed(meter: Meter) -> list[tuple[float, bool]]:
    found = meter.time(NETS)
    assert all(isinstance(t, Timed) for t in found)
    return [(t.measurement.p50_ms, t.is_stored) for t in found if isinstance(t, Timed)]


def test_network_that_an_earlier_run_measured_is_not_measured_again(tmp_path: Path) -> None:
    board = Board()
    with closing(opened(tmp_path)) as store:
        Meter(board, store=store).time(NETS[:2])
    with closing(opened(tmp_path)) as store:
        found = timed(Meter(board, store=store))
    assert board.asked == [2, 3]
    assert [is_stored for _, is_stored in found] == [True, True, False, False, False]
    assert [ms for ms, _ in found] == [m.p50_ms for m in open_device("fake").time(NETS, QUICK)]


def test_fresh_meter_measures_everything(tmp_path: Path) -> None:
    board = Board()
    with closing(opened(tmp_path)) as store:
        for _ in range(2):
            assert [is_stored for _, is_stored in timed(Meter(board, store=store, is_fresh=True))] == [False] * 5
    assert board.asked == [5, 5]


def test_same_network_twice_is_measured_once(tmp_path: Path) -> None:
    board = Board()
    first, second = Meter(board).time([NETS[0], NETS[0]])
    assert first == second
    assert board.asked == [1]


def test_story_counts_what_was_measured_and_what_was_not(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as store:
        assert Meter(Board(), store=store).story() == ""
        Meter(Board(), store=store).time(NETS[:2])
        meter = Meter(Board(), store=store)
        meter.time(NETS)
        assert meter.story().startswith("3 networks measured in ")
        assert meter.story().endswith(", 2 taken from earlier runs (1970-01-01; --fresh measures them again)")


def test_intervals_are_as_wide_as_the_spread_between_processes_asks_for() -> None:
    # 3 models with medians 0.9, 1, 1.1 of what they are: a coefficient of variation of 10 %, before its correction for so few
    factors = iter((0.9, 1.0, 1.1, 1.0))

    class Spread(Board):
        def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
            factor = next(factors)
            return tuple(
                msgspec.structs.replace(m, samples_ns=tuple(tuple(round(v * factor) for v in r) for r in m.samples_ns), cpu_ns=())
                for m in super().time(models, plan)
            )

    meter = Meter(Spread())
    meter.learn_spread(NETS[:3])
    (found,) = meter.time(NETS[:1])
    assert isinstance(found, Timed)
    low_ms, high_ms = found.measurement.ci_ms
    half = (high_ms - low_ms) / 2 / found.measurement.p50_ms
    assert half == pytest.approx(1.96 * 0.1 / 0.8326, rel=0.02)  # 0.8326: √(median of chi² with 2 degrees of freedom / 2)


def test_spread_that_an_earlier_run_learned_is_not_measured_again(tmp_path: Path) -> None:
    board = Board()
    with closing(opened(tmp_path)) as store:
        Meter(board, store=store).learn_spread(NETS[:3])
    with closing(opened(tmp_path)) as store:
        Meter(board, store=store).learn_spread(NETS[:3])
    assert board.asked == [3, 3, 3]


def test_failed_network_is_an_error_in_its_place(tmp_path: Path) -> None:
    found = Meter(open_device("fake")).time([NETS[0], b"garbage", NETS[1]])
    assert [isinstance(f, Failed) for f in found] == [False, True, False]


def test_devices_of_a_pool_share_the_networks_and_work_at_the_same_time() -> None:
    # each waits inside for the other: one after the other would never end
    together = threading.Barrier(2)
    boards = {spec: Board(lambda: together.wait(60)) for spec in ("one", "two")}
    with closing(DevicePool(list(boards), say=pytest.fail, open_one=boards.__getitem__)) as pool:
        found = timed(Meter(pool))
    assert sorted(len_ for board in boards.values() for len_ in board.asked) == [2, 3]
    assert [ms for ms, _ in found] == [m.p50_ms for m in open_device("fake").time(NETS, QUICK)]


def test_error_of_one_device_ends_the_wait_of_the_other() -> None:
    def gone() -> None:
        raise Unreachable("gone")

    def broken() -> None:
        raise Failed("the disk is full")

    boards, tries = {"one": Board(gone), "two": Board(broken)}, list[str]()

    def open_one(spec: str) -> Board:
        tries.append(spec)
        if tries.count(spec) > 1:
            raise Unreachable("gone")
        return boards[spec]

    # 900 s is what the one would wait for
    pool = DevicePool(list(boards), say=lambda text: None, open_one=open_one, wait_s=900, poll_s=0.01)
    with pytest.raises(Failed, match="the disk is full"), closing(pool):
        Meter(pool).time(NETS)


def test_measuring_side_by_side_is_on_one_device() -> None:
    boards = {spec: Board() for spec in ("one", "two")}
    with closing(DevicePool(list(boards), say=pytest.fail, open_one=boards.__getitem__)) as pool:
        time_each(pool, NETS, QUICK)
    assert sorted(n for board in boards.values() for n in board.asked) == [5]


class Partial:
    """Says 7 ms of every network but one, of which it knows nothing."""

    def __init__(self, unknown: Architecture) -> None:
        self._unknown = unknown

    def estimate_many(self, archs: Sequence[Architecture]) -> list[Estimate]:
        assert self._unknown not in archs
        return [Estimate(ms=7.0, low_ms=6.0, high_ms=8.0) for _ in archs]

    def missing(self, archs: Sequence[Architecture]) -> list[Architecture]:
        return [arch for arch in archs if arch == self._unknown]


def archs_of(*widths: int) -> list[Architecture]:
    return [Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=n),), head=Head(outputs=2)) for n in widths]


def sources(meter: Meter, archs: Sequence[Architecture], limit_ms: float | None = None) -> list[str]:
    return [p.source for p in meter.price(archs, limit_ms) if isinstance(p, Priced)]


def test_network_that_the_table_lacks_is_measured() -> None:
    known, archs = archs_of(*range(10, 18)), archs_of(4, 5, 6)
    meter = Meter(open_device("fake"), table=Partial(archs[1]))
    meter.price(known, None)  # tells the pace
    found = [p for p in meter.price(archs, None) if isinstance(p, Priced)]
    assert [p.source for p in found] == ["estimate", "measured", "estimate"]
    assert (meter.estimated, meter.measured) == (2, 9)
    assert found[1].latency.p50_ms == open_device("fake").time([emit(archs[1])], QUICK)[0].p50_ms


def test_first_networks_are_measured_to_tell_the_pace() -> None:
    meter = Meter(open_device("fake"), table=Partial(archs_of(99)[0]))
    assert sources(meter, archs_of(4, 5, 6)) == ["measured"] * 3
    assert sources(meter, archs_of(*range(7, 14))) == ["measured"] * 5 + ["estimate"] * 2


class Exact:
    """The fake device's own figures times a factor, known to 1 %."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def estimate_many(self, archs: Sequence[Architecture]) -> list[Estimate]:
        taken = open_device("fake").time([emit(a) for a in archs], QUICK) if archs else ()
        wrong = [m.p50_ms * self._factor for m in taken]
        return [Estimate(ms=ms, low_ms=ms / 1.01, high_ms=ms * 1.01) for ms in wrong]

    def missing(self, archs: Sequence[Architecture]) -> list[Architecture]:
        return []


def test_estimates_follow_the_speed_of_the_device() -> None:
    meter, (wanted,) = Meter(open_device("fake"), table=Exact(1.25)), archs_of(30)
    meter.price(archs_of(*range(4, 12)), None)
    (found,) = meter.price([wanted], None)
    true_ms = open_device("fake").time([emit(wanted)], QUICK)[0].p50_ms
    assert isinstance(found, Priced)
    assert found.source == "estimate"
    assert found.latency.p50_ms == pytest.approx(true_ms)
    assert meter.story().endswith("the device is 20% faster than when its table was built, and estimates follow it")


def test_limit_is_held_against_estimates_at_the_speed_of_now() -> None:
    (wanted,) = archs_of(30)
    true_ms = open_device("fake").time([emit(wanted)], QUICK)[0].p50_ms
    meter = Meter(open_device("fake"), table=Exact(1.25))
    meter.price(archs_of(*range(4, 12)), None)
    # by the table as it is, 1.25 · true would be clear of the limit on its slow side
    assert sources(meter, [wanted], 1.005 * true_ms) == ["measured"]


def test_nothing_is_told_of_a_device_as_fast_as_its_table() -> None:
    meter = Meter(open_device("fake"), table=Exact(1.01))
    meter.price(archs_of(*range(4, 14)), None)
    assert "table was built" not in meter.story()
