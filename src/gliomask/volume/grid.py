"""Where voxels lie in space: grids, boxes of voxels, reorientation and resampling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

Spacing = tuple[float, float, float]
"""The voxel size along X, Y, Z in mm."""

Box = tuple[slice, slice, slice]
"""A box of voxels, as an index of an array `(X, Y, Z)`."""

# A tenth of a BraTS voxel, at every corner of the grid: larger differences are another grid, smaller ones are rounding
# in the headers of different programs.
_GRID_TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class Grid:
    """The number of voxels along each axis and the affine from voxel indices to millimetres (RAS+, as in NIfTI)."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> Spacing:
        """The voxel size along X, Y, Z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def axes(self) -> str:
        """The anatomical directions in which X, Y, Z increase, to the nearest axis: `LPS` in BraTS."""
        return "".join(orientations.aff2axcodes(self.affine))

    def difference(self, other: Grid) -> str | None:
        """Describe how two grids differ (shape, orientation, spacing or origin), or return None where they agree."""
        if self.shape != other.shape:
            return f"shape {_by(self.shape)} and {_by(other.shape)}"
        if self.axes != other.axes:
            return f"orientation {self.axes} and {other.axes}"
        if not np.allclose(self.spacing_mm, other.spacing_mm, rtol=1e-3, atol=0):
            return _two("spacing", self.spacing_mm, other.spacing_mm)
        if np.abs((self.affine - other.affine) @ corner_indices(self.shape)).max() <= _GRID_TOLERANCE_MM:
            return None
        extent = np.array(self.shape) - 1
        sizes, others = np.array(self.spacing_mm), np.array(other.spacing_mm)
        if (np.abs(sizes - others) * extent).max() > _GRID_TOLERANCE_MM / 2:
            return _two("spacing", sizes, others)
        cosines = np.clip((self.affine[:3, :3] * other.affine[:3, :3]).sum(axis=0) / (sizes * others), -1, 1)
        angles = np.arccos(cosines)
        if (angles * sizes * extent).max() > _GRID_TOLERANCE_MM / 2:
            return f"orientation (the axes are tilted by {np.rad2deg(angles.max()):.2g} degrees against each other)"
        return _two("origin", self.affine[:3, 3], other.affine[:3, 3])


@dataclass(frozen=True)
class Volume:
    """One or more channels on one grid: `data` is `(C, X, Y, Z)`, `affine` is `(4, 4)` to millimetres, RAS+."""

    data: NDArray[Any]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    """What is odd about the file that it was read from, a sentence each."""

    @property
    def grid(self) -> Grid:
        """The grid that all channels share."""
        x, y, z = self.data.shape[1:]
        return Grid((x, y, z), self.affine)

    @property
    def spacing_mm(self) -> Spacing:
        """The voxel size along X, Y, Z."""
        return self.grid.spacing_mm


def voxel_volume_ml(affine: NDArray[np.float64]) -> float:
    """Return the volume of one voxel in mL; for oblique and sheared affines too."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000


def bounding_box(mask: NDArray[np.bool_], margin: Sequence[int] = (0, 0, 0)) -> Box | None:
    """Return the smallest box that holds every True voxel, or None if there is none.

    Args:
        mask: `(X, Y, Z)`.
        margin: How many voxels to add on both sides of each axis; the box ends with the grid.
    """
    planes: NDArray[np.bool_] = np.any(mask, axis=2)
    occupied: list[NDArray[np.bool_]] = [np.any(planes, axis=1), np.any(planes, axis=0), np.any(mask, axis=(0, 1))]
    boxes = []
    for seen, more in zip(occupied, margin, strict=True):
        if not seen.any():
            return None
        first, last = int(seen.argmax()), len(seen) - 1 - int(seen[::-1].argmax())
        boxes.append(slice(max(0, first - more), min(len(seen), last + more + 1)))
    return boxes[0], boxes[1], boxes[2]


