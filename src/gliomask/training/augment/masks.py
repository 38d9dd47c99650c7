"""Boxes, dilation and smoothing of masks in a patch."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def box_around(mask: Tensor, room: int) -> tuple[slice, ...] | None:
    """Return the bounding box of a mask with `room` voxels on each side, as slices with all channels; None if empty."""
    rows = [np.flatnonzero(mask.cpu().numpy().any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(rows[0]):
        return None
    return (slice(None), *(slice(max(int(row[0]) - room, 0), int(row[-1]) + room + 1) for row in rows))


def grown(mask: Tensor, margin: int) -> Tensor:
    """Return the mask dilated by `margin` voxels along each axis."""
    soft = mask[None, None].float()
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * margin + 1, margin
        soft = F.max_pool3d(soft, kernel, stride=1, padding=padding)
    return soft[0, 0] > 0


def smoothed(weight: Tensor, radius: int) -> Tensor:
    """Return the mean over a cube around each voxel; at the faces of the patch, over the part inside it."""
    soft = weight[None, None]
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * radius + 1, radius
        soft = F.avg_pool3d(soft, kernel, stride=1, padding=padding, count_include_pad=False)
    return soft[0, 0]
