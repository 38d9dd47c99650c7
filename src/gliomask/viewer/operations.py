"""Operations that correct a mask: each changes one region, and the others as far as the regions stay nested.

A label map is always nested, because each of its numbers belongs to a region and to all regions around it. Adding a
voxel to a region therefore adds it to the outer ones, and removing it removes it from the inner ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomask.errors import InputError, unknown_name
from gliomask.labels import LabelConvention
from gliomask.metrics import Mask

Labels = NDArray[np.uint8]

# From the innermost outwards: the region, and the tissue of a voxel that is in it but in no inner region.
_CHAIN = (("ET", "ET"), ("TC", "NCR"), ("WT", "ED"))
_ALL = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Table:
    """What becomes of each of the 256 labels when a voxel is added to a region, or removed from it."""

    add: Labels
    remove: Labels


@dataclass(frozen=True)
class Request:
    """An operation with everything that it may depend on; see `OPERATIONS`."""

    region: str
    axis: int = 2
    """The axis of the arrays that the shown plane cuts."""
    index: int = 0
    """The shown slice along that axis."""
    step: int = 1
    """+1 if the slice above the shown one has a larger index, -1 if it has a smaller one."""
    seed: tuple[int, int, int] = (0, 0, 0)
    """The voxel at the crosshair."""
    low: float = 0.0
    high: float = 0.0
    """The bounds of the threshold, both included."""
    mm: float = 1.0
    """A distance: how far a region may grow, or how strongly it is smoothed."""


def tables(convention: LabelConvention) -> dict[str, Table]:
    """Return what adding to and removing from each region of a convention does to a label."""
    found = {}
    regions = convention.regions
    for region in regions:
        members = regions[region]
        add, remove = np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8)
        tissue = dict(_CHAIN).get(region, region)
        add[[value for value in range(256) if value not in members]] = _one_of(convention, tissue, members)
        remove[sorted(members)] = _outside(convention, region)
        found[region] = Table(add, remove)
    return found


def set_region(labels: Labels, convention: LabelConvention, region: str, inside: Mask) -> Labels:
    """Return a label map in which a region is exactly `inside`, `(X, Y, Z)`; the regions stay nested."""
    table = tables(convention)[region]
    return np.where(inside, table.add[labels], table.remove[labels]).astype(np.uint8)


def correct(
    labels: Labels,
    convention: LabelConvention,
    operation: str,
    request: Request,
    *,
    image: NDArray[Any],
    spacing_mm: tuple[float, float, float],
) -> Labels:
    """Return the label map after an operation on one region.

    Args:
        labels: `(X, Y, Z)`; left unchanged.
        convention: The meaning of the labels.
        operation: A name in `OPERATIONS`.
        request: The region, and the arguments of the operation.
        image: The sequence for thresholds, of the same shape.
        spacing_mm: The voxel size along the axes of the arrays.

    Raises:
        InputError: The operation or region is unknown, or the slice is outside of the grid.
    """
    if operation not in OPERATIONS:
        raise InputError(f"{unknown_name('operation', operation, OPERATIONS)}.")
    if request.region not in convention.regions:
        raise InputError(f"{unknown_name('region', request.region, convention.regions)}.")
    if request.axis not in range(3) or not 0 <= request.index < labels.shape[request.axis]:
        raise InputError(f"slice {request.index} of axis {request.axis} is outside of the grid {labels.shape}.")
    inside = np.isin(labels, sorted(convention.regions[request.region]))
    changed = OPERATIONS[operation](inside, request, image, spacing_mm)
    return set_region(labels, convention, request.region, changed)


def small_pieces(inside: Mask, below: int = 3) -> list[tuple[int, tuple[int, int, int]]]:
    """Return the size and the first voxel of each piece (voxels joined by faces, edges or corners) under a size."""
    found, _ = ndimage.label(inside, _ALL)
    sizes = np.bincount(found.ravel())[1:]
    pieces = []
    for number in np.flatnonzero(sizes < below) + 1:
        x, y, z = (int(value) for value in np.argwhere(found == number)[0])
        pieces.append((int(sizes[number - 1]), (x, y, z)))
    return pieces


def _one_of(convention: LabelConvention, tissue: str, values: frozenset[int]) -> int:
    value = convention.value_of(tissue)
    return value if value in values else min(values)


def _outside(convention: LabelConvention, region: str) -> int:
    """Return the label of a voxel that was removed from a region: that of the next region around it, or 0."""
    regions = convention.regions
    names = [name for name, _ in _CHAIN]
    if region not in names:
        return 0
    for outer, tissue in _CHAIN[names.index(region) + 1 :]:
        around = regions.get(outer, frozenset()) - regions[region]
        if around:
            return _one_of(convention, tissue, around)
    return 0


def _fill(inside: Mask, request: Request, image: object, spacing_mm: object) -> Mask:
    """Fill what a region encloses in the shown slice."""
    filled: Mask = inside.copy()
    place = _slice_at(request.axis, request.index)
    filled[place] = ndimage.binary_fill_holes(inside[place])
    return filled


def _smooth(inside: Mask, request: Request, image: object, spacing_mm: tuple[float, ...]) -> Mask:
    """Smooth the surface: a Gaussian blur of the region with the standard deviation `mm`, cut at one half."""
    sigma = [request.mm / size for size in spacing_mm]
    smooth: Mask = ndimage.gaussian_filter(inside.astype(np.float32), sigma, truncate=3.0) > 0.5
    return smooth


def _remove(inside: Mask, request: Request, image: object, spacing_mm: object) -> Mask:
    """Remove the piece of the region at the crosshair; nothing where there is none."""
    found, _ = ndimage.label(inside, _ALL)
    number = found[request.seed]
    kept: Mask = inside & (found != number) if number else inside
    return kept


def _grow(inside: Mask, request: Request, image: NDArray[Any], spacing_mm: tuple[float, ...]) -> Mask:
    """Grow by at most `mm` into voxels between the thresholds that are connected to the region."""
    if not inside.any():
        return inside
    near = ndimage.distance_transform_edt(~inside, spacing_mm) <= request.mm
    allowed = inside | (near & (image >= request.low) & (image <= request.high))
    found, count = ndimage.label(allowed, _ALL)
    kept = np.zeros(count + 1, dtype=bool)
    kept[np.unique(found[inside])] = True
    kept[0] = False
    grown: Mask = kept[found]
    return grown


def _shrink(inside: Mask, request: Request, image: NDArray[Any], spacing_mm: object) -> Mask:
    """Remove the voxels outside of the thresholds."""
    kept: Mask = inside & (image >= request.low) & (image <= request.high)
    return kept


def _interpolate(inside: Mask, request: Request, image: object, spacing_mm: tuple[float, ...]) -> Mask:
    """Fill the empty slices between painted ones: signed distances to the outline are interpolated linearly."""
    done = np.moveaxis(inside.copy(), request.axis, 0)
    flat = [size for axis, size in enumerate(spacing_mm) if axis != request.axis]
    painted = np.flatnonzero(done.any(axis=(1, 2)))
    for first, last in pairwise(painted):
        if last - first < 2:
            continue
        start, end = (_signed(done[index], flat) for index in (first, last))
        for index in range(int(first) + 1, int(last)):
            share = (index - first) / (last - first)
            done[index] = (1 - share) * start + share * end > 0
    joined: Mask = np.ascontiguousarray(np.moveaxis(done, 0, request.axis))
    return joined


def _copy(inside: Mask, request: Request, image: object, spacing_mm: object) -> Mask:
    """Make the region in the shown slice that of the slice above; nothing at the end of the grid."""
    above = request.index + (1 if request.step > 0 else -1)
    if not 0 <= above < inside.shape[request.axis]:
        return inside
    copied: Mask = inside.copy()
    copied[_slice_at(request.axis, request.index)] = inside[_slice_at(request.axis, above)]
    return copied


def _signed(inside: Mask, spacing_mm: list[float]) -> NDArray[np.float64]:
    signed: NDArray[np.float64] = ndimage.distance_transform_edt(inside, spacing_mm) - ndimage.distance_transform_edt(
        ~inside, spacing_mm
    )
    return signed


def _slice_at(axis: int, index: int) -> tuple[slice | int, ...]:
    return tuple(index if one == axis else slice(None) for one in range(3))


OPERATIONS: Mapping[str, Callable[..., Mask]] = MappingProxyType(
    {
        "fill": _fill,
        "smooth": _smooth,
        "remove": _remove,
        "grow": _grow,
        "shrink": _shrink,
        "interpolate": _interpolate,
        "copy": _copy,
    }
)
"""The operations by name. Each returns the region's new voxels."""
