"""Resampling of cropped images and of logits by splines, as described by `Plan.resampling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.model.plan import Plan
from gliomask.model.sampling import Order, Spline
from gliomask.volume import Spacing

Shape = tuple[int, int, int]

# If voxels are longer by this factor along one axis than along the shortest, that axis is resampled separately.
_THICK = 3


def target_spacing(plan: Plan, own_mm: Spacing) -> Spacing:
    """Return the voxel size that images of a voxel size get: the plan's, except along its native axes."""
    native = plan.resampling.native_axes if plan.resampling else ()
    x, y, z = (own_mm[axis] if axis in native else plan.spacing_mm[axis] for axis in range(3))
    return x, y, z


def target_shape(shape: Sequence[int], own_mm: Spacing, target_mm: Spacing) -> Shape:
    """Return the shape of a box after its voxel size was changed, to the nearest whole voxel."""
    x, y, z = (max(1, round(own / new * n)) for own, new, n in zip(own_mm, target_mm, shape, strict=True))
    return x, y, z


def resize(
    channels: NDArray[Any], shape: Shape, spline: Spline, own_mm: Spacing, target_mm: Spacing
) -> NDArray[np.float32]:
    """Return the channels on a grid of another shape that covers the same box.

    The outer faces of the two grids coincide. Outside the box the channels are continued with their edge voxels. The
    result has no values beyond the smallest and largest of its channel (or of its slice, if the axis of thick slices is
    resampled separately), where a spline would overshoot.

    Args:
        channels: `(C, x, y, z)`.
        shape: The shape of the result; if it is that of the channels, they are returned as they are.
        spline: How to interpolate.
        own_mm, target_mm: The voxel sizes before and after.

    Source: `resize` of scikit-image with `mode="edge"`, and nnU-Net's `resample_data_or_seg`.
    """
    if channels.shape[1:] == shape:
        return channels.astype(np.float32, copy=False)
    axis = _thick_axis(spline, own_mm, target_mm)
    result = np.empty((len(channels), *shape), np.float32)
    for channel, out in zip(channels, result, strict=True):
        values = channel.astype(np.float64)
        out[:] = _zoomed(values, shape, spline.order) if axis is None else _by_slice(values, shape, spline, axis)
    return result


def _thick_axis(spline: Spline, own_mm: Spacing, target_mm: Spacing) -> int | None:
    """Return the axis that is resampled separately, if there is one."""
    if spline.separate is False:
        return None
    thick = [sizes for sizes in (own_mm, target_mm) if max(sizes) / min(sizes) > _THICK]
    sizes = own_mm if spline.separate else thick[0] if thick else None
    if sizes is None:
        return None
    longest = [axis for axis, mm in enumerate(sizes) if mm == max(sizes)]
    return longest[0] if len(longest) == 1 else None


def _by_slice(channel: NDArray[np.float64], shape: Shape, spline: Spline, axis: int) -> NDArray[np.float64]:
    """Return the channel with each slice across an axis resampled, and then the axis."""
    within = [n for number, n in enumerate(shape) if number != axis]
    slices = np.moveaxis(channel, axis, 0)
    resized = np.moveaxis(np.stack([_zoomed(one, within, spline.order) for one in slices]), 0, axis)
    return _zoomed(resized, shape, spline.thick_order)


def _zoomed(values: NDArray[np.float64], shape: Sequence[int], order: Order) -> NDArray[np.float64]:
    from scipy.ndimage import zoom

    if values.shape == tuple(shape):
        return values
    factors = [new / old for new, old in zip(shape, values.shape, strict=True)]
    found: NDArray[np.float64] = zoom(values, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(found, values.min(), values.max(), out=found)
