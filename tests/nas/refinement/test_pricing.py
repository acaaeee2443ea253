import pytest

from latency import InvalidTable, LatencyTable, MissingPieces, open_device, open_table
from nas.refinement.bench import STEP_PLAN
from nas.refinement.places import places, shrunk
from nas.refinement.pricing import ByMacs, ByTable, anchored, open_pricing
from search_spaces import Architecture
from tests.latency.tables import HEAD, SMALL, built


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return built(tmp_path_factory.mktemp("table") / "t.jsonl")


@pytest.fixture
def arch() -> Architecture:
    return SMALL.decode(SMALL.corners()[1], HEAD)


def test_table_gives_its_own_estimates_and_intervals(table: LatencyTable, arch: Architecture) -> None:
    pricing, estimate = ByTable(table), table.estimate(arch)
    assert pricing.ms([arch]) == [estimate.ms]
    assert pricing.interval_ms(arch) == (estimate.low_ms, estimate.high_ms)


def test_table_guesses_widths_that_it_was_not_measured_at(table: LatencyTable, arch: Architecture) -> None:
    place = places(arch, ("expansion",))[0]
    small = shrunk(arch, place, 40)
    with pytest.raises(MissingPieces):
        table.estimate(small)
    device = open_device("fake")
    pricing = open_pricing(str(table.record.path), device.info(), STEP_PLAN)
    device.close()
    assert pricing.ms([small]) == [open_table(table.record.path, predict=True).estimate(small).ms]


def test_table_of_another_device_is_refused(table: LatencyTable) -> None:
    device = open_device("local")
    try:
        with pytest.raises(InvalidTable, match="was measured with kind 'fake'"):
            open_pricing(str(table.record.path), device.info(), STEP_PLAN)
    finally:
        device.close()


def test_without_a_table_macs_are_taken() -> None:
    device = open_device("fake")
    assert isinstance(open_pricing(None, device.info(), STEP_PLAN), ByMacs)
    device.close()


def test_anchored_estimates_keep_the_ratios_and_meet_the_measurement(arch: Architecture) -> None:
    price = ByMacs().ms
    small = shrunk(arch, places(arch, ("bottleneck",))[0], 8)
    estimate = anchored(price, arch, 3.0)
    assert estimate([arch])[0] == pytest.approx(3.0)
    assert estimate([small])[0] == pytest.approx(3.0 * price([small])[0] / price([arch])[0])


def test_network_with_a_piece_that_has_no_estimate_is_never_fast_enough(table: LatencyTable, arch: Architecture) -> None:
    known = SMALL.decode(SMALL.corners()[0], HEAD)
    unknown = shrunk(arch, places(arch, ("expansion",))[0], 40)
    estimate = anchored(ByTable(table).ms, arch, 3.0)  # a table that is not opened to guess
    found = estimate([unknown, known, unknown])
    assert found == [float("inf"), pytest.approx(3.0 * table.estimate(known).ms / table.estimate(arch).ms), float("inf")]


def test_seed_that_a_table_cannot_estimate_is_an_error(table: LatencyTable, arch: Architecture) -> None:
    with pytest.raises(MissingPieces):
        anchored(ByTable(table).ms, shrunk(arch, places(arch, ("expansion",))[0], 40), 3.0)
