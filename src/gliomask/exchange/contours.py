"""Closed contours around the voxels of a slice, in the form that systems for radiotherapy read."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.extras import missing_extra

Ring = NDArray[np.float64]
"""The corners of a closed contour, `(N, 2)`; the first is not repeated at the end."""


def outline(mask: NDArray[np.bool_]) -> list[Ring]:
    """Return the contours of a mask in one slice, each a closed line that encloses exactly the voxels of one piece.

    They run halfway between the centres of voxels inside and outside, so that filling them gives back the mask. Voxels
    that touch only at a corner belong to different pieces.

    A hole is joined to the contour around it by a channel without width ("keyhole"), which DICOM describes for contours
    of type CLOSED_PLANAR. Readers that combine the contours of a slice by OR, by XOR or by the rule of even and odd
    crossings all leave the hole open; separate contours for holes would be filled by the first kind. Channels run
    halfway between rows of voxels and therefore through the centre of none.

    Args:
        mask: `(X, Y)`.

    Returns:
        Corners in voxel indices (x, y), where whole numbers are centres of voxels.

    Raises:
        InputError: contourpy is not installed.
    """
    contourpy = require_contourpy()
    if not mask.any():
        return []
    columns, rows = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[columns[0] : columns[-1] + 1, rows[0] : rows[-1] + 1]
    values = np.pad(box.repeat(2, axis=0).repeat(2, axis=1), 1).T.astype(np.float64)
    generator = contourpy.contour_generator(z=values, fill_type=contourpy.FillType.OuterOffset)
    rings = []
    for points, offsets in zip(*generator.filled(0.5, 2.0), strict=True):
        corners = points / 2 + [columns[0] - 0.75, rows[0] - 0.75]
        outer, *holes = (_corners_only(corners[a : b - 1]) for a, b in pairwise(offsets))
        rings.append(_join(outer, holes))
    return rings


def require_contourpy() -> Any:
    """Return contourpy.

    Raises:
        InputError: It is not installed.
    """
    try:
        import contourpy
    except ImportError as error:
        raise missing_extra("RT Structure Sets need contourpy", "dicom") from error
    return contourpy


def _corners_only(ring: Ring) -> Ring:
    """The ring without the points on its straight parts."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    corners: Ring = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return corners


def _join(outer: Ring, holes: list[Ring]) -> Ring:
    """One closed line around a piece and its holes.

    Of each hole the rightmost of its topmost corners is joined to what lies to the right of it. If the holes are taken
    from the top down, and from right to left at one height, that always is a part of the line which is there already.
    """
    starts = [int(np.lexsort((hole[:, 0], hole[:, 1]))[-1]) for hole in holes]
    turned = [np.roll(hole, -start, axis=0) for hole, start in zip(holes, starts, strict=True)]
    for hole in sorted(turned, key=lambda ring: (-ring[0, 1], -ring[0, 0])):
        outer = _with_hole(outer, hole)
    return outer


def _with_hole(outer: Ring, hole: Ring) -> Ring:
    """The outer ring with a detour: to the first corner of the hole, around the hole, and back on the same way."""
    x, y = hole[0]
    start, end = outer, np.roll(outer, -1, axis=0)
    crosses = (np.minimum(start[:, 1], end[:, 1]) <= y) & (y <= np.maximum(start[:, 1], end[:, 1]))
    crosses &= start[:, 1] != end[:, 1]
    at = np.full(len(outer), np.inf)
    share = (y - start[crosses, 1]) / (end[crosses, 1] - start[crosses, 1])
    at[crosses] = start[crosses, 0] + share * (end[crosses, 0] - start[crosses, 0])
    at[at <= x] = np.inf
    edge = int(np.argmin(at))
    reached = [at[edge], y]
    line: Ring = np.vstack([outer[: edge + 1], reached, hole, hole[0], reached, outer[edge + 1 :]])
    differs = (line != np.roll(line, 1, axis=0)).any(axis=1)
    joined: Ring = line[differs]
    return joined
