"""How figures are written: file format, resolution, and light or dark colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliomask.errors import InputError, unknown_name

FORMATS = ("png", "svg", "pdf")
THEMES = ("light", "dark")

_DARK: Any = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), "#16191d"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), "#e6e6e6"),
    **dict.fromkeys(("axes.edgecolor", "legend.edgecolor"), "#9a9a9a"),
    "grid.color": "#9a9a9a",
}


@dataclass(frozen=True)
class FigureStyle:
    """The options of a figure's file.

    Raises:
        InputError: The format or the theme is unknown, or the resolution is not between 30 and 2400 dots per inch.
    """

    format: str = "png"
    """`png`, `svg` or `pdf`; for a file whose name has one of these endings the ending decides."""
    dpi: int = 110
    """Dots per inch, of PNG files and of images within SVG and PDF files. Journals usually ask for 300 or 600."""
    theme: str = "light"
    """`light`: dark text on white; `dark`: light text on dark grey, for slides."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown_name("format of figures", self.format, FORMATS)
        if self.theme not in THEMES:
            raise unknown_name("theme", self.theme, THEMES)
        if not 30 <= self.dpi <= 2400:
            raise InputError(f"a figure's resolution is 30 to 2400 dots per inch, not {self.dpi}.")

    @contextmanager
    def colours(self) -> Iterator[None]:
        """Within this context, figures are drawn in the colours of the theme."""
        from matplotlib import rc_context

        with rc_context(_DARK if self.theme == "dark" else None):
            yield

    def format_of(self, path: Path) -> str:
        """Return the format that a file's ending names.

        Raises:
            InputError: It names none.
        """
        ending = path.suffix.lower().removeprefix(".")
        if ending not in FORMATS:
            raise InputError(f"{path}: figures are written as {', '.join(FORMATS)}; choose one of these endings.")
        return ending


def text_colour() -> str:
    """Return the colour of text in the current theme."""
    from matplotlib import rcParams

    return str(rcParams["text.color"])


def point_colour() -> str:
    """Return the blue of points, lighter on the dark theme."""
    from matplotlib import rcParams

    return "#56b4e9" if rcParams["figure.facecolor"] == _DARK["figure.facecolor"] else "#0072b2"
