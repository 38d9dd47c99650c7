"""From a volume to a network's input, and from its output back to the volume's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.inference.resampling import resize, target_shape, target_spacing
from gliomask.inspection import find_outliers, main_box
from gliomask.model.choices import ChannelNormalization, Normalization
from gliomask.model.plan import Plan
from gliomask.volume import (
    Box,
    Grid,
    Spacing,
    Volume,
    grid_at_spacing,
    read_grid,
    reorient,
    resample,
)

# Spacings that differ by less than this fraction are treated as equal: BraTS headers hold 1.0 and 0.99999.
_SAME_SPACING = 0.01

# Limits of the field of view of a volume that is resampled. A head fits in 35 x 35 x 35 cm, which is 43 litres; the
# memory and the time needed grow with the volume.
_LARGEST_FIELD_LITRES = 64
_SMALLEST_FIELD_MM = 5

# The 26 neighbours of a voxel.
_NEIGHBOURS = np.array([offset for offset in product((-1, 0, 1), repeat=3) if any(offset)])


@dataclass(frozen=True)
class Framed:
    """The brain's bounding box in the plan's orientation, before the intensities are normalized.

    Its voxel size is the plan's, or with `Plan.resampling` that of the volume.
    """

    data: NDArray[Any]
    """`(C, x, y, z)`, in the type of the volume, or float32 if it was resampled."""
    box: Box
    """The position of the box in `grid`."""
    grid: Grid
    """The whole field of view in the plan's orientation."""
    original: Grid
    """The grid of the volume."""
    replaced: tuple[int, ...]
    """The number of voxels of each channel whose intensity was replaced; see `replace_outliers`."""


@dataclass(frozen=True)
class Moments:
    """The statistics of one channel that normalization needs: mean and standard deviation of its non-zero voxels, and
    the minimum and maximum of all its voxels."""

    mean: float
    std: float
    least: float
    most: float


@dataclass(frozen=True)
class Prepared:
    """A network's input, with what is needed to map its output back."""

    data: NDArray[np.float32]
    """`(C, x, y, z)`, normalized and in the plan's voxel size."""
    present: tuple[bool, ...]
    """Which channels the examination has; the others are zero."""
    framed: Framed


def prepare(volume: Volume, plan: Plan) -> Prepared:
    """Reorient, resample, crop to the brain and normalize a volume as described by the plan.

    Args:
        volume: One channel for each of the plan's modalities, in its order; missing ones are zero (see `read_case`).
        plan: The plan.

    Returns:
        float32, cropped to the bounding box of the voxels that are not zero in some channel.

    Raises:
        InputError: The field of view is too large or too small to be a head; see `onto_plan`.
    """
    framed = frame(volume, plan)
    present = tuple(bool(channel.any()) for channel in framed.data)
    data = _normalized(framed.data, plan)
    if plan.resampling is not None:
        own_mm, target_mm = _spacings(framed, plan)
        data = resize(data, target_shape(data.shape[1:], own_mm, target_mm), plan.resampling.image, own_mm, target_mm)
    return Prepared(data, present, framed)


def onto_frame(prepared: Prepared, logits: NDArray[np.float32], plan: Plan) -> NDArray[np.float32]:
    """Return a network's logits `(R, ...)` on the grid of `prepared.framed`; the same array without `Plan.resampling`.

    nnU-Net resamples logits rather than probabilities, so this comes before the sigmoid or softmax.
    """
    if plan.resampling is None:
        return logits
    x, y, z = prepared.framed.data.shape[1:]
    own_mm, target_mm = _spacings(prepared.framed, plan)
    return resize(logits, (x, y, z), plan.resampling.output, target_mm, own_mm)


def restore(prepared: Prepared, channels: NDArray[np.float32]) -> Volume:
    """Return a network's output on the grid of the original volume.

    Args:
        prepared: The value that `prepare` returned.
        channels: `(R, x, y, z)` on the grid of `prepared.framed`, such as probabilities (see `onto_frame`).

    Returns:
        `(R, X, Y, Z)`, zero outside the brain's bounding box, with exactly the original affine.
    """
    framed = prepared.framed
    full = np.zeros((len(channels), *framed.grid.shape), dtype=channels.dtype)
    x, y, z = framed.box
    full[:, x, y, z] = channels
    volume = Volume(full, framed.grid.affine)
    oriented = _oriented(framed.original, framed.grid.axes)
    if oriented.shape != framed.grid.shape or not np.array_equal(oriented.affine, framed.grid.affine):
        volume = resample(volume, oriented)
    return Volume(reorient(volume, framed.original.axes).data, framed.original.affine)


