"""Which slices of a volume to show, and how to turn them for a radiologist's eye."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

# Arrays are turned to L, P, I: columns then run right to left or front to back, rows downwards, in all three planes.
_AXES = ("L", "P", "I")

PLANES: Mapping[str, int] = MappingProxyType({"axial": 2, "coronal": 1, "sagittal": 0})

# The letters at the left, right, upper and lower edge of each plane.
EDGES: Mapping[str, tuple[str, str, str, str]] = MappingProxyType(
    {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
)

_MARGIN_MM = 5.0


@dataclass(frozen=True)
class Cut:
    """How every array on one grid is turned, cropped and cut; made by `find_cut`."""

    turn: NDArray[np.float64]
    affine: NDArray[np.float64]
    box: tuple[slice, slice, slice]
    at: tuple[int, int, int]

    def slice_of(self, volume: NDArray[Any], plane: str) -> NDArray[Any]:
        """Return a plane's slice as `(rows, columns)`, to be shown with the first row on top.

        The patient's right is at the left of axial and coronal slices, the front at the left of sagittal ones and on
        top of axial ones. A view of `volume`, not a copy.
        """
        turned = nib.orientations.apply_orientation(volume, self.turn)
        where: list[slice | int] = list(self.box)
        where[PLANES[plane]] = self.at[PLANES[plane]]
        return np.asarray(turned[tuple(where)]).T

    def pixel_mm(self, plane: str) -> tuple[float, float]:
        """Return the width and the height of a slice's pixels."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        width, height = (float(spacing[axis]) for axis in range(3) if axis != PLANES[plane])
        return width, height

    def size_mm(self, plane: str) -> tuple[float, float]:
        """Return the width and the height of a slice."""
        columns, rows = (self.box[axis].stop - self.box[axis].start for axis in range(3) if axis != PLANES[plane])
        width, height = self.pixel_mm(plane)
        return columns * width, rows * height

    def position_mm(self, plane: str) -> float:
        """Return where the plane crosses its axis (x, y or z of the affine, RAS+) in the middle of the crop."""
        middle = [(extent.start + extent.stop - 1) / 2 for extent in self.box]
        middle[PLANES[plane]] = self.at[PLANES[plane]]
        return float((self.affine @ [*middle, 1.0])[PLANES[plane]])


def find_cut(
    images: Iterable[NDArray[Any]], tumour: NDArray[np.bool_] | None, affine: NDArray[np.floating[Any]]
) -> Cut:
    """Return the cut that shows a tumour best: through its largest extent in each plane, cropped to the brain.

    Args:
        images: One or more images `(X, Y, Z)`; the brain is where any of them is not 0, with a margin of 5 mm.
        tumour: What to show, on the same grid. None or empty: the middle of the brain is cut.
        affine: `(4, 4)`, of any orientation; an oblique grid is turned to its nearest axes, not resampled.
    """
    held = np.logical_or.reduce([image != 0 for image in images])
    start = nib.orientations.io_orientation(affine)
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(_AXES))
    turned_affine = affine @ nib.orientations.inv_ornt_aff(turn, held.shape)
    held = nib.orientations.apply_orientation(held, turn)
    spacing = np.linalg.norm(turned_affine[:3, :3], axis=0)
    x, y, z = (_extent(held, axis, _MARGIN_MM / spacing[axis]) for axis in range(3))
    if tumour is None or not tumour.any():
        i, j, k = ((extent.start + extent.stop) // 2 for extent in (x, y, z))
    else:
        turned = nib.orientations.apply_orientation(tumour, turn)
        i, j, k = (int(_other_axes_sum(turned, axis).argmax()) for axis in range(3))
    return Cut(turn, turned_affine, (x, y, z), (i, j, k))


def grey(image: NDArray[Any], plane: NDArray[Any]) -> NDArray[np.float32]:
    """Return a slice's intensities as 0 (black) to 1 (white).

    The window runs from the 1st to the 99.5th percentile of the image's voxels that are not 0, and is one for the
    whole image, whatever slice is shown. Voxels of 0, outside of the brain, are black.
    """
    values = image[image != 0]
    values = values[:: max(1, values.size // 200_000)]  # enough for a percentile, and ten times as fast
    low, high = np.percentile(values, (1.0, 99.5)) if values.size else (0.0, 1.0)
    shown = np.clip((plane.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    return np.where(plane != 0, shown, 0).astype(np.float32)


def _extent(held: NDArray[np.bool_], axis: int, margin: float) -> slice:
    others = tuple(other for other in range(3) if other != axis)
    found = np.flatnonzero(held.any(axis=others))
    length = held.shape[axis]
    if not found.size:
        return slice(0, length)
    around = round(margin)
    return slice(max(0, int(found[0]) - around), min(length, int(found[-1]) + 1 + around))


def _other_axes_sum(mask: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    others = tuple(other for other in range(3) if other != axis)
    return np.asarray(mask.sum(axis=others, dtype=np.int64))
