"""A grid in millimetres, smooth noise that does not depend on the voxel size, and a few solid shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Point = tuple[float, float, float]
Place = tuple[Field, Field, Field]

# The BraTS grid, and the position of the centre of the head on it, in voxels of 1 mm.
FULL_SHAPE = (240, 240, 155)
_CENTRE = (119.5, 124.5, 74.5)

# Everything is computed in this box around the centre (mm, towards left, back, top); beyond it is background.
_BOX = ((-79.0, 79.0), (-99.0, 99.0), (-72.0, 80.0))

# Standard deviation of a cubic B-spline field with unit normal coefficients, averaged over a cell: (151/315) ** 1.5.
_SPLINE_STD = 0.332


@dataclass(frozen=True)
class Frame:
    """A grid over the head: its shape, voxel size, the part that can hold brain, and that part's axes in mm.

    `axes` are three 1-D arrays measured from the centre of the head: x towards the left, y towards the back, z towards
    the top. A position in the head has the same coordinates at every voxel size.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    box: tuple[slice, slice, slice]
    axes: Place

    @property
    def affine(self) -> NDArray[np.float64]:
        """The affine to world millimetres (RAS+): that of BraTS at 1 mm, else with the same corner of the volume."""
        h = self.spacing_mm
        half = (h - 1) / 2
        return np.array([[-h, 0, 0, -half], [0, -h, 0, 239 - half], [0, 0, h, half], [0, 0, 0, 1]])

    @property
    def places(self) -> Place:
        """The x, y and z of every voxel of the box, each of the box's shape; read-only."""
        x, y, z = np.broadcast_arrays(*np.ix_(*self.axes))
        return x, y, z


def make_frame(size: int) -> Frame:
    """Return the frame of `size` voxels along X and Y, and as many along Z as cover BraTS's 155 mm."""
    h = FULL_SHAPE[0] / size
    shape = (size, size, round(FULL_SHAPE[2] / h))
    boxes, axes = [], []
    for length, centre, (low, high) in zip(shape, _CENTRE, _BOX, strict=True):
        position = (np.arange(length) * h + (h - 1) / 2 - centre).astype(np.float32)
        inside = np.flatnonzero((position >= low) & (position <= high))
        boxes.append(slice(int(inside[0]), int(inside[-1]) + 1))
        axes.append(position[boxes[-1]])
    return Frame(shape, h, (boxes[0], boxes[1], boxes[2]), (axes[0], axes[1], axes[2]))


def noise(rng: np.random.Generator, frame: Frame, scale_mm: float) -> Field:
    """Return smooth noise over the box, mean 0 and standard deviation 1, with maxima about `scale_mm` apart.

    A cubic B-spline whose coefficients are drawn on a lattice fixed in the head: the same generator gives the same
    field at every voxel size.
    """
    weights = [_spline_weights(axis, low, high, scale_mm) for axis, (low, high) in zip(frame.axes, _BOX, strict=True)]
    lattice = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32) / np.float32(_SPLINE_STD)
    field = np.tensordot(weights[0], lattice, axes=(1, 0))
    field = np.matmul(weights[1], field)
    smooth: Field = np.matmul(field, weights[2].T)
    return smooth


def ellipsoid(x: Field, y: Field, z: Field, centre: Point, radii: Point) -> Field:
    """Return the depth in mm below the surface of an ellipsoid: > 0 inside, exact to first order at the surface."""
    p = [(axis - np.float32(c)) / np.float32(r) for axis, c, r in zip((x, y, z), centre, radii, strict=True)]
    k0 = np.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])
    q = [component / np.float32(r) for component, r in zip(p, radii, strict=True)]
    k1 = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2])
    depth: Field = k0 * (1 - k0) / (k1 + np.float32(1e-6))
    return depth


def tube(x: Field, y: Field, z: Field, path: Sequence[tuple[float, float, float, float]]) -> Field:
    """Return the depth in mm below the surface of a tube along `path`, points `(x, y, z, radius)`; > 0 inside."""
    depth: Field | None = None
    for start, end in pairwise(path):
        a, b = np.array(start, np.float32), np.array(end, np.float32)
        along = b[:3] - a[:3]
        px, py, pz = x - a[0], y - a[1], z - a[2]
        t = np.clip((px * along[0] + py * along[1] + pz * along[2]) / np.float32(along @ along), 0, 1)
        px, py, pz = px - t * along[0], py - t * along[1], pz - t * along[2]
        piece: Field = a[3] + t * (b[3] - a[3]) - np.sqrt(px * px + py * py + pz * pz)
        depth = piece if depth is None else join(depth, piece, 2.0)
    assert depth is not None
    return depth


def join(a: Field, b: Field, blend_mm: float) -> Field:
    """Return the depth below the union of two solids, the crease between them filled over about `blend_mm`."""
    overlap = np.maximum(np.float32(blend_mm) - np.abs(a - b), 0)
    joined: Field = np.maximum(a, b) + overlap * overlap / np.float32(4 * blend_mm)
    return joined


def share(depth: Field, width_mm: float) -> Field:
    """Return the share of a voxel `width_mm` wide that lies inside a solid, 0 to 1, from the depth of its centre."""
    inside: Field = np.clip(depth / np.float32(width_mm) + np.float32(0.5), 0, 1)
    return inside


def _spline_weights(axis: Field, low: float, high: float, step: float) -> Field:
    """Return the weights `(len(axis), knots)` of the uniform cubic B-spline with `step` mm between its knots."""
    knots = int(np.ceil((high - low) / step)) + 4
    distance = np.abs((axis[:, None] - np.float32(low)) / np.float32(step) + 1 - np.arange(knots, dtype=np.float32))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights: Field = np.where(distance < 1, near, far).astype(np.float32)
    return weights
