"""Pictures: slices with overlays, curves, scores. They take arrays and rows and know no file but the one written."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.errors import InputError
from gliomask.figures.case import FOOTER, PLANES, REGION_COLOURS, REGION_NAMES, CaseView, case_figure
from gliomask.figures.comparison import comparison_curves_figure, comparison_scores_figure
from gliomask.figures.contest import contest_figure
from gliomask.figures.curves import curves_figure
from gliomask.figures.gallery import AGREEMENT_COLOURS, Exhibit, gallery_figure
from gliomask.figures.scores import scores_figure
from gliomask.figures.volumes import bland_altman_figure
from gliomask.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE_DPI = 110
SCREEN_DPI = 72  # as notebooks show figures

__all__ = [
    "AGREEMENT_COLOURS",
    "FOOTER",
    "PLANES",
    "REGION_COLOURS",
    "REGION_NAMES",
    "SCREEN_DPI",
    "CaseView",
    "Exhibit",
    "Picture",
    "bland_altman_figure",
    "case_figure",
    "comparison_curves_figure",
    "comparison_scores_figure",
    "contest_figure",
    "curves_figure",
    "figure_png",
    "gallery_figure",
    "require_matplotlib",
    "save_figure",
    "scores_figure",
]


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn: a notebook shows it where it is a cell's last word, and `save` writes it."""

    figure: Figure

    def save(self, path: Path | str) -> None:
        """Write a PNG, whole or not at all.

        Raises:
            InputError: The place cannot be written to.
        """
        save_figure(self.figure, Path(path))

    def _repr_png_(self) -> bytes:
        return figure_png(self.figure, dpi=SCREEN_DPI)


def require_matplotlib() -> None:
    """Refuse to go on where nothing can be drawn, before any work is done.

    Raises:
        InputError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise InputError("pictures need matplotlib: pip install 'gliomask[pictures]'.")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        InputError: The place cannot be written to.
    """
    with replacing(path) as partial:
        _print(figure, partial, FILE_DPI)


def figure_png(figure: Figure, *, dpi: int = FILE_DPI) -> bytes:
    """Return a figure as the content of a PNG file, of so many dots an inch."""
    content = BytesIO()
    _print(figure, content, dpi)
    return content.getvalue()


def _print(figure: Figure, where: Path | BytesIO, dpi: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_figure(where, dpi=dpi, facecolor=figure.get_facecolor(), format="png")
