"""A figure as a PNG: empty sheets, bytes and files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.errors import InputError
from gliomask.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150


def new_figure(width_in: float, height_in: float, background: str) -> Figure:
    """Return an empty figure of this size that is drawn by Agg and belongs to no window and no list."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as a PNG of 150 dots per inch; the same figure gives the same bytes."""
    memory = BytesIO()
    # without the name and version of the library that drew it
    figure.savefig(
        memory, format="png", dpi=DOTS_PER_INCH, facecolor=figure.get_facecolor(), metadata={"Software": None}
    )
    return memory.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG, whole or not at all.

    Raises:
        InputError: The name does not end in .png, or the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: pictures are written as PNG. Let the name end in .png.")
    write_bytes(path, png_bytes(figure))
