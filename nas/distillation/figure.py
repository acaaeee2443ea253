"""The figure of a distillation: what each lesson gained over plain training, for every student."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latency.figures import save_figure

if TYPE_CHECKING:
    from nas.distillation.report import Summary

__all__ = ["draw_gains"]


def draw_gains(summed: "Sequence[Summary]", names: Sequence[str], path: Path) -> None:
    """Draws a panel for each student: a line for each lesson, under its name, with its paired differences, their mean and its 95 %
    interval; all of them on test or all on valid."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    students = list(dict.fromkeys(s.student.id for s in summed))
    groups = [[(s, n) for s, n in zip(summed, names, strict=True) if s.student.id == student] for student in students]
    height = 1.6 + 0.42 * max(map(len, groups))
    figure, grid = plt.subplots(1, len(groups), figsize=(1.6 + 3.9 * len(groups), height), dpi=130, squeeze=False)
    for axes, group in zip(grid[0], groups, strict=True):
        axes.axvline(0, color="0.5", linewidth=1, zorder=0)
        for y, (s, _) in enumerate(group):
            assert s.gain is not None, "only lessons with a gain are drawn"
            axes.scatter([100 * d for d in s.differences], [y] * len(s.differences), s=12, color="0.6", zorder=2)
            if s.gain.pairs > 1:
                axes.plot([100 * s.gain.low, 100 * s.gain.high], [y, y], color="C0", linewidth=1.6, zorder=1)
            axes.plot([100 * s.gain.mean], [y], marker="D", color="C3" if s.gain.is_clear else "C0", markersize=5, zorder=3)
        axes.set_yticks(range(len(group)), [f"{name} (n={s.gain.pairs})" for s, name in group if s.gain])
        axes.set_ylim(len(group) - 0.5, -0.5)
        student = group[0][0].student
        axes.set_title(student.baseline or f"found {student.id}", fontsize=9)
        axes.grid(visible=True, axis="x", alpha=0.25)
    on = {"test": "test", "valid": "validation"}[summed[0].gain.on if summed[0].gain else "test"]
    figure.supxlabel(f"points of {on} accuracy over plain training with the same seed", fontsize=9)
    figure.suptitle("dots: seeds; diamond: their mean, red where 0 is outside its 95 % interval, the line", fontsize=8)
    figure.tight_layout()
    save_figure(figure, path)
