"""Pictures of a preparation: a sequence over the reference, and the outline of the brain mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude, gaussian_laplace

from gliomask.acquisition.alignment import carry
from gliomask.acquisition.review import StudyReview
from gliomask.figures import PLANES
from gliomask.figures.case import Plane, display_window
from gliomask.metrics import Mask
from gliomask.report.pixels import embed, rim, to_png
from gliomask.volume import Grid, Volume, bounding_box

_PIXEL_MM = 0.5
_MARGIN_MM = 22.0  # around the brain, so that skull and scalp are seen
_OFF_CENTRE_MM = 12.0  # of the sagittal plane, as nothing but the falx lies in the middle
_SQUARE_MM = 20.0
_GREYS = 96
_EDGE_SIGMA_MM = 1.2
_EDGE_SHARE = 0.12  # of the pixels inside the head lie close enough to a strong edge to be drawn

BRAIN_COLOUR, ATLAS_COLOUR, EDGE_COLOUR = "#ffd84d", "#56d0f0", "#ff5a36"
_TINT = (0.62, 0.86, 1.0)
"""Shares of red, green and blue of the sequence's squares in a checkerboard; those of the reference are grey."""


@dataclass(frozen=True)
class Overlay:
    """One picture, as a data URL, and the plane that it shows."""

    plane: str
    source: str
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices through the brain of one study in the prepared space: rows and columns of a picture for each plane."""

    greys: Mapping[str, Sequence[NDArray[np.uint8]]]
    """By sequence; one picture for each of `PLANES`, from 0 to `_GREYS - 1`."""
    brain: Sequence[Mask]
    atlas: Sequence[Mask] = ()
    """The brain of the atlas; empty if the study was prepared without one."""

    def checkerboard(self, name: str, reference: str) -> list[Overlay]:
        """Return a sequence in every other square, tinted blue, and the reference in the others."""
        drawn = []
        for plane, (moving, fixed) in zip(
            PLANES, zip(self.greys[name], self.greys[reference], strict=True), strict=True
        ):
            rows, columns = (np.arange(size) // round(_SQUARE_MM / _PIXEL_MM) for size in moving.shape)
            ours = (rows[:, None] + columns[None]) % 2 == 0
            drawn.append(_picture(plane, np.where(ours, moving + np.uint8(_GREYS), fixed)))
        return drawn

    def edges(self, name: str, reference: str) -> list[Overlay]:
        """Return the reference with the edges of a sequence drawn on it."""
        return [
            _picture(plane, np.where(_edges(moving), _COLOURS.index(EDGE_COLOUR) + 2 * _GREYS, fixed))
            for plane, moving, fixed in zip(PLANES, self.greys[name], self.greys[reference], strict=True)
        ]

    def outlines(self, name: str, *, atlas: bool = False) -> list[Overlay]:
        """Return a sequence with the outline of the brain mask, and of the brain of the atlas, drawn on it."""
        drawn = []
        for number, plane in enumerate(PLANES):
            picture = self.greys[name][number].copy()
            if atlas and self.atlas:
                picture[_thick(rim(self.atlas[number]))] = _COLOURS.index(ATLAS_COLOUR) + 2 * _GREYS
            picture[_thick(rim(self.brain[number]))] = _COLOURS.index(BRAIN_COLOUR) + 2 * _GREYS
            drawn.append(_picture(plane, picture))
        return drawn


def cut_slices(review: StudyReview, atlas: Volume | None = None) -> Slices:
    """Return three slices of every image of a study, with skull, in the prepared space.

    The axial and the coronal one go through the centre of the brain, the sagittal one passes it by 12 mm.

    Args:
        review: The study.
        atlas: The brain of the atlas in the prepared space, if there is one.
    """
    grids = _plane_grids(review.brain)
    windows = {name: _window(review, name) for name in review.images}

    def cut(volume: Volume, plane: Plane, grid: Grid) -> NDArray[np.float32]:
        inside = Volume((volume.data != 0).astype(np.float32), volume.affine)
        return plane.cut(carry(inside, np.eye(4), grid).data[0], 0)

    return Slices(
        greys={
            name: [
                _to_grey(plane.cut(review.onto(grid, name).data[0], 0), windows[name])
                for plane, grid in zip(PLANES, grids, strict=True)
            ]
            for name in review.images
        },
        brain=[cut(review.brain, plane, grid) > 0.5 for plane, grid in zip(PLANES, grids, strict=True)],
        atlas=[cut(atlas, plane, grid) > 0.5 for plane, grid in zip(PLANES, grids, strict=True)] if atlas else (),
    )


def _plane_grids(brain: Volume) -> list[Grid]:
    """One slice for each of `PLANES`, in LPS order, in pixels of `_PIXEL_MM`, around the brain."""
    box = bounding_box(brain.data[0] != 0) or tuple(slice(0, n) for n in brain.data.shape[1:])
    ends = np.array([[span.start, span.stop - 1] for span in box])
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    places = brain.affine[:3, :3] @ corners + brain.affine[:3, 3:]
    low, high = places.min(axis=1) - _MARGIN_MM, places.max(axis=1) + _MARGIN_MM
    centre = (low + high) / 2 + [_OFF_CENTRE_MM, 0, 0]
    first = np.array([high[0], high[1], low[2]])  # LPS: the first voxel lies right, in front and below
    sizes = np.ceil((high - low) / _PIXEL_MM).astype(int)
    grids = []
    for plane in PLANES:
        affine = np.diag([-_PIXEL_MM, -_PIXEL_MM, _PIXEL_MM, 1.0])
        affine[:3, 3] = first
        affine[plane.axis, 3] = centre[plane.axis]
        x, y, z = (1 if axis == plane.axis else int(size) for axis, size in enumerate(sizes))
        grids.append(Grid((x, y, z), affine))
    return grids


def _window(review: StudyReview, name: str) -> tuple[float, float]:
    """The values inside the brain that are black and white, as fat outside it may be far brighter."""
    image = review.images[name]
    inside = review.brain_in(name).data[0] != 0
    low, high = display_window(np.where(inside, image.data[0], 0))
    return low, max(high, low + 1e-6)


def _to_grey(picture: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = window
    grey: NDArray[np.uint8] = np.rint(((picture - low) / (high - low)).clip(0, 1) * (_GREYS - 1)).astype(np.uint8)
    grey[picture == 0] = 0
    return grey


def _edges(grey: NDArray[np.uint8]) -> Mask:
    """Where the second derivative of the smoothed picture changes its sign and the first is large."""
    picture, sigma = grey.astype(np.float32), _EDGE_SIGMA_MM / _PIXEL_MM
    strength = gaussian_gradient_magnitude(picture, sigma)
    rising = gaussian_laplace(picture, sigma) > 0
    crossing = np.zeros(grey.shape, bool)
    crossing[:-1] |= rising[:-1] != rising[1:]
    crossing[:, :-1] |= rising[:, :-1] != rising[:, 1:]
    head = strength[picture > 0.05 * _GREYS]
    drawn: Mask = crossing & (strength > (np.quantile(head, 1 - 2 * _EDGE_SHARE) if len(head) else np.inf))
    return drawn


def _thick(line: Mask) -> Mask:
    """A line of two pixels."""
    wide: Mask = line.copy()
    wide[1:] |= line[:-1]
    wide[:, 1:] |= line[:, :-1]
    return wide


_COLOURS = (EDGE_COLOUR, BRAIN_COLOUR, ATLAS_COLOUR)
_LEVELS = [round(255 * level / (_GREYS - 1)) for level in range(_GREYS)]
_PALETTE = [
    *(bytes([level] * 3) for level in _LEVELS),
    *(bytes(round(level * share) for share in _TINT) for level in _LEVELS),
    *(bytes.fromhex(colour[1:]) for colour in _COLOURS),
]


def _picture(plane: Plane, indices: NDArray[Any]) -> Overlay:
    height, width = indices.shape
    return Overlay(plane.name, embed(to_png(indices.astype(np.uint8), _PALETTE), "image/png"), width, height)