def round_up_to_multiple(size: Sequence[int], multiple: int | Sequence[int]) -> tuple[int, int, int]:
    """Return the smallest size `(X, Y, Z)` whose edges are multiples of a number and not smaller than those given.

    Args:
        size: `(X, Y, Z)`.
        multiple: The number, or one for each edge.
    """
    multiples = [multiple] * len(size) if isinstance(multiple, int) else multiple
    x, y, z = (-(-edge // step) * step for edge, step in zip(size, multiples, strict=True))
    return x, y, z


def reorient(volume: Volume, axes: str) -> Volume:
    """Return the volume with its axes permuted and flipped to increase towards `axes`, such as `LPS`.

    The data is a view, not a copy. Voxels keep their values and their places in space, so reorienting back gives the
    first volume exactly.
    """
    start = orientations.io_orientation(volume.affine)
    change = orientations.ornt_transform(start, orientations.axcodes2ornt(axes))
    spatial = [int(np.flatnonzero(change[:, 0] == axis)[0]) for axis in range(3)]
    data = volume.data.transpose(0, *(axis + 1 for axis in spatial))
    flips = tuple(slice(None, None, int(change[axis, 1])) for axis in spatial)
    affine = volume.affine @ orientations.inv_ornt_aff(change, volume.data.shape[1:])
    index: tuple[slice, ...] = (slice(None), *flips)
    return Volume(data[index], affine, volume.notes)


def match_axes(volume: Volume, grid: Grid) -> Volume:
    """Return the volume with its axes in the order and direction of a grid's, if it then lies on that grid.

    Voxels keep their values and places (see `reorient`), so files that store one grid in different orders become
    comparable. A volume on another grid is returned as it is, for `Grid.difference` to describe.
    """
    if volume.grid.axes == grid.axes:
        return volume
    turned = reorient(volume, grid.axes)
    return volume if grid.difference(turned.grid) else turned


def resample(volume: Volume, grid: Grid, *, nearest: bool = False, zero_outside: bool = False) -> Volume:
    """Return the volume at the places of another grid, which may be turned against it.

    Outside its own grid the volume is continued with its edge voxels: by half a voxel at most for `grid_at_spacing`.

    Args:
        volume: Any number of channels.
        grid: The grid of the result.
        nearest: Take the nearest voxel's value and keep the data type (for labels). Otherwise interpolate linearly and
            return float32.
        zero_outside: Let the volume be 0 outside its own grid.
    """
    from scipy.ndimage import affine_transform

    to_index = np.linalg.inv(volume.affine) @ grid.affine
    channels = [
        affine_transform(
            channel if nearest else channel.astype(np.float32),
            to_index[:3, :3],
            to_index[:3, 3],
            output_shape=grid.shape,
            order=0 if nearest else 1,
            mode="grid-constant" if zero_outside else "nearest",
        )
        for channel in volume.data
    ]
    return Volume(np.stack(channels), grid.affine, volume.notes)


def grid_at_spacing(grid: Grid, spacing_mm: Spacing) -> Grid:
    """Return the grid that covers the same field of view with another voxel size, to the nearest whole voxel."""
    old = np.array(grid.spacing_mm)
    shape = np.maximum(1, np.round(np.array(grid.shape) * old / spacing_mm)).astype(int)
    factor = np.array(grid.shape) / shape
    change = np.diag([*factor, 1.0])
    change[:3, 3] = (factor - 1) / 2  # the outer faces of the two grids coincide, not the centres of their first voxels
    x, y, z = map(int, shape)
    return Grid((x, y, z), grid.affine @ change)


def corner_indices(shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the indices of a grid's eight corners, `(4, 8)`, each with a 1 below, for a product with an affine."""
    far = [n - 1 for n in shape]
    corners = [[*(end * n for end, n in zip(at, far, strict=True)), 1] for at in np.ndindex(2, 2, 2)]
    return np.asarray(np.array(corners, dtype=np.float64).T)


def _by(values: Iterable[float], digits: int = 6) -> str:
    return " x ".join(f"{value:.{digits}g}" for value in values)


def _two(what: str, first: Iterable[float], second: Iterable[float]) -> str:
    """Return a sentence part about two triples in mm, with as many digits as it takes to see that they differ."""
    one, other = list(first), list(second)
    digits = next((digits for digits in range(3, 12) if _by(one, digits) != _by(other, digits)), 11) + 1
    return f"{what} {_by(one, digits)} mm and {_by(other, digits)} mm"
