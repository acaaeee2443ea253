"""Figures as files: whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["add_legend", "save_figure"]


def add_legend(axes: "Axes") -> None:
    """Adds a small legend where it hides least, without a warning when finding the place takes a busy computer over a second."""
    axes.legend(fontsize=8, loc="best")  # matplotlib warns when this is its default, not when it is asked for


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes ``path`` as a PNG, all of it or nothing, and closes the figure whatever happens."""
    import matplotlib.pyplot as plt

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        plt.close(figure)
        temporary.unlink(missing_ok=True)
