"""Figures of what the stages leave."""

from pathlib import Path

from nas.calibration import Bin, Calibration
from nas.distillation.lesson import LessonConfig
from nas.stages.report import Entry, calibrations, draw_calibration
from nas.store import Candidate, Latency
from search_spaces import Architecture, Block, Head

BINS = (*(Bin(images=0, confidence=0.0, accuracy=0.0),) * 14, Bin(images=5, confidence=0.98, accuracy=0.8))
TESTED = Calibration(ece=0.05, nll=0.9, brier=0.4, bins=BINS)


def entry(series: str, out_ch: int, ms: float, *, taught: bool = False, tested: Calibration | None = TESTED) -> Entry:
    arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=out_ch),), head=Head(outputs=2))
    row = Candidate(
        stage="distill" if taught else "final", status="trained", arch=arch, seed=0, baseline="net x1" if series == "baseline" else "",
        test_calibration=tested, latency=Latency(p50_ms=ms, low_ms=ms, high_ms=ms), key="aa" if taught else "",
        lesson=LessonConfig(loss="kd") if taught else None,
    )  # fmt: skip
    return Entry(series=series, row=row)


def test_every_tested_network_has_a_diagram_found_ones_by_latency_first() -> None:
    plain, taught = entry("baseline", 1, 1.0), entry("baseline", 1, 1.0, taught=True)
    slow, fast = entry("found", 2, 3.0), entry("found", 3, 2.0)
    untested, bare = entry("refined", 4, 1.0, tested=None), entry("refined", 5, 1.0, tested=Calibration(ece=0.1, nll=1.0, brier=0.5))
    assert list(calibrations([plain, taught, slow, fast, untested, bare])) == [
        f"found\n{fast.row.name}", f"found\n{slow.row.name}", f"net x1\n{plain.row.name}", f"net x1\n{taught.row.name}",
    ]  # fmt: skip


def test_diagrams_are_one_figure(tmp_path: Path) -> None:
    draw_calibration([entry("found", 1, 1.0), entry("refined", 2, 1.0)], tmp_path)
    assert (tmp_path / "final-reliability.png").read_bytes().startswith(b"\x89PNG")


def test_networks_without_figures_leave_no_diagram(tmp_path: Path) -> None:
    draw_calibration([entry("found", 1, 1.0, tested=None)], tmp_path)
    assert list(tmp_path.iterdir()) == []
