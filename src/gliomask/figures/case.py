"""A figure of a case: three planes through the tumour, with truth and prediction beside the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliomask.volume import Box, Grid, Volume, bounding_box, reorient

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Masks = Mapping[str, NDArray[np.bool_]]

# From Okabe and Ito's palette for colour-blind readers; the colours also differ in lightness. Regions are painted in
# this order, so that the innermost of nested regions stays visible.
REGION_COLOURS = {"WT": "#56b4e9", "TC": "#d55e00", "ET": "#f0e442", "RC": "#7b2ff2"}
REGION_NAMES = {
    "WT": "oedema and infiltration (WT outside TC)",
    "TC": "necrotic or non-enhancing core (TC outside ET)",
    "ET": "enhancing tumour (ET)",
    "RC": "resection cavity (RC)",
}
FOOTER = "Research use only, not a medical device."

_BACKGROUND = "black"
_TEXT = "#d8d8d8"
_MARGIN_MM = 14.0  # room for the letters beside the brain
_COLUMN_INCHES = 3.0
_FILL_OPACITY = 0.35
_SAMPLES = 200_000  # voxels are enough for percentiles


@dataclass(frozen=True)
class CaseView:
    """The content of a case figure; all arrays are `(X, Y, Z)` on one grid."""

    title: str
    affine: NDArray[np.float64]
    images: Mapping[str, NDArray[Any]]
    """One column per sequence, by its name; truth and predictions are drawn on the first one."""
    truth: Masks | None = None
    """The nested regions by name, or None for no column of the truth."""
    predictions: Mapping[str, Masks] = field(default_factory=dict)
    """One column per prediction, by its heading."""


@dataclass(frozen=True)
class Plane:
    """A plane through a volume in LPS order, and the anatomical directions at the edges of its slices."""

    name: str
    axis: int
    left: str
    right: str
    top: str
    bottom: str

    def cut(self, volume: NDArray[Any], index: int) -> NDArray[Any]:
        """Return a slice as rows and columns of a picture, top row first."""
        picture: NDArray[Any] = np.take(volume, index, axis=self.axis).T
        return picture if self.top == "A" else picture[::-1]

    def size_mm(self, grid: Grid, box: Box) -> tuple[float, float]:
        """Return the width and the height of the box in this plane, in mm."""
        lengths = [(span.stop - span.start) * mm for span, mm in zip(box, grid.spacing_mm, strict=True)]
        del lengths[self.axis]
        return lengths[0], lengths[1]


# Radiological convention: seen from the patient's feet, front and left; the patient's right is on the picture's left.
PLANES = (
    Plane("axial", 2, "R", "L", "A", "P"),
    Plane("coronal", 1, "R", "L", "S", "I"),
    Plane("sagittal", 0, "A", "P", "S", "I"),
)


def case_figure(view: CaseView) -> Figure:
    """Return a figure of a case: one row each for the axial, coronal and sagittal slice with the most tumour.

    The columns are the images, followed by the truth and the predictions drawn on the first image. The slices are those
    with the most tumour in the truth, or in a prediction if there is no truth or it is empty; without any tumour they
    pass through the middle of the brain. The patient's right is on the picture's left, whatever the voxel order. The
    position of a slice is given in mm along the axes of the affine.
    """
    from matplotlib.figure import Figure

    oriented = {name: to_lps(image, view.affine) for name, image in view.images.items()}
    first = next(iter(oriented.values()))
    overlays = {
        heading: {region: to_lps(mask, view.affine).data[0] for region, mask in masks.items()}
        for heading, masks in (*([("truth", view.truth)] if view.truth is not None else []), *view.predictions.items())
    }
    columns = [(name, image.data[0], None) for name, image in oriented.items()]
    columns += [(heading, first.data[0], masks) for heading, masks in overlays.items()]  # type: ignore[misc]
    box = brain_box(first)
    chosen, has_tumour = _choose_slices(list(overlays.values()), box)
    heights = [plane.size_mm(first.grid, box)[1] for plane in PLANES]
    width = max(plane.size_mm(first.grid, box)[0] for plane in PLANES)
    inches = _COLUMN_INCHES * sum(heights) / width
    figure = Figure(figsize=(max(2, len(columns)) * _COLUMN_INCHES, inches + 1.3), facecolor=_BACKGROUND)
    top, bottom = 1 - 0.6 / (inches + 1.3), 0.7 / (inches + 1.3)
    grid = figure.add_gridspec(
        3, len(columns), left=0, right=1, top=top, bottom=bottom, wspace=0.01, hspace=0.01, height_ratios=heights
    )
    for row, plane in enumerate(PLANES):
        for column, (heading, image, masks) in enumerate(columns):
            axes = figure.add_subplot(grid[row, column])
            _draw_panel(axes, plane, first.grid, box, chosen[plane.axis], image, masks)
            if row == 0:
                axes.set_title(heading, color=_TEXT, fontsize=11, pad=5)
            if column == 0:
                _annotate(axes, plane, first.grid, box, chosen[plane.axis])
    _write_margins(figure, view.title, has_tumour, overlays)
    return figure


def to_lps(array: NDArray[Any], affine: NDArray[np.float64]) -> Volume:
    """Return an array `(X, Y, Z)` as a volume of one channel in LPS order, in which it is drawn."""
    return reorient(Volume(array[None], affine), "LPS")


def brain_box(volume: Volume, margin_mm: float = _MARGIN_MM) -> Box:
    """Return the box of the non-zero voxels of the first channel, with a margin; the whole grid if all are 0."""
    x, y, z = volume.data.shape[1:]
    box = bounding_box(volume.data[0] != 0, [round(margin_mm / mm) for mm in volume.spacing_mm])
    return box or (slice(0, x), slice(0, y), slice(0, z))


def display_window(image: NDArray[Any]) -> tuple[float, float]:
    """Return the values that are shown as black and as white.

    Black is 0, or the 1st percentile of the non-zero voxels if that is negative; white is their 99.7th percentile.
    Percentiles are of about 200,000 voxels. An image that is 0 everywhere has the window from 0 to 1.
    """
    voxels = image[image != 0]
    if not len(voxels):
        return 0.0, 1.0
    low, high = np.percentile(voxels[:: max(1, len(voxels) // _SAMPLES)], (1, 99.7))
    return min(0.0, float(low)), float(high)


def _choose_slices(overlays: list[Masks], box: Box) -> tuple[tuple[int, ...], bool]:
    """Return the slice of each axis with the most tumour in the first overlay that has any, and whether one has."""
    for masks in overlays:
        tumour = np.logical_or.reduce(list(masks.values()))
        if tumour.any():
            others = ((1, 2), (0, 2), (0, 1))
            return tuple(int(np.count_nonzero(tumour, axis=axes).argmax()) for axes in others), True
    return tuple((span.start + span.stop) // 2 for span in box), False


def _draw_panel(
    axes: Axes, plane: Plane, grid: Grid, box: Box, index: int, image: NDArray[Any], masks: Masks | None
) -> None:
    from matplotlib.colors import to_rgb

    crop = tuple(slice(None) if axis == plane.axis else span for axis, span in enumerate(box))
    low, high = display_window(image)
    width, height = plane.size_mm(grid, box)
    extent = (0, width, 0, height)
    picture = plane.cut(image[crop], index)
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
    axes.set_axis_off()
    for region, colour in REGION_COLOURS.items():
        if masks is None or region not in masks:
            continue
        mask = plane.cut(masks[region][crop], index)
        if not mask.any():
            continue
        inner = [masks[name] for name in _inside(region) if name in masks]
        shell = mask & ~np.logical_or.reduce([plane.cut(m[crop], index) for m in inner]) if inner else mask
        layer = np.zeros((*mask.shape, 4))
        layer[shell] = (*to_rgb(colour), _FILL_OPACITY)
        axes.imshow(layer, extent=extent, interpolation="nearest")
        # A margin of background, so that a mask is also outlined at the border, and in a slice of a single row.
        across, down = (np.arange(-1, n + 1) + 0.5 for n in mask.shape[::-1])
        x = across * width / mask.shape[1]
        y = height - down * height / mask.shape[0]
        axes.contour(x, y, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=1.1)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)


def _inside(region: str) -> tuple[str, ...]:
    return {"WT": ("TC",), "TC": ("ET",)}.get(region, ())


def _annotate(axes: Axes, plane: Plane, grid: Grid, box: Box, index: int) -> None:
    """Write the anatomical directions, the position of the slice, and a scale bar."""
    width, height = plane.size_mm(grid, box)
    edges = (
        (0.01, 0.5, plane.left, "left", "center"),
        (0.99, 0.5, plane.right, "right", "center"),
        (0.5, 0.99, plane.top, "center", "top"),
        (0.5, 0.01, plane.bottom, "center", "bottom"),
    )
    for x, y, letter, across, up in edges:
        axes.text(x, y, letter, color=_TEXT, fontsize=11, weight="bold", ha=across, va=up, transform=axes.transAxes)
    corner = np.array([span.start for span in box], dtype=float)
    corner[plane.axis] = index
    place = (grid.affine @ [*corner, 1])[(0, 1, 2)[plane.axis]]
    axes.text(
        0.01, 0.985, f"{plane.name}\n{'xyz'[plane.axis]} = {place:.0f} mm",
        color=_TEXT, fontsize=8, ha="left", va="top", transform=axes.transAxes,
    )  # fmt: skip
    bar = next(
        (mm for mm in (50, 20, 10) if mm <= 0.4 * width), 5
    )  # short enough not to reach the letter in the middle
    axes.plot([0.03 * width, 0.03 * width + bar], [0.045 * height] * 2, color=_TEXT, linewidth=2, solid_capstyle="butt")
    axes.text(0.03 * width, 0.06 * height, f"{bar} mm", color=_TEXT, fontsize=8, ha="left", va="bottom")


def _write_margins(figure: Figure, title: str, has_tumour: bool, overlays: Mapping[str, Masks]) -> None:
    from matplotlib.patches import Patch

    inches = figure.get_size_inches()[1]
    figure.text(0.01, 1 - 0.08 / inches, title, color="white", fontsize=12, ha="left", va="top", parse_math=False)
    if overlays and not has_tumour:
        figure.text(0.99, 1 - 0.08 / inches, "no tumour", color="white", fontsize=12, ha="right", va="top")
    shown = [region for region in REGION_COLOURS if any(region in masks for masks in overlays.values())]
    if shown:
        handles = [Patch(facecolor=REGION_COLOURS[region], label=REGION_NAMES[region]) for region in shown]
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.2 / inches), ncols=2, fontsize=8,
            frameon=False, labelcolor=_TEXT, handlelength=1.2, columnspacing=1.2, borderaxespad=0.3,
        )  # fmt: skip
    figure.text(
        0.01, 0.06 / inches, f"R, L: the patient's. {FOOTER}", color="#8a8a8a", fontsize=7, ha="left", va="bottom"
    )
