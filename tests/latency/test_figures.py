from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from latency.figures import save_figure

plt.switch_backend("agg")


def test_figure_is_a_png_and_is_closed(tmp_path: Path) -> None:
    figure, _ = plt.subplots()
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert not plt.fignum_exists(figure.number)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_figure_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    figure, _ = plt.subplots()
    (tmp_path / "a.png").mkdir()  # stands in the way of the file
    with pytest.raises(OSError, match="directory"):
        save_figure(figure, tmp_path / "a.png")
    assert not plt.fignum_exists(figure.number)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
