"""Measure the size and position of a region from a mask and its affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from gliomask.metrics import Mask, components
from gliomask.volume import Volume, bounding_box, reorient, voxel_volume_ml

_SAMPLED_MM = 4.0
_EIGHT = np.ones((3, 3), bool)
_DIRECTIONS = (("left to right", "LR"), ("back to front", "PA"), ("bottom to top", "IS"))
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Axial:
    """The longest diameter in an axial slice, and the longest perpendicular chord in the same slice."""

    longest_mm: float
    perpendicular_mm: float
    z_mm: float
    """The z coordinate of the slice at its centre."""


@dataclass(frozen=True)
class Extent:
    """The extent of the bounding box of a region along one axis of the grid."""

    name: str
    """`left to right`, `back to front` or `bottom to top`."""
    first: int
    """The index of the first voxel, counted from 0 in the voxel order of the file."""
    last: int
    """The index of the last voxel, inclusive."""
    of: int
    """The number of voxels of the file along this axis."""
    low_mm: float
    """The outer face of the box at the end that `name` mentions first, in millimetres (RAS+)."""
    high_mm: float
    """The opposite outer face."""
    length_mm: float


@dataclass(frozen=True)
class Measures:
    """The measures of one region; those of an empty region are 0, None or empty."""

    volume_ml: float
    lesions: int
    """The number of 26-connected components."""
    largest_ml: float
    """The volume of the largest component."""
    axial: Axial | None
    longest_mm: float
    """The longest diameter in any direction, within one component."""
    left: float | None
    """The fraction on the patient's left of the mid-plane of the brain; None for an empty region."""
    extent: tuple[Extent, ...]


@dataclass(frozen=True)
class MidPlane:
    """The mid-sagittal plane of a brain: `x = at + back * y + up * z` in millimetres (RAS+)."""

    at: float
    back: float
    up: float


def measure(mask: Mask, affine: NDArray[np.float64], plane: MidPlane) -> Measures:
    """Return the measures of one region.

    Args:
        mask: Boolean, `(X, Y, Z)`.
        affine: From voxel indices to millimetres, RAS+; may be oblique and anisotropic.
        plane: The result of `mid_plane` for the brain.
    """
    voxel_ml = voxel_volume_ml(affine)
    if not mask.any():
        return Measures(0.0, 0, 0.0, None, 0.0, None, ())
    pieces = components(mask)
    return Measures(
        volume_ml=float(np.count_nonzero(mask)) * voxel_ml,
        lesions=pieces.count,
        largest_ml=float(pieces.sizes[1:].max()) * voxel_ml,
        axial=axial_diameters(mask, affine),
        longest_mm=longest_diameter(mask, affine),
        left=left_share(mask, affine, plane),
        extent=extents(mask, affine),
    )


def axial_diameters(mask: Mask, affine: NDArray[np.float64]) -> Axial | None:
    """Return the longest diameter within one component of one axial slice, and the longest chord perpendicular to it.

    A diameter runs between the midpoints of outer voxel edges, so that a row of voxels is as long as their number times
    their size. The chord is the longest one of the component's convex outline in the same slice. Slices are those of
    the grid, perpendicular to the axis closest to inferior-superior; the first of several equal ones is used. None for
    an empty mask.
    """
    volume = reorient(Volume(mask[None], affine), "LPS")
    flat = np.linalg.qr(volume.affine[:3, :2])[1].T  # from indices within the slice to millimetres
    best: tuple[float, float, int] = (0.0, 0.0, 0)
    for index in np.flatnonzero(volume.data[0].any(axis=(0, 1))):
        labels, count = ndimage.label(volume.data[0][:, :, index], _EIGHT)
        for number in range(1, count + 1):
            outline = _outline(labels == number) @ flat
            first, second, length = _farthest(outline)
            if length > best[0] + 1e-9:
                best = (length, _longest_across(outline, outline[first], outline[second]), int(index))
    if not best[0]:
        return None
    centre = (np.array(volume.data.shape[1:], dtype=float) - 1) / 2
    centre[2] = best[2]
    return Axial(best[0], best[1], float((volume.affine @ [*centre, 1.0])[2]))


def longest_diameter(mask: Mask, affine: NDArray[np.float64]) -> float:
    """Return the longest distance within one component, in mm, in any direction; 0 for an empty mask.

    It is measured between the centres of outer voxel faces, so that a row of voxels is as long as their number times
    their size.
    """
    pieces = components(mask)
    longest = 0.0
    for number, box in enumerate(pieces.boxes, start=1):
        sides = [span.stop - span.start for span in box]
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * sides @ affine[:3, :3].T
        if float(np.linalg.norm(corners, axis=1).max()) <= longest:
            continue  # the diagonal of its bounding box is not longer
        longest = max(longest, _farthest(_outline(pieces.labels[box] == number) @ affine[:3, :3].T)[2])
    return longest


