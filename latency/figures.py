"""Figures as files: whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_figure"]


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