def common_spacing(cases: Sequence[Case], axes: str) -> Spacing:
    """Return the median voxel size of some cases along each of the axes, rounded to 0.01 mm; reads headers only.

    A file whose header is bad is skipped; what is wrong with it is reported where its case is read.

    Raises:
        InputError: There is no case with images, or no header can be read.
    """
    grids, problems = [], []
    for case in cases:
        if case.images:
            try:
                grids.append(read_grid(next(iter(case.images.values())).path)[0])
            except InputError as error:
                problems.append(str(error))
    if not grids:
        raise InputError("; ".join(problems) or "no case with images: nothing to prepare.")
    x, y, z = np.median([_oriented(grid, axes).spacing_mm for grid in grids], axis=0).round(2).tolist()
    return x, y, z


def frame(volume: Volume, plan: Plan) -> Framed:
    """Replace outliers, reorient, resample and crop to the brain: all of `prepare` but the normalization.

    Prediction and the training cache both use it, so that a network gets the same intensities in both.

    Raises:
        InputError: As for `onto_plan`.
    """
    repaired, replaced = replace_outliers(volume)
    oriented = onto_plan(repaired, plan)
    x, y, z = box = brain_box(oriented.data) if plan.crop else _whole(oriented.data)
    # A copy rather than a view, so that the memory of the whole volume is free while the network runs.
    return Framed(np.ascontiguousarray(oriented.data[:, x, y, z]), box, oriented.grid, volume.grid, replaced)


def replace_outliers(volume: Volume) -> tuple[Volume, tuple[int, ...]]:
    """Replace each voxel far outside the range of all others by the median of its neighbours.

    A few such voxels would change the mean and the standard deviation of a whole channel, and with them the answer
    everywhere. What counts as far is defined by `inspection.find_outliers`; it does not concern ordinary images.

    Returns:
        The volume and the number of voxels replaced in each channel. Without any it is the same object as `volume`.
    """
    data = volume.data
    replaced = []
    for number, channel in enumerate(volume.data):
        outliers = find_outliers(channel)
        replaced.append(0 if outliers is None else int(np.count_nonzero(outliers)))
        if outliers is not None:
            data = volume.data.copy() if data is volume.data else data
            _fill(data[number], outliers)
    return (volume if data is volume.data else Volume(data, volume.affine)), tuple(replaced)


def _fill(channel: NDArray[Any], holes: NDArray[np.bool_]) -> None:
    """Set some voxels of a channel, in place, to the median of their neighbours; larger holes from outside inwards."""
    holes = holes.copy()
    last = np.array(channel.shape) - 1
    while holes.any():
        places = np.argwhere(holes)
        around = places[:, None] + _NEIGHBOURS  # (N, 26, 3)
        usable = ((around >= 0) & (around <= last)).all(axis=2)
        index = tuple(np.clip(around, 0, last).transpose(2, 0, 1))
        usable &= ~holes[index]
        border = usable.any(axis=1)
        if not border.any():
            return
        values = np.where(usable, channel[index].astype(np.float64), np.nan)[border]
        medians = np.nanmedian(values, axis=1)
        edge = tuple(places[border].T)
        channel[edge] = np.rint(medians) if channel.dtype.kind in "iu" else medians
        holes[edge] = False


def onto_plan(volume: Volume, plan: Plan, *, nearest: bool = False) -> Volume:
    """Return the volume in the plan's orientation and spacing; a view where neither changes it.

    With `Plan.resampling` the voxel size stays, because it is changed after cropping.

    Args:
        volume: Any channels.
        plan: The plan.
        nearest: Use the nearest voxel instead of interpolating, for labels; see `resample`.

    Raises:
        InputError: The volume must be resampled and its field of view is larger than 64 litres or smaller than 5 mm,
            so that its voxel size cannot be right.
    """
    oriented = reorient(volume, plan.axes)
    if np.allclose(oriented.spacing_mm, plan.spacing_mm, rtol=_SAME_SPACING, atol=0):
        return oriented
    _check_field_of_view(oriented.grid)
    if plan.resampling is not None:
        return oriented
    return resample(oriented, grid_at_spacing(oriented.grid, plan.spacing_mm), nearest=nearest)


