from pathlib import Path

import pandas as pd
import pytest

from nas.cost import Cost
from nas.refinement.places import Place, shrunk
from nas.refinement.record import Tried
from nas.refinement.report import COLUMNS, Report, draw, write_csv
from nas.refinement.scaling import scaled
from nas.store import Candidate, Latency
from search_spaces import Architecture
from tests.nas.refinement.walks import SEED

PLACE = Place(kind="expansion", block=1)
SMALL, HALF = shrunk(SEED, PLACE, 128), scaled(SEED, 0.5)


def row(arch: Architecture, ms: float, **fields: object) -> Candidate:
    latency = Latency(p50_ms=ms, low_ms=0.9 * ms, high_ms=1.1 * ms)
    return Candidate(
        status="trained", arch=arch, seed=0, cost=Cost(params=1, macs=2, peak_activation_bytes=3), latency=latency, **fields,  # type: ignore[arg-type]  # fields by name
    )  # fmt: skip


@pytest.fixture
def report() -> Report:
    return Report(
        path=(
            row(SEED, 2.0, stage="refine", score=0.8, score_source="short"),
            row(SMALL, 1.5, stage="refine", score=0.75, score_source="short", parent_id=SEED.id),
        ),
        finals=(
            row(HALF, 1.4, stage="final", baseline="seed x0.5", score=0.6, test_score=0.5, score_source="full", epochs=3),
            row(SMALL, 1.5, stage="final", score=0.7, test_score=0.64, score_source="full", epochs=3),
            row(SMALL, 1.5, stage="final", score=0.72, test_score=0.66, score_source="tuned", epochs=3),
        ),
        tried=(Tried(step=1, parent_id=SEED.id, arch=SMALL, place=PLACE, size=128, ms=1.45, score=0.75, score_se=0.01),),
        held_out=1875, test_images=900, targets_ms=(1.5,), device="a device",
    )  # fmt: skip


def test_csv_has_the_path_then_the_full_trainings(report: Report, tmp_path: Path) -> None:
    write_csv(report, tmp_path / "path.csv")
    table = pd.read_csv(tmp_path / "path.csv")
    assert tuple(table.columns) == COLUMNS
    assert list(table["series"]) == ["path", "path", "scaled", "refined", "tuned"]
    assert list(table["step"].fillna(-1)) == [0, 1, -1, 1, 1]
    assert table["change"][1] == "expansion of a 256 -> 128"
    assert list(table["latency_p50_ms"]) == [2.0, 1.5, 1.4, 1.5, 1.5]


def test_scores_have_their_standard_errors(report: Report, tmp_path: Path) -> None:
    write_csv(report, tmp_path / "path.csv")
    table = pd.read_csv(tmp_path / "path.csv")
    # sqrt(0.75 · 0.25 / 1875) = 0.01 of the held-out images, sqrt(0.64 · 0.36 / 900) = 0.016 of the test images
    assert table["held_out_se"][1] == pytest.approx(0.01)
    assert table["test_se"][3] == pytest.approx(0.016)
    assert table["held_out_score"].isna().tolist() == [True, False, True, True, True]  # the seed was trained on those images
    assert table["test_score"].isna().tolist() == [True, True, False, False, False]


def test_figure_is_drawn(report: Report, tmp_path: Path) -> None:
    draw(report, tmp_path / "path.png")
    assert (tmp_path / "path.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["path.png"]
