"""Found networks against baselines: which stands for them, by what figures, and how that is written and printed."""

import math
from io import StringIO
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from latency import Measurement
from latency.console import open_console
from latency.paired import ratio
from nas.store import Candidate, Latency
from nas.versus import COLUMNS, show, versus, write
from search_spaces import Architecture, Block, Head
from tests.latency.taken import taken


def trained(number: int, valid: float, test: float, ms: float, baseline: str = "") -> tuple[Candidate, Measurement]:
    arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=number),), head=Head(outputs=2))
    timed = taken(ms=ms)
    row = Candidate(
        stage="final", status="trained", arch=arch, seed=0, score=valid, test_score=test, latency=Latency.of(timed), baseline=baseline
    )
    return row, timed


QUICKEST = trained(1, 0.60, 0.61, 1.0)
MIDDLE = trained(2, 0.70, 0.68, 2.0)
BEST = trained(3, 0.80, 0.79, 3.0)
BASE = trained(4, 0.65, 0.66, 2.5, "mobilenet_v2 x0.5")
STRONG = trained(5, 0.90, 0.88, 0.5, "mnasnet_a1 x1")


def against(*networks: tuple[Candidate, Measurement]) -> list[tuple[str | None, str | None]]:
    found = versus([row for row, _ in networks], {row.id: timed for row, timed in networks})
    return [(v.as_good.id if v.as_good else None, v.as_fast.id if v.as_fast else None) for v in found]


def test_fastest_that_is_as_good_and_best_that_is_as_fast_stand_against_a_baseline() -> None:
    assert against(QUICKEST, MIDDLE, BEST, BASE) == [(MIDDLE[0].id, MIDDLE[0].id)]
    # without the middle one, the better is slower and the faster is worse
    assert against(QUICKEST, BEST, BASE) == [(BEST[0].id, QUICKEST[0].id)]


def test_baseline_that_nothing_matches_is_left_alone() -> None:
    assert against(QUICKEST, MIDDLE, BEST, STRONG) == [(None, None)]


def test_networks_are_chosen_by_valid_and_not_by_test() -> None:
    lucky = trained(6, 0.64, 0.99, 1.5)
    assert against(lucky, MIDDLE, BASE) == [(MIDDLE[0].id, MIDDLE[0].id)]


def test_figures_are_the_ratio_and_the_difference_on_test() -> None:
    (found,) = versus([MIDDLE[0], BASE[0]], {row.id: timed for row, timed in (MIDDLE, BASE)})
    assert found.as_good is not None
    # the same noise in both: 2.5 over 2 ms in every round
    assert (found.as_good.times, found.as_good.low, found.as_good.high) == pytest.approx((1.25, 1.25, 1.25), rel=1e-5)
    assert found.as_good.gain == pytest.approx(0.02)


def test_interval_is_of_the_ratios_and_in_its_order() -> None:
    rng = np.random.default_rng(0)
    base, fast = (rounds(ms * np.exp(0.05 * rng.standard_normal(20))) for ms in (3.0, 1.5))
    (found,) = versus([MIDDLE[0], BASE[0]], {BASE[0].id: base, MIDDLE[0].id: fast})
    assert found.as_good is not None
    assert found.as_good.low < found.as_good.times < found.as_good.high
    assert found.as_good.low < 2.0 < found.as_good.high
    assert (found.as_good.times, found.as_good.low, found.as_good.high) == ratio(base, fast)


@pytest.mark.parametrize("score", [None, math.nan])
def test_network_without_a_score_stands_for_nothing_and_against_nothing(score: float | None) -> None:
    bare, bare_base = ((msgspec.structs.replace(row, score=score), timed) for row, timed in (QUICKEST, STRONG))
    assert against(bare, MIDDLE, BASE, bare_base) == [(MIDDLE[0].id, MIDDLE[0].id)]


def test_gain_is_unknown_where_test_is(tmp_path: Path) -> None:
    untested, said = (msgspec.structs.replace(MIDDLE[0], test_score=None), MIDDLE[1]), StringIO()
    (found,) = versus([untested[0], BASE[0]], {row.id: timed for row, timed in (untested, BASE)})
    assert found.as_good is not None
    assert found.as_good.gain is None
    write([found], tmp_path / "versus.csv")
    show(tmp_path / "versus.csv", open_console(out=said, err=said))
    assert "nan" not in said.getvalue()


def rounds(ms: np.ndarray) -> Measurement:
    return msgspec.structs.replace(taken(), samples_ns=tuple((int(v * 1e6),) * 3 for v in ms))


def test_table_is_written_and_printed_with_its_gaps(tmp_path: Path) -> None:
    networks, path, said = [MIDDLE, BASE, STRONG], tmp_path / "versus.csv", StringIO()
    write(versus([row for row, _ in networks], {row.id: timed for row, timed in networks}), path)
    table = pd.read_csv(path)
    assert tuple(table.columns) == COLUMNS
    assert list(table["baseline"]) == ["mobilenet_v2 x0.5", "mnasnet_a1 x1"]
    assert table["as_good_times_faster"][0] == pytest.approx(1.25, rel=1e-5)
    assert table["as_good"].isna().tolist() == [False, True]
    console = open_console(out=said, err=said)
    show(path, console)
    assert "1.25 (1.25 to 1.25)" in said.getvalue()
    assert "+2.00" in said.getvalue()
    assert "none" in said.getvalue()


def test_run_without_baselines_has_no_such_table_nor_keeps_an_old_one(tmp_path: Path) -> None:
    write(versus([MIDDLE[0], BASE[0]], {row.id: timed for row, timed in (MIDDLE, BASE)}), tmp_path / "versus.csv")
    write(versus([MIDDLE[0]], {}), tmp_path / "versus.csv")
    show(tmp_path / "versus.csv", open_console(err=StringIO()))
    assert not list(tmp_path.iterdir())
