"""How large a region is, and where: from a mask and its affine alone."""

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
from gliomask.volume import Volume, reorient

_SAMPLED_MM = 4.0
_EIGHT = np.ones((3, 3), bool)
_DIRECTIONS = (("left to right", "LR"), ("back to front", "PA"), ("bottom to top", "IS"))
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Axial:
    """The longest diameter that lies in an axial slice, and across it."""

    longest_mm: float
    perpendicular_mm: float
    z_mm: float
    """Where the slice is, at its middle."""


@dataclass(frozen=True)
class Extent:
    """The smallest box of whole voxels around a region, along one of the grid's axes."""

    name: str
    """`left to right`, `back to front` or `bottom to top`."""
    first: int
    """The first voxel, counted from 0 in the file's own order; the last one is in it too."""
    last: int
    of: int
    """How many voxels the file has along this axis."""
    low_mm: float
    """The outer face of the box that comes first in the direction of the name, in the header's millimetres (RAS+)."""
    high_mm: float
    length_mm: float


@dataclass(frozen=True)
class Measures:
    """One region's numbers; an empty region has 0 or nothing everywhere."""

    volume_ml: float
    lesions: int
    """Pieces that hang together across faces, edges or corners."""
    largest_ml: float
    """The largest one's volume."""
    axial: Axial | None
    longest_mm: float
    """In any direction, within one lesion."""
    left: float | None
    """The share to the patient's left of the brain's mid-plane; None for an empty region."""
    extent: tuple[Extent, ...]


@dataclass(frozen=True)
class MidPlane:
    """The plane between the halves of a brain: `x = at + back * y + up * z` in millimetres (RAS+)."""

    at: float
    back: float
    up: float


def measure(mask: Mask, affine: NDArray[np.float64], plane: MidPlane) -> Measures:
    """Return what there is to say of one region.

    Args:
        mask: `(X, Y, Z)`, boolean.
        affine: To millimetres, RAS+; may be oblique and anisotropic.
        plane: What `mid_plane` found in the brain.
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


def voxel_volume_ml(affine: NDArray[np.float64]) -> float:
    """Return the volume of a voxel."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000


def axial_diameters(mask: Mask, affine: NDArray[np.float64]) -> Axial | None:
    """Return the longest diameter within one piece of one axial slice and the longest chord at right angles to it.

    A diameter runs between the middles of voxels' outer edges: of a row of voxels it is their number times their size.
    The chord is one of the piece's convex outline, in the same slice. Slices are those of the grid, across the
    axis that is nearest to the body's; the first of several equal ones counts. None for an empty mask.
    """
    volume = reorient(Volume(mask[None], affine), "LPS")
    flat = np.linalg.qr(volume.affine[:3, :2])[1].T  # from the slice's indices to millimetres within it
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
    """Return the longest distance within one lesion, in mm, in any direction; 0 for an empty mask.

    Between the middles of voxels' outer faces, so that a row of voxels is as long as their number times their size.
    """
    pieces = components(mask)
    longest = 0.0
    for number, box in enumerate(pieces.boxes, start=1):
        sides = [span.stop - span.start for span in box]
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * sides @ affine[:3, :3].T
        if float(np.linalg.norm(corners, axis=1).max()) <= longest:
            continue  # its box's diagonal is no longer
        longest = max(longest, _farthest(_outline(pieces.labels[box] == number) @ affine[:3, :3].T)[2])
    return longest


def mid_plane(brain: Mask, affine: NDArray[np.float64]) -> MidPlane:
    """Return the plane in which a brain is most nearly its own mirror image; it may be tilted, as heads are.

    Sought from the plane across the left-right axis through the brain's centre, on a sample of its voxels every 4 mm. A
    brain of no voxel has the plane through the grid's middle.
    """
    steps = np.array([max(1, round(_SAMPLED_MM / mm)) for mm in Volume(brain[None], affine).spacing_mm])
    sample = brain[tuple(slice(step // 2, None, step) for step in steps)]
    # Points off the lattice: on it, mirroring lattice onto lattice would look better than it is.
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

    def unlike(tried: NDArray[np.float64]) -> float:
        normal = np.array([1.0, -tried[1], -tried[2]])
        beyond = (points - centre) @ normal - 10 * tried[0]
        mirrored = points - 2 * np.outer(beyond, normal) / (normal @ normal)
        index = to_index[:3, :3] @ mirrored.T + to_index[:3, 3:]
        return -float(ndimage.map_coordinates(field, index, order=1).mean())

    start = np.array([[0.0, 0, 0], [0.4, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])  # 4 mm, 6 degrees
    best = minimize(
        unlike, start[0], method="Nelder-Mead", options={"initial_simplex": start, "xatol": 1e-3, "fatol": 1e-7}
    )
    offset, back, up = map(float, best.x)
    return MidPlane(float(centre[0]) + 10 * offset - back * float(centre[1]) - up * float(centre[2]), back, up)


def left_share(mask: Mask, affine: NDArray[np.float64], plane: MidPlane) -> float | None:
    """Return how much of a mask lies to the patient's left of a plane, 0 to 1; what lies on it counts half.

    None for an empty mask. Left is what the header calls left.
    """
    if not mask.any():
        return None
    x, y, z = (np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]).T
    beyond = x - (plane.at + plane.back * y + plane.up * z)  # x grows to the right in RAS+
    on_it = np.abs(beyond) < 1e-6
    return float((np.count_nonzero((beyond < 0) & ~on_it) + np.count_nonzero(on_it) / 2) / len(x))


def extents(mask: Mask, affine: NDArray[np.float64]) -> tuple[Extent, ...]:
    """Return the box around a mask along each axis: left to right, back to front, bottom to top; () for an empty one.

    On an oblique grid the millimetres are those at the middle of the box's other sides.
    """
    if not mask.any():
        return ()
    volume = reorient(Volume(mask[None], affine), "RAS")
    spans = []
    for axis in range(3):
        where = np.flatnonzero(volume.data[0].any(axis=tuple(other for other in range(3) if other != axis)))
        spans.append((int(where[0]), int(where[-1])))
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
    """Return the volume in mL of all voxels that are more probable than each threshold."""
    return tuple(float(np.count_nonzero(probabilities > threshold)) * voxel_ml for threshold in thresholds)


def _outline(mask: Mask) -> Points:
    """The middles of the outer faces of a mask's voxels (in 2-D: of their edges), by index."""
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
    """The two of the points that lie farthest apart, and how far."""
    corners = ConvexHull(points).vertices if len(points) > points.shape[1] + 1 else np.arange(len(points))
    distances = cdist(points[corners], points[corners])
    first, second = divmod(int(distances.argmax()), len(corners))
    return int(corners[first]), int(corners[second]), float(distances[first, second])


def _longest_across(points: Points, start: Points, end: Points) -> float:
    """The longest chord of the convex outline of points `(n, 2)` at right angles to its diameter from start to end.

    Along the diameter the outline's width is linear between corners, so the longest chord goes through one.
    """
    along = (end - start) / np.linalg.norm(end - start)
    turned = (points - start) @ np.column_stack([along, (-along[1], along[0])])
    corners = turned[ConvexHull(turned).vertices]
    corners = corners[np.argsort(corners[:, 0], kind="stable")]
    # start and end lie at height 0 and are corners: the diameter cuts the outline into an upper and a lower part
    upper, lower = (corners[side * corners[:, 1] >= -1e-9] for side in (1, -1))
    widths = np.interp(corners[:, 0], *upper.T) - np.interp(corners[:, 0], *lower.T)
    return float(widths.max())
