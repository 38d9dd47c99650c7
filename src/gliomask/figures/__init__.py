"""Figures: slices with overlays, curves and scores, drawn from arrays and table rows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.errors import visible
from gliomask.extras import missing_extra
from gliomask.figures.case import FOOTER, PLANES, REGION_COLOURS, REGION_NAMES, CaseView, case_figure
from gliomask.figures.curves import curves_figure
from gliomask.figures.gallery import AGREEMENT_COLOURS, GalleryCase, gallery_figure
from gliomask.figures.run_comparison import run_comparison_curves_figure, run_comparison_scores_figure
from gliomask.figures.score_comparison import score_comparison_figure
from gliomask.figures.scores import scores_figure
from gliomask.figures.style import FORMATS, THEMES, FigureStyle
from gliomask.figures.volumes import bland_altman_figure
from gliomask.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCREEN_DPI = 72  # the resolution at which notebooks show figures

__all__ = [
    "AGREEMENT_COLOURS",
    "FOOTER",
    "FORMATS",
    "PLANES",
    "REGION_COLOURS",
    "REGION_NAMES",
    "SCREEN_DPI",
    "THEMES",
    "CaseView",
    "FigureStyle",
    "GalleryCase",
    "Picture",
    "bland_altman_figure",
    "case_figure",
    "curves_figure",
    "figure_png",
    "gallery_figure",
    "require_matplotlib",
    "run_comparison_curves_figure",
    "run_comparison_scores_figure",
    "save_figure",
    "score_comparison_figure",
    "scores_figure",
]


@dataclass(frozen=True)
class Picture:
    """A finished figure: a notebook displays it as the result of a cell, and `save` writes it to a file."""

    figure: Figure

    def save(self, path: Path | str) -> None:
        """Write a PNG, SVG or PDF file, whole or not at all.

        Raises:
            InputError: As for `save_figure`.
        """
        save_figure(self.figure, Path(path))

    def _repr_png_(self) -> bytes:
        return figure_png(self.figure, dpi=SCREEN_DPI)


def require_matplotlib() -> None:
    """Raise an error if figures cannot be drawn, before any work is done.

    Raises:
        InputError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise missing_extra("pictures need matplotlib", "pictures")


_PLAIN = FigureStyle()


def save_figure(figure: Figure, path: Path, style: FigureStyle = _PLAIN) -> None:
    """Write a figure as a file in the format that its ending names, whole or not at all.

    Raises:
        InputError: The ending names no format of figures, or the file cannot be written.
    """
    kind = style.format_of(path)
    with replacing(path) as partial:
        _print(figure, partial, style.dpi, kind)


def figure_png(figure: Figure, *, dpi: int = _PLAIN.dpi) -> bytes:
    """Return a figure as the content of a PNG file with a resolution of `dpi` dots per inch."""
    content = BytesIO()
    _print(figure, content, dpi, "png")
    return content.getvalue()


def _print(figure: Figure, where: Path | BytesIO, dpi: int, kind: str) -> None:
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):  # ids and file names are shown as they are: no formulas, no control characters
        text.set_parse_math(False)
        text.set_text("\n".join(map(visible, text.get_text().split("\n"))))
    # The same figure gives the same bytes: no date, and names of elements that do not change. Journals want fonts that
    # are embedded as TrueType (42) in PDF files.
    metadata = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with rc_context({"svg.hashsalt": "gliomask", "pdf.fonttype": 42}) if kind != "png" else nullcontext():
        figure.savefig(where, dpi=dpi, facecolor=figure.get_facecolor(), format=kind, metadata=metadata)
