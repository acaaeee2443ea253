"""The figure of a distillation: what each lesson gained over plain training, for every student."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latency.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nas.distillation.report import Summary

__all__ = ["FEWEST", "draw_gains", "gains_figure"]

COLUMNS = 4  # panels side by side
LONGEST = 44  # characters of a label's line
LEAST_IN, PANEL_IN, CHARACTER_IN, LINE_IN = 5.0, 3.2, 0.08, 0.17  # the figure's and a panel's width; a character and line of 9 points
SMALL_IN = 0.068  # a character of 8 points
FEWEST = 3  # pairs that a claim takes: two that are close by chance have a narrow interval, and others one that hides the rest
LEGEND = "dots: n seeds; diamond: their mean; line: from 3 seeds on its 95 % interval, each for itself; red: 0 is outside"


def draw_gains(summed: "Sequence[Summary]", names: Sequence[str], path: Path, *, caption: str = "") -> None:
    """Writes ``gains_figure`` as a PNG."""
    save_figure(gains_figure(summed, names, caption=caption), path)


def gains_figure(summed: "Sequence[Summary]", names: Sequence[str], *, caption: str = "") -> "Figure":
    """A panel for each student, all with the same scale and lines: one for each lesson, under its name, with its paired differences, their
    mean, its 95 % interval and their number. All of them are on test, or all on valid; ``caption`` is written below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = {name: _wrapped(name, LONGEST) for name in names}
    groups: dict[str, list[tuple[Summary, int]]] = {}
    for s, name in zip(summed, names, strict=True):
        groups.setdefault(s.student.id, []).append((s, list(labels).index(name)))
    columns = min(COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    longest = max(len(line) for label in labels.values() for line in label.splitlines())
    width = max(LEAST_IN, PANEL_IN * columns + CHARACTER_IN * longest)
    on = {"test": "test", "valid": "validation"}[summed[0].gain.on if summed[0].gain else "test"]
    below = [f"points of {on} accuracy over plain training with the same seed", *([caption] if caption else [])]
    under, over = ("\n".join(_wrapped(text, int(width / SMALL_IN)) for text in texts) for texts in (below, [LEGEND]))
    panel = 0.7 + sum(0.12 + LINE_IN * (label.count("\n") + 1) for label in labels.values())
    height = panel * rows + LINE_IN * (under.count("\n") + over.count("\n") + 4)
    figure, grid = plt.subplots(rows, columns, figsize=(width, height), dpi=130, squeeze=False, sharey=True, layout="constrained")
    for axes in grid.flat[len(groups) :]:
        axes.set_visible(False)
    panels = list(zip(grid.flat, groups.values(), strict=False))
    for axes, group in panels:
        _draw_panel(axes, group)
    low, high = min(axes.get_xlim()[0] for axes, _ in panels), max(axes.get_xlim()[1] for axes, _ in panels)
    for axes, _ in panels:
        axes.set_xlim(low, high + 0.16 * (high - low))  # one scale for all, with room for n
    grid[0, 0].set_yticks(range(len(labels)), list(labels.values()))
    grid[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    figure.supxlabel(under, fontsize=8)
    figure.suptitle(over, fontsize=8)
    return figure


def _wrapped(text: str, characters: int) -> str:
    return "\n".join(textwrap.wrap(text, characters))


def _draw_panel(axes: "Axes", group: "Sequence[tuple[Summary, int]]") -> None:
    """One student's summaries, each with the line that it is drawn on."""
    axes.axvline(0, color="0.5", linewidth=1, zorder=0)
    for s, y in group:
        assert s.gain is not None, "only lessons with a gain are drawn"
        axes.scatter([100 * d for d in s.differences], [y] * len(s.differences), s=12, color="0.6", zorder=2)
        if s.gain.pairs >= FEWEST:
            axes.plot([100 * s.gain.low, 100 * s.gain.high], [y, y], color="C0", linewidth=1.6, zorder=1)
        axes.plot([100 * s.gain.mean], [y], marker="D", color="C3" if s.gain.is_clear else "C0", markersize=5, zorder=3)
        axes.text(0.985, y, f"n={s.gain.pairs}", transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=7, color="0.3")
    student = group[0][0].student
    axes.set_title(student.baseline or f"found {student.id}", fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(visible=True, axis="x", alpha=0.25)
