import itertools
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from latency.figures import add_legend, save_figure

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


@pytest.mark.parametrize(("add", "warns"), [(add_legend, False), (lambda axes: axes.legend(), True)])  # the second, matplotlib's default
def test_legend_on_a_stalled_computer_does_not_warn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add: Callable[[Axes], object], *, warns: bool
) -> None:
    figure, axes = plt.subplots()
    axes.plot([0, 1], [0, 1], label="a line")
    add(axes)
    monkeypatch.setattr(time, "perf_counter", itertools.count(step=2.0).__next__)  # each look at the clock is 2 s later
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save_figure(figure, tmp_path / "a.png")
    assert ["legend" in str(w.message) for w in caught[:1]] == [True] * warns
