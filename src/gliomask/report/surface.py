"""The surface of a mask as triangles, coarse enough to be embedded in a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gliomask.metrics import Mask
from gliomask.volume import Volume, bounding_box, grid_at_spacing, reorient, resample

_LEVEL = 0.5
_SMOOTH_VOXELS = 0.7
# The corners of a cell, and the pairs of corners that its twelve edges connect.
_CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
_EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 1]


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles in millimetres, RAS+; seen from outside, their corners are in counterclockwise order."""

    points: NDArray[np.float64]
    """`(n, 3)`"""
    triangles: NDArray[np.int64]
    """`(m, 3)`, indices into `points`."""


def find_surface(mask: Mask, affine: NDArray[np.float64], edge_mm: float, most_triangles: int = 20_000) -> Surface:
    """Return the closed surface of a mask, slightly smoothed; without points if the mask is empty.

    The mask is averaged onto cubes of about `edge_mm`, or larger ones until there are at most `most_triangles`, and
    smoothed. The surface is the level of one half, by naive surface nets: one point in each cell that the surface
    crosses, and two triangles across each cell edge that it cuts. Details smaller than a cube may be lost.

    Source: Gibson, Constrained elastic surface nets, MICCAI 1998.
    """
    if not mask.any():
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    while True:
        coarse = _averaged(mask, affine, edge_mm)
        found = _net(gaussian_filter(np.pad(coarse.data[0], 2), _SMOOTH_VOXELS))
        if len(found.triangles) <= most_triangles:
            break
        edge_mm *= 1.25
    points = (found.points - 2) @ coarse.affine[:3, :3].T + coarse.affine[:3, 3]
    return Surface(points, found.triangles)


def _averaged(mask: Mask, affine: NDArray[np.float64], edge_mm: float) -> Volume:
    """Return the fraction of each cube that is in the mask, for the mask's bounding box, in RAS order."""
    volume = reorient(Volume(mask[None].astype(np.float32), affine), "RAS")
    box = bounding_box(volume.data[0] > 0)
    assert box is not None, "the caller has handled the empty mask"
    corner = np.eye(4)
    corner[:3, 3] = [span.start for span in box]
    inner = Volume(volume.data[:, box[0], box[1], box[2]], volume.affine @ corner)
    margin = [max(1, round(edge_mm / mm)) for mm in inner.spacing_mm]
    padded = np.pad(inner.data[0], [(n, n) for n in margin])
    shift = np.eye(4)
    shift[:3, 3] = [-n for n in margin]
    wide = Volume(padded[None], inner.affine @ shift)
    spread = [max(0.0, edge_mm / mm - 1) / 2 for mm in wide.spacing_mm]
    blurred = Volume(gaussian_filter(wide.data[0], spread)[None], wide.affine)
    return resample(blurred, grid_at_spacing(wide.grid, (edge_mm, edge_mm, edge_mm)))


def _net(field: NDArray[np.floating]) -> Surface:
    """Return the surface net of a field that is 0 at its borders, in index coordinates."""
    inside = field > _LEVEL
    shape = np.array(field.shape) - 1
    corners = np.stack(
        [field[tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))] for corner in _CORNERS]
    )
    count = (corners > _LEVEL).sum(axis=0)
    cells = np.argwhere((count > 0) & (count < 8))
    values = corners[:, cells[:, 0], cells[:, 1], cells[:, 2]]
    total, crossings = np.zeros((len(cells), 3)), np.zeros(len(cells))
    for a, b in _EDGES:
        cut = (values[a] > _LEVEL) != (values[b] > _LEVEL)
        share = np.where(cut, (_LEVEL - values[a]) / np.where(cut, values[b] - values[a], 1), 0)
        total += np.where(cut[:, None], _CORNERS[a] + share[:, None] * (_CORNERS[b] - _CORNERS[a]), 0)
        crossings += cut
    number = np.full(shape, -1)
    number[tuple(cells.T)] = np.arange(len(cells))
    squares = []
    for axis in range(3):
        first, second = ((1, 2), (2, 0), (0, 1))[axis]
        ahead = np.roll(inside, -1, axis)
        for outwards in (True, False):
            places = np.argwhere((inside & ~ahead) if outwards else (~inside & ahead))
            around = []
            for step in ((0, 0), (1, 0), (1, 1), (0, 1)):
                cell = places.copy()
                cell[:, first] -= 1 - step[0]
                cell[:, second] -= 1 - step[1]
                around.append(number[tuple(cell.T)])
            squares.append(np.column_stack(around if outwards else around[::-1]))
    square = np.concatenate(squares)
    triangles = np.concatenate([square[:, (0, 1, 2)], square[:, (0, 2, 3)]])
    return Surface(cells + total / crossings[:, None], triangles)