def mid_plane(brain: Mask, affine: NDArray[np.float64]) -> MidPlane:
    """Return the plane about which a brain is most symmetrical; it may be tilted.

    The search starts at the plane perpendicular to the left-right axis through the centre of the brain, and uses a
    sample of its voxels every 4 mm. For a mask without a voxel the plane through the centre of the grid is returned.
    """
    steps = np.array([max(1, round(_SAMPLED_MM / mm)) for mm in Volume(brain[None], affine).spacing_mm])
    sample = brain[tuple(slice(step // 2, None, step) for step in steps)]
    # The sample points lie off the lattice: planes that mirror lattice points onto lattice points would be favoured
    # otherwise.
    scattered = np.argwhere(np.ones(sample.shape, bool)) + np.random.default_rng(0).uniform(-0.5, 0.5, (sample.size, 3))
    places = scattered * steps + steps // 2
    nearest = np.clip(np.rint(places).astype(int), 0, np.array(brain.shape) - 1)
    places = places[brain[tuple(nearest.T)]]
    if not len(places):
        return MidPlane(float((affine @ [*(np.array(brain.shape) - 1) / 2, 1.0])[0]), 0.0, 0.0)
    points = places @ affine[:3, :3].T + affine[:3, 3]
    to_mm = affine @ np.diag([*steps, 1.0])
    to_mm[:3, 3] = (affine @ [*(steps // 2), 1.0])[:3]
    centre = points.mean(axis=0)
    field = ndimage.gaussian_filter(sample.astype(np.float32), 1.0)
    to_index = np.linalg.inv(to_mm)

    def asymmetry(tried: NDArray[np.float64]) -> float:
        normal = np.array([1.0, -tried[1], -tried[2]])
        beyond = (points - centre) @ normal - 10 * tried[0]
        mirrored = points - 2 * np.outer(beyond, normal) / (normal @ normal)
        index = to_index[:3, :3] @ mirrored.T + to_index[:3, 3:]
        return -float(ndimage.map_coordinates(field, index, order=1).mean())

    start = np.array([[0.0, 0, 0], [0.4, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])  # 4 mm, 6 degrees
    best = minimize(
        asymmetry, start[0], method="Nelder-Mead", options={"initial_simplex": start, "xatol": 1e-3, "fatol": 1e-7}
    )
    offset, back, up = map(float, best.x)
    return MidPlane(float(centre[0]) + 10 * offset - back * float(centre[1]) - up * float(centre[2]), back, up)


def left_share(mask: Mask, affine: NDArray[np.float64], plane: MidPlane) -> float | None:
    """Return the fraction of a mask on the patient's left of a plane, 0 to 1; voxels on the plane count half.

    None for an empty mask. Left is taken from the affine.
    """
    if not mask.any():
        return None
    x, y, z = (np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]).T
    beyond = x - (plane.at + plane.back * y + plane.up * z)  # x grows to the right in RAS+
    on_it = np.abs(beyond) < 1e-6
    return float((np.count_nonzero((beyond < 0) & ~on_it) + np.count_nonzero(on_it) / 2) / len(x))


def extents(mask: Mask, affine: NDArray[np.float64]) -> tuple[Extent, ...]:
    """Return the extent of a mask along each axis: left to right, back to front, bottom to top; () for an empty mask.

    On an oblique grid the coordinates are those at the centres of the faces of the bounding box.
    """
    volume = reorient(Volume(mask[None], affine), "RAS")
    box = bounding_box(volume.data[0])
    if box is None:
        return ()
    spans = [(span.start, span.stop - 1) for span in box]
    stored = Volume(mask[None], affine).grid.axes
    found = []
    for axis, (name, letters) in enumerate(_DIRECTIONS):
        low, high = spans[axis]
        faces = []
        for edge in (low - 0.5, high + 0.5):
            place = [(first + last) / 2 for first, last in spans]
            place[axis] = edge
            faces.append(float((volume.affine @ [*place, 1.0])[axis]))
        own = next(number for number, letter in enumerate(stored) if letter in letters)
        count = mask.shape[own]
        first, last = (low, high) if stored[own] == letters[1] else (count - 1 - high, count - 1 - low)
        length = (high - low + 1) * volume.spacing_mm[axis]
        found.append(Extent(name, first, last, count, faces[0], faces[1], length))
    return tuple(found)


def volumes_above(
    probabilities: NDArray[np.floating], thresholds: Sequence[float], voxel_ml: float
) -> tuple[float, ...]:
    """Return the volume in mL of the voxels whose probability exceeds each threshold."""
    return tuple(float(np.count_nonzero(probabilities > threshold)) * voxel_ml for threshold in thresholds)


def _outline(mask: Mask) -> Points:
    """Return the centres of the outer faces of a mask's voxels (in 2-D: of their edges), in index coordinates."""
    padded = np.pad(mask, 1)
    middles = []
    for axis in range(mask.ndim):
        for step in (-1, 1):
            outside = padded & ~np.roll(padded, -step, axis)
            shift = np.zeros(mask.ndim)
            shift[axis] = step / 2
            middles.append(np.argwhere(outside) - 1 + shift)
    return np.concatenate(middles)


def _farthest(points: Points) -> tuple[int, int, float]:
    """Return the indices of the two points that are farthest apart, and their distance."""
    corners = ConvexHull(points).vertices if len(points) > points.shape[1] + 1 else np.arange(len(points))
    distances = cdist(points[corners], points[corners])
    first, second = divmod(int(distances.argmax()), len(corners))
    return int(corners[first]), int(corners[second]), float(distances[first, second])


def _longest_across(points: Points, start: Points, end: Points) -> float:
    """Return the longest chord of the outline of points `(n, 2)` perpendicular to the diameter from start to end.

    Along the diameter the width of the outline is linear between corners, so the longest chord passes through a corner.
    """
    along = (end - start) / np.linalg.norm(end - start)
    turned = (points - start) @ np.column_stack([along, (-along[1], along[0])])
    corners = turned[ConvexHull(turned).vertices]
    corners = corners[np.argsort(corners[:, 0], kind="stable")]
    # Start and end are corners at height 0, so the diameter splits the outline into an upper and a lower part.
    upper, lower = (corners[side * corners[:, 1] >= -1e-9] for side in (1, -1))
    widths = np.interp(corners[:, 0], *upper.T) - np.interp(corners[:, 0], *lower.T)
    return float(widths.max())
