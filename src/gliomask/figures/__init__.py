"""Pictures: slices with overlays, curves, scores. They take arrays and rows and know no file but the one written."""

from __future__ import annotations

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

__all__ = [
    "AGREEMENT_COLOURS",
    "FOOTER",
    "PLANES",
    "REGION_COLOURS",
    "REGION_NAMES",
    "CaseView",
    "Exhibit",
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
        _print(figure, partial)


def figure_png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    content = BytesIO()
    _print(figure, content)
    return content.getvalue()


def _print(figure: Figure, where: Path | BytesIO) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_figure(where, dpi=110, facecolor=figure.get_facecolor(), format="png")
