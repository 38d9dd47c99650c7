"""Lower resolution of a sequence than that of its grid: blur, large voxels, thick slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gliomask.training.augment.axes import multiply_axes
from gliomask.training.augment.brain import inside
from gliomask.training.augment.draws import chance, integer, uniform
from gliomask.training.augment.settings import Augmentation


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of one channel."""

    sigma_voxels: float


@dataclass(frozen=True)
class LowResolution:
    """The edges, along X, Y, Z, of the voxels in which one channel was acquired, in voxels of the patch."""

    edges: tuple[float, float, float]


def sample_blur(generator: torch.Generator, settings: Augmentation) -> Blur | None:
    """Draw the width of the blur, or None."""
    return Blur(uniform(generator, settings.blur_range)) if chance(generator, settings.blur_probability) else None


def apply_blur(channel: Tensor, brain: Tensor, blur: Blur) -> Tensor:
    """Return the channel blurred along all axes, with 0 as background and the outermost voxels repeated."""
    return inside(multiply_axes(channel, [_gaussian(size, blur.sigma_voxels) for size in channel.shape]), brain)


def sample_low_resolution(generator: torch.Generator, settings: Augmentation) -> LowResolution | None:
    """Draw an edge for all axes, a slice thickness for one axis, or both (then the larger is used), or None."""
    coarse = chance(generator, settings.low_resolution_probability)
    thick = chance(generator, settings.thick_slices_probability)
    if not coarse and not thick:
        return None
    edges = [uniform(generator, settings.low_resolution_range) if coarse else 1.0] * 3
    if thick:
        axis = integer(generator, (0, 2))
        edges[axis] = max(edges[axis], uniform(generator, settings.thick_slices_range))
    return LowResolution((edges[0], edges[1], edges[2]))


def sample_thick_scan(generator: torch.Generator, settings: Augmentation) -> LowResolution | None:
    """Draw an axis and the slice thickness of all sequences along it, or None; without drawing if it is off."""
    if not settings.thick_scan_probability or not chance(generator, settings.thick_scan_probability):
        return None
    edges = [1.0, 1.0, 1.0]
    edges[integer(generator, (0, 2))] = uniform(generator, settings.thick_slices_range)
    return LowResolution((edges[0], edges[1], edges[2]))


def coarser(one: LowResolution | None, other: LowResolution | None) -> LowResolution | None:
    """Return the larger edges of the two, each of which may be None."""
    if one is None or other is None:
        return one or other
    x, y, z = map(max, one.edges, other.edges)
    return LowResolution((x, y, z))


def apply_low_resolution(channel: Tensor, brain: Tensor, low: LowResolution) -> Tensor:
    """Return the channel as if it had been acquired with larger voxels and resampled to this grid.

    A large voxel is the mean over its extent, as in a scanner (nnU-Net takes one voxel of it); the channel is resampled
    back linearly. Along each axis a whole number of large voxels fills the patch. The background counts as 0.
    """
    sizes = [max(1, round(size / edge)) for size, edge in zip(channel.shape, low.edges, strict=True)]
    matrices = [
        None if few == size else _there_and_back(size, few) for size, few in zip(channel.shape, sizes, strict=True)
    ]
    return inside(multiply_axes(channel, matrices), brain)


def _gaussian(size: int, sigma: float) -> Tensor:
    """Return a Gaussian blur as a matrix, cut off at 3 sigma; weights beyond an end are added to the end voxel."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    columns = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, columns, (weights / weights.sum()).expand(size, -1))


def _there_and_back(size: int, few: int) -> Tensor:
    """Return the matrix, `(size, size)`, of averaging to `few` larger voxels and of linear interpolation back."""
    ends = torch.arange(few + 1, dtype=torch.float64) * (size / few)
    voxels = torch.arange(size)
    overlap = torch.minimum(ends[1:, None], voxels + 1) - torch.maximum(ends[:-1, None], voxels)
    there = overlap.clamp(min=0) * (few / size)
    place = ((voxels + 0.5) * (few / size) - 0.5).clamp(0, few - 1)
    back = (1 - (place[:, None] - torch.arange(few)).abs()).clamp(min=0).double()
    return (back @ there).float()
