"""The box around the brain, without voxels of noise far from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliomask.volume import Box, bounding_box

# Pieces are looked for at every second voxel, which finds the brain of BraTS in 13 ms.
_STEP = 2
# What lies within this many voxels of the box around the brain is kept: on the surface of a brain there are pieces that
# touch it by an edge only.
_MARGIN = 4
# With fewer voxels (of those looked at) in the largest piece there is no brain in the images, and all is kept.
_SMALLEST_BRAIN = 500
# A piece with less than this share of the largest one's voxels, or with fewer voxels than this, is no part of a brain.
_LEAST_SHARE = 1e-3
_FEWEST_VOXELS = 8


def main_box(nonzero: NDArray[np.bool_], *, step: int = _STEP, margin: int = _MARGIN) -> Box | None:
    """Return the bounding box of the brain, without small pieces far from it, or None if no voxel is True.

    One voxel of noise in a corner of the field of view would otherwise make the box that a network looks at as large as
    the field of view, and the network's answer depends on it. Where there are no such pieces, the box is that of all
    True voxels.

    Args:
        nonzero: `(X, Y, Z)`, the voxels that are not zero in some image.
        step: Every how many voxels the pieces are looked for.
        margin: How many voxels around the pieces that are kept are kept too.
    """
    from scipy import ndimage

    pieces, _ = ndimage.label(nonzero[::step, ::step, ::step])
    sizes = np.bincount(pieces.ravel())[1:]
    if not len(sizes) or sizes.max() < _SMALLEST_BRAIN:
        return bounding_box(nonzero)
    kept = sizes >= max(_FEWEST_VOXELS, _LEAST_SHARE * sizes.max())
    boxes = [box for box, keep in zip(ndimage.find_objects(pieces), kept, strict=True) if keep and box is not None]
    part = []
    for axis, edge in enumerate(nonzero.shape):
        first = min(box[axis].start for box in boxes) * step - margin
        last = (max(box[axis].stop for box in boxes) - 1) * step + margin
        part.append(slice(max(0, first), min(edge, last + 1)))
    x, y, z = part
    inside = nonzero[x, y, z]
    if np.count_nonzero(inside) < np.count_nonzero(nonzero):  # there is noise, and some of it is near the brain
        pieces, _ = ndimage.label(inside, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        inside = (sizes >= max(_FEWEST_VOXELS * step**3, _LEAST_SHARE * sizes.max()))[pieces]
    inner = bounding_box(inside)
    assert inner is not None  # it holds the largest piece
    x, y, z = (slice(outer.start + own.start, outer.start + own.stop) for outer, own in zip(part, inner, strict=True))
    return x, y, z
