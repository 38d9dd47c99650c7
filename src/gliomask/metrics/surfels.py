"""Surface elements (surfels) between the voxels: one for each cube of eight neighbouring voxel centres.

A cube with some but not all corners in the mask is cut by the surface. The corners on the smaller side (either side if
both have four) form groups that are connected along the edges of the cube. Each group is separated from the other
corners by the polygon through the midpoints of the edges that leave the group. A polygon that is not planar has several
triangulations; the one with the largest area on a cube of edge 1 is used, for every spacing. These rules reproduce all
254 areas by which the surface-distance package, and therefore BraTS from 2023, weights a surface.

Source: Lorensen & Cline 1987 (marching cubes); Nikolov et al. 2018, arXiv:1809.04430, for the weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gliomask.metrics.masks import Mask, Spacing

_Point = tuple[float, float, float]
_Triangle = tuple[_Point, _Point, _Point]

# The position of a corner in this tuple is its bit in the code.
_CORNERS: tuple[_Point, ...] = tuple((float(x), float(y), float(z)) for x, y, z in itertools.product((0, 1), repeat=3))


def surfel_codes(mask: Mask) -> NDArray[np.uint8]:
    """Return which corners of each cube are in the mask, one bit per corner; no voxel outside the array is.

    For a mask `(X, Y, Z)` the codes have shape `(X + 1, Y + 1, Z + 1)`: 0 for cubes outside the mask, 255 for cubes
    inside, and other values where the surface passes.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    x, y, z = (size + 1 for size in mask.shape)
    codes = np.zeros((x, y, z), np.uint8)
    for bit, (i, j, k) in enumerate(itertools.product((0, 1), repeat=3)):
        codes |= padded[i : x + i, j : y + j, k : z + k] << np.uint8(bit)
    return codes


@lru_cache(maxsize=64)
def surfel_areas(spacing_mm: Spacing) -> NDArray[np.float64]:
    """Return the area in mm² of the surface in a cube, for each of the 256 codes; 0 for the codes 0 and 255."""
    x, y, z = spacing_mm
    areas = np.zeros(256)
    for code in range(1, 255):
        areas[code] = sum(math.hypot(a * y * z, b * x * z, c * x * y) for a, b, c in _normals(code))
    areas.flags.writeable = False  # the cached array is shared
    return areas


@lru_cache(maxsize=256)
def _normals(code: int) -> tuple[_Point, ...]:
    """Return the triangles of a code, each as its normal, whose length is the area on the unit cube."""
    inside = frozenset(corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1)
    smaller = inside if len(inside) <= 4 else frozenset(_CORNERS) - inside
    return tuple(normal for group in _groups(smaller) for normal in _cut(group))


def _groups(corners: frozenset[_Point]) -> Iterator[frozenset[_Point]]:
    left = set(corners)
    while left:
        group, edge = set(), {left.pop()}
        while edge:
            group |= edge
            edge = {other for corner in edge for other in _next_to(corner) if other in left}
            left -= edge
        yield frozenset(group)


@lru_cache(maxsize=256)
def _cut(group: frozenset[_Point]) -> tuple[_Point, ...]:
    """Return the triangles of the polygon that separates a connected group of corners from the other corners."""
    middles = [_middle(corner, other) for corner in sorted(group) for other in _next_to(corner) if other not in group]
    polygon = _polygon(middles)
    ways = [tuple(map(_normal, triangles)) for triangles in _triangulations(polygon)]
    return max(ways, key=lambda normals: round(sum(math.hypot(*normal) for normal in normals), 9))


def _polygon(middles: Sequence[_Point]) -> list[_Point]:
    """Return the midpoints of the cut edges in the order of the polygon: neighbours lie on one face of the cube."""
    polygon = [middles[0]]
    while len(polygon) < len(middles):
        polygon.append(next(p for p in middles if p not in polygon and _share_a_face(p, polygon[-1])))
    return polygon


def _triangulations(polygon: Sequence[_Point]) -> Iterator[list[_Triangle]]:
    """Yield every triangulation of a polygon; each has one triangle at the side from the last to the first corner."""
    if len(polygon) < 3:
        yield []
        return
    for third in range(1, len(polygon) - 1):
        for before in _triangulations(polygon[: third + 1]):
            for after in _triangulations(polygon[third:]):
                yield [*before, (polygon[0], polygon[third], polygon[-1]), *after]


def _normal(triangle: _Triangle) -> _Point:
    (ax, ay, az), (bx, by, bz) = (
        (q[0] - triangle[0][0], q[1] - triangle[0][1], q[2] - triangle[0][2]) for q in triangle[1:]
    )
    return (ay * bz - az * by) / 2, (az * bx - ax * bz) / 2, (ax * by - ay * bx) / 2


def _next_to(corner: _Point) -> Iterable[_Point]:
    x, y, z = corner
    return (1 - x, y, z), (x, 1 - y, z), (x, y, 1 - z)


def _middle(first: _Point, second: _Point) -> _Point:
    return (first[0] + second[0]) / 2, (first[1] + second[1]) / 2, (first[2] + second[2]) / 2


def _share_a_face(first: _Point, second: _Point) -> bool:
    return any(a == b and a in (0, 1) for a, b in zip(first, second, strict=True))
