"""A gallery of the worst cases, each shown at its largest mistake with truth and prediction outlined."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliomask.figures.case import FOOTER, PLANES, Plane, brain_box, display_window, to_lps
from gliomask.volume import Box, Grid, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and orange of Okabe and Ito's palette, distinguishable for colour-blind readers on grey and on black.
TRUTH_COLOUR, PREDICTION_COLOUR = "#56b4e9", "#e69f00"
AGREEMENT_COLOURS = {"agreed": "#009e73", "missed": TRUTH_COLOUR, "false": PREDICTION_COLOUR}
"""The colours of voxels in both masks, in the truth only, and in the prediction only."""

_COLUMNS = 2
_PANEL_INCHES = 2.3
_CAPTION_INCHES = 0.65
_CAPTION_LETTERS = 88
_TEXT = "#d8d8d8"
_RING_MM = 7.0
_MARGIN_MM = 30.0


@dataclass(frozen=True, eq=False)
class GalleryCase:
    """One case of the gallery; all arrays are `(X, Y, Z)` on one grid."""

    title: str
    caption: str
    """The description of the mistakes."""
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    place: tuple[int, int, int]
    """The voxel through which the slices pass."""
    affine: NDArray[np.float64]
    image: NDArray[Any] | None = None


def gallery_figure(cases: Sequence[GalleryCase], title: str) -> Figure:
    """Return a figure of cases, two per row, each in an axial, coronal and sagittal slice through its largest mistake.

    The truth is outlined in blue, the prediction in orange, and the mistake is marked by a ring. The slices are cropped
    to the surroundings of both masks. A case without an image shows the masks only, with the truth filled. The
    patient's right is on the picture's left. Without any case, the figure contains a message.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = max(1, -(-len(cases) // _COLUMNS))
    columns = min(_COLUMNS, max(1, len(cases)))
    size = (3 * _PANEL_INCHES * columns + 0.2 * (columns - 1), rows * (_PANEL_INCHES + _CAPTION_INCHES) + 0.75)
    figure = Figure(figsize=size, facecolor="black")
    figure.text(0.01, 1 - 0.1 / size[1], title, color="white", fontsize=12, va="top", parse_math=False)
    for number, case in enumerate(cases):
        row, column = divmod(number, _COLUMNS)
        left = column * (3 * _PANEL_INCHES + 0.2) / size[0]
        top = size[1] - 0.4 - row * (_PANEL_INCHES + _CAPTION_INCHES)
        _draw_case(figure, case, left, top, size)
    if not cases:
        figure.text(0.5, 0.5, "no case has a mistake", color=_TEXT, ha="center", va="center")
    handles = [
        Line2D([], [], color=TRUTH_COLOUR, label="truth"),
        Line2D([], [], color=PREDICTION_COLOUR, label="prediction"),
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 0.14 / size[1]), ncols=2, fontsize=8, frameon=False,
        labelcolor=_TEXT, borderaxespad=0.2,
    )  # fmt: skip
    figure.text(0.01, 0.05 / size[1], f"R, L: the patient's. {FOOTER}", color="#8a8a8a", fontsize=7, va="bottom")
    return figure


def _draw_case(figure: Figure, case: GalleryCase, left: float, top: float, size: tuple[float, float]) -> None:
    """Draw two lines of text and three slices below; `left` is a fraction of the width, `top` is in inches."""
    caption = "\n".join(textwrap.wrap(case.caption, _CAPTION_LETTERS)[:2])
    figure.text(left + 0.008, top / size[1], case.title, color="white", fontsize=9, va="top", parse_math=False)
    figure.text(left + 0.008, (top - 0.18) / size[1], caption, color=_TEXT, fontsize=8, va="top", parse_math=False)
    truth, prediction = (to_lps(mask, case.affine) for mask in (case.truth, case.prediction))
    image = None if case.image is None else to_lps(case.image, case.affine)
    box = brain_box(Volume(truth.data | prediction.data, truth.affine), _MARGIN_MM)
    place = _place_in(truth.grid, case)
    for column, plane in enumerate(PLANES):
        axes = figure.add_axes(
            (
                left + column * _PANEL_INCHES / size[0],
                (top - _CAPTION_INCHES + 0.12 - _PANEL_INCHES) / size[1],
                0.985 * _PANEL_INCHES / size[0],
                _PANEL_INCHES / size[1],
            )
        )
        _draw_slice(axes, plane, truth, prediction, image, box, place)


def _draw_slice(
    axes: Axes, plane: Plane, truth: Volume, prediction: Volume, image: Volume | None, box: Box, place: Sequence[int]
) -> None:
    crop = tuple(slice(None) if axis == plane.axis else span for axis, span in enumerate(box))
    index = place[plane.axis]
    width, height = plane.size_mm(truth.grid, box)
    extent = (0, width, 0, height)
    true, predicted = (plane.cut(side.data[0][crop], index) for side in (truth, prediction))
    if image is None:
        shade = np.where(true, 0.35, 0.1)
        axes.imshow(shade, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    else:
        low, high = display_window(image.data)
        picture = plane.cut(image.data[0][crop], index)
        axes.imshow(picture, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
    for mask, colour in ((true, TRUTH_COLOUR), (predicted, PREDICTION_COLOUR)):
        if mask.any():
            across, down = (np.arange(-1, n + 1) + 0.5 for n in mask.shape[::-1])
            x, y = across * width / mask.shape[1], height - down * height / mask.shape[0]
            axes.contour(x, y, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=1.0)
    _ring(axes, plane, truth.grid, box, place, height)
    for x, letter, side in ((0.01, plane.left, "left"), (0.99, plane.right, "right")):
        axes.text(x, 0.5, letter, color=_TEXT, fontsize=8, ha=side, va="center", transform=axes.transAxes)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    axes.set_anchor("N")


def _ring(axes: Axes, plane: Plane, grid: Grid, box: Box, place: Sequence[int], height: float) -> None:
    from matplotlib.patches import Circle

    inside = [(index - span.start + 0.5) * mm for index, span, mm in zip(place, box, grid.spacing_mm, strict=True)]
    del inside[plane.axis]
    x, y = inside
    middle = (x, height - y if plane.top == "A" else y)
    axes.add_patch(Circle(middle, _RING_MM, fill=False, edgecolor="white", linewidth=0.8, linestyle=(0, (3, 2))))


def _place_in(grid: Grid, case: GalleryCase) -> list[int]:
    """Return the indices of the case's voxel on a grid with another axis order."""
    world = case.affine @ np.array([*case.place, 1.0])
    found: list[int] = np.rint(np.linalg.solve(grid.affine, world)[:3]).astype(int).tolist()
    return found
