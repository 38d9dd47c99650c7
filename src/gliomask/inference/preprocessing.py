"""A volume -> what the network sees, and the network's answer -> the volume's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.model.choices import Normalization
from gliomask.model.plan import Plan
from gliomask.volume import Grid, Spacing, Volume, grid_at_spacing, read_grid, reorient, resample

Box = tuple[slice, slice, slice]

# Spacings closer than this, as a fraction, are one: BraTS headers hold 1.0 and 0.99999.
_SAME_SPACING = 0.01


@dataclass(frozen=True)
class Framed:
    """The brain's bounding box in the plan's orientation and spacing, intensities untouched."""

    data: NDArray[Any]
    """`(C, x, y, z)`, in the type the volume had, unless it had to be resampled (then float32)."""
    box: Box
    """Where the box lies in `grid`."""
    grid: Grid
    """The plan's orientation and spacing over the whole field of view."""
    original: Grid
    """The grid that the volume came on."""


@dataclass(frozen=True)
class Moments:
    """What normalizing one channel needs: the mean and standard deviation over its non-zero voxels, least and most."""

    mean: float
    std: float
    least: float
    most: float


@dataclass(frozen=True)
class Prepared:
    """What the network sees, and all that is needed to undo it."""

    data: NDArray[np.float32]
    """`(C, x, y, z)`, normalized, background zero."""
    present: tuple[bool, ...]
    """Which channels the examination has; the others are zero."""
    framed: Framed


def prepare(volume: Volume, plan: Plan) -> Prepared:
    """Reorient, resample, crop to the brain and normalize, as the plan says.

    Args:
        volume: One channel for each of the plan's modalities, in its order; an absent one is all zero (`read_case`).
        plan: The plan.

    Returns:
        float32, cropped to the box around every voxel that is not zero in some channel.
    """
    framed = frame(volume, plan)
    moments = [channel_moments(channel) for channel in framed.data]
    present = tuple(bool(channel.any()) for channel in framed.data)
    return Prepared(normalize(framed.data, moments, plan.normalization), present, framed)


def restore(prepared: Prepared, channels: NDArray[np.float32]) -> Volume:
    """Return what the network said about each voxel on the grid that the examination came on.

    Args:
        prepared: What `prepare` returned.
        channels: `(R, x, y, z)` on the prepared grid, such as probabilities.

    Returns:
        `(R, X, Y, Z)`, zero outside the brain's box. The original affine, exactly.
    """
    framed = prepared.framed
    full = np.zeros((len(channels), *framed.grid.shape), dtype=channels.dtype)
    x, y, z = framed.box
    full[:, x, y, z] = channels
    volume = Volume(full, framed.grid.affine)
    oriented = _oriented(framed.original, framed.grid.axes)
    if oriented.difference(framed.grid):  # it was resampled on the way in
        volume = resample(volume, oriented)
    return Volume(reorient(volume, framed.original.axes).data, framed.original.affine)


def common_spacing(cases: Sequence[Case], axes: str) -> Spacing:
    """Return the median voxel size of some cases along each of the axes, to a hundredth of a mm; reads headers only.

    Raises:
        InputError: There is no case, or a file is bad.
    """
    grids = [read_grid(next(iter(case.images.values())).path)[0] for case in cases if case.images]
    if not grids:
        raise InputError("no case with images: nothing to prepare.")
    x, y, z = np.median([_oriented(grid, axes).spacing_mm for grid in grids], axis=0).round(2).tolist()
    return x, y, z


def frame(volume: Volume, plan: Plan) -> Framed:
    """Reorient, resample and crop to the brain; the part of `prepare` that leaves intensities alone."""
    worked = onto_plan(volume, plan)
    x, y, z = box = brain_box(worked.data)
    return Framed(worked.data[:, x, y, z], box, worked.grid, volume.grid)


def onto_plan(volume: Volume, plan: Plan, *, nearest: bool = False) -> Volume:
    """Return the volume in the plan's orientation and spacing; a view where neither changes it.

    Args:
        volume: Any channels.
        plan: The plan.
        nearest: See `resample`; for labels.
    """
    oriented = reorient(volume, plan.axes)
    if np.allclose(oriented.spacing_mm, plan.spacing_mm, rtol=_SAME_SPACING, atol=0):
        return oriented
    return resample(oriented, grid_at_spacing(oriented.grid, plan.spacing_mm), nearest=nearest)


def brain_box(data: NDArray[Any]) -> Box:
    """Return the smallest box around every voxel that is not zero in some channel of `(C, X, Y, Z)`.

    All zero: the whole grid.
    """
    mask = np.asarray(data.any(axis=0))
    spans = []
    for axis in range(3):
        inside = np.flatnonzero(np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1).any(axis=1))
        spans.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, mask.shape[axis]))
    return spans[0], spans[1], spans[2]


def channel_moments(channel: NDArray[Any]) -> Moments:
    """Return the moments of one channel; an absent or constant one gets a standard deviation of 1."""
    voxels = channel[channel != 0]
    if not len(voxels):
        return Moments(0.0, 1.0, 0.0, 0.0)
    # Sums in float64: a brain has a million voxels, more than float32 can add one by one.
    std = float(voxels.std(dtype=np.float64))
    return Moments(float(voxels.mean(dtype=np.float64)), std or 1.0, float(channel.min()), float(channel.max()))


def normalize(data: NDArray[Any], moments: list[Moments], normalization: Normalization) -> NDArray[np.float32]:
    """Return `(C, ...)` as float32 with comparable intensities; zero voxels stay zero.

    Args:
        data: Intensities as stored, of the whole brain or any part of it.
        moments: Those of each channel over the whole brain.
        normalization: See `Plan.normalization`.
    """
    result = np.empty(data.shape, dtype=np.float32)
    for channel, moment, out in zip(data, moments, result, strict=True):
        zero, factor = scale_of(moment, normalization)
        np.subtract(channel, zero, out=out, casting="unsafe")
        out *= factor
        out[channel == 0] = 0
    return result


def scale_of(moments: Moments, normalization: Normalization) -> tuple[np.float32, np.float32]:
    """Return which stored intensity becomes 0, and by what the distance from it is multiplied."""
    if normalization == "zscore":
        return np.float32(moments.mean), np.float32(1 / moments.std)
    return np.float32(moments.least), np.float32(1 / ((moments.most - moments.least) or 1.0))


def _oriented(grid: Grid, axes: str) -> Grid:
    return reorient(Volume(np.broadcast_to(False, (1, *grid.shape)), grid.affine), axes).grid
