"""The images and brain masks of an examination brought onto the prepared grid, where the brain is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.alignment import Alignment, carry
from gliomask.execution import ahead
from gliomask.volume import Box, Grid, Volume, bounding_box

Mask = NDArray[np.bool_]


def carry_all(
    volumes: Mapping[str, Volume], alignment: Alignment, box: Box, *, threads: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return the first channel of each sequence's volume on the prepared grid, `(X, Y, Z)`, interpolated once.

    Args:
        volumes: By sequence, on their own grids.
        alignment: Where they lie.
        box: Of the prepared grid; only the voxels in it are computed, all others are 0.
        threads: Of the processor; by default all.
    """
    part = part_of(alignment.grid, box)

    def carried(name: str) -> NDArray[np.float32]:
        volume = volumes[name]
        whole = np.zeros(alignment.grid.shape, np.float32)
        whole[box] = carry(Volume(volume.data[:1], volume.affine), alignment.to_native[name], part).data[0]
        return whole

    return dict(zip(volumes, ahead(carried, volumes, threads), strict=True))


def box_of_masks(masks: Mapping[str, Volume], alignment: Alignment) -> Box:
    """Return the box on the prepared grid that holds every place where a mask is above 0 after interpolation.

    Args:
        masks: By sequence, boolean, on their own grids. If all are empty, the box is one voxel.
        alignment: Where they lie.
    """
    places = [
        _corners(mask.data[0], np.linalg.inv(alignment.to_native[name] @ alignment.grid.affine) @ mask.affine)
        for name, mask in masks.items()
    ]
    return _box_of(np.concatenate(places, axis=1), alignment.grid.shape)


def box_on_native(mask: Mask, alignment: Alignment, modality: str) -> Box:
    """Return the box on a sequence's own grid that holds what the mask on the prepared grid reaches there.

    It ends with the grid, and is one voxel for an empty mask.
    """
    native = alignment.native[modality]
    to_index = np.linalg.inv(native.affine) @ alignment.to_native[modality] @ alignment.grid.affine
    return _box_of(_corners(mask, to_index), native.shape)


def part_of(grid: Grid, box: Box) -> Grid:
    """Return the grid of the voxels in a box of a grid."""
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [span.start for span in box]
    x, y, z = (span.stop - span.start for span in box)
    return Grid((x, y, z), affine)


def _corners(mask: Mask, to_index: NDArray[np.float64]) -> NDArray[np.float64]:
    """The places `(3, 8)` to which a map of indices takes the corners of a mask's box, one voxel larger."""
    box = bounding_box(mask)
    if box is None:
        return np.zeros((3, 0))
    corners = np.array(np.meshgrid(*((span.start - 1, span.stop) for span in box))).reshape(3, -1)
    places: NDArray[np.float64] = to_index[:3, :3] @ corners + to_index[:3, 3:]
    return places


def _box_of(places: NDArray[np.float64], shape: tuple[int, ...]) -> Box:
    low, high = (places.min(axis=1), places.max(axis=1)) if places.size else (np.zeros(3), np.zeros(3))
    starts = np.clip(np.floor(low), 0, np.array(shape) - 1).astype(int)
    stops = np.clip(np.ceil(high) + 1, starts + 1, shape).astype(int)
    x, y, z = (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    return x, y, z