def _check_field_of_view(grid: Grid) -> None:
    edges_mm = [count * mm for count, mm in zip(grid.shape, grid.spacing_mm, strict=True)]
    if np.prod(edges_mm) / 1e6 <= _LARGEST_FIELD_LITRES and min(edges_mm) >= _SMALLEST_FIELD_MM:
        return
    voxel, field = (" x ".join(f"{mm:.4g}" for mm in sizes) for sizes in (grid.spacing_mm, edges_mm))
    raise InputError(
        f"its header gives voxels of {voxel} mm and a field of view of {field} mm, which is no head's. "
        "Correct the voxel size, or convert the images again from DICOM."
    )


def brain_box(data: NDArray[Any]) -> Box:
    """Return the box around the voxels that are not zero in some channel of `(C, X, Y, Z)`; see `main_box`.

    If all voxels are zero, it is the whole grid.
    """
    return main_box(np.asarray(data.any(axis=0))) or _whole(data)


def _whole(data: NDArray[Any]) -> Box:
    x, y, z = (slice(0, edge) for edge in data.shape[1:])
    return x, y, z


def channel_moments(channel: NDArray[Any]) -> Moments:
    """Return the moments of one channel; the standard deviation of a missing or constant channel is given as 1."""
    voxels = channel[channel != 0]
    if not len(voxels):
        return Moments(0.0, 1.0, 0.0, 0.0)
    # The sums need float64: float32 is not precise enough to add up the million voxels of a brain.
    std = float(voxels.std(dtype=np.float64))
    return Moments(float(voxels.mean(dtype=np.float64)), std or 1.0, float(channel.min()), float(channel.max()))


def normalize(data: NDArray[Any], moments: Sequence[Moments], normalization: Normalization) -> NDArray[np.float32]:
    """Return normalized intensities, `(C, ...)`, float32; zero voxels stay zero.

    Args:
        data: Intensities as stored, of the whole brain or a part of it.
        moments: The moments of each channel over the whole brain.
        normalization: See `Plan.normalization`.
    """
    result = np.empty(data.shape, dtype=np.float32)
    for channel, moment, out in zip(data, moments, result, strict=True):
        zero, factor = scale_of(moment, normalization)
        np.subtract(channel, zero, out=out, casting="unsafe")
        out *= factor
        out[channel == 0] = 0
    return result


def _normalized(data: NDArray[Any], plan: Plan) -> NDArray[np.float32]:
    """Return the box with each sequence normalized as described by the plan."""
    rules = plan.normalizations
    brain = _filled(data) if "zscore_brain" in rules else None
    result = np.empty(data.shape, dtype=np.float32)
    for number, rule in enumerate(rules):
        channel = data[number : number + 1]
        if rule == "zscore" or rule == "minmax":
            result[number] = normalize(channel, [channel_moments(channel[0])], rule)
        else:
            result[number] = _whole_channel(channel[0].astype(np.float32), rule, brain)
    return result


def _filled(data: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the voxels that are not zero in some channel, and those that they enclose."""
    from scipy.ndimage import binary_fill_holes

    return np.asarray(binary_fill_holes(np.asarray(data.any(axis=0))))


def _whole_channel(
    channel: NDArray[np.float32], rule: ChannelNormalization, brain: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Return one channel normalized by a rule in which zero is an intensity like others."""
    if rule == "none":
        return channel
    if rule == "rescale":
        least, most = float(channel.min()), float(channel.max())
        return np.asarray((channel - np.float32(least)) * np.float32(1 / (most - least or 1.0)))
    inside = np.ones(channel.shape, bool) if rule == "zscore_box" or brain is None else brain
    voxels = channel[inside]
    if not voxels.size:
        return channel
    mean, std = float(voxels.mean(dtype=np.float64)), float(voxels.std(dtype=np.float64))
    return np.where(inside, (channel - np.float32(mean)) * np.float32(1 / (std or 1.0)), channel)


def _spacings(framed: Framed, plan: Plan) -> tuple[Spacing, Spacing]:
    """Return the voxel size of the box and that which the network gets."""
    own_mm = framed.grid.spacing_mm
    return own_mm, target_spacing(plan, own_mm)


def scale_of(moments: Moments, normalization: Normalization) -> tuple[np.float32, np.float32]:
    """Return the intensity that becomes 0, and the factor by which differences from it are multiplied."""
    if normalization == "zscore":
        return np.float32(moments.mean), np.float32(1 / moments.std)
    return np.float32(moments.least), np.float32(1 / ((moments.most - moments.least) or 1.0))


def _oriented(grid: Grid, axes: str) -> Grid:
    return reorient(Volume(np.broadcast_to(False, (1, *grid.shape)), grid.affine), axes).grid
