"""Voxels with intensities far outside the range of all others, as damaged or badly converted images have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.inspection.sampled import Samples
from gliomask.volume import Volume

# The largest distance from the median, in units of the 99th percentile's (or, for darker voxels, the first's) distance.
# In 244 images of 61 real cases the brightest voxel lies at 9.8 and the darkest at 2.9.
_FARTHEST = 15.0
# Percentiles are taken from about this many voxels, evenly spaced over the grid, to save time.
_SAMPLED_VOXELS = 150_000
# With fewer voxels that are not zero, percentiles mean nothing.
_FEWEST_VOXELS = 100


def find_outliers(channel: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return the voxels with an intensity far outside the range of all others, or None if there are none.

    Far means 15 times as far from the median as 99 % of the voxels brighter or darker than it. Zero is background and
    never an outlier. More than 1 % of such voxels are not found: they belong to the distribution.

    Args:
        channel: One sequence, `(X, Y, Z)`, finite.
    """
    lowest, highest = ordinary_range(channel)
    # Minimum and maximum are much faster than comparing every voxel, and enough for almost all images.
    if channel.min() >= lowest and channel.max() <= highest:
        return None
    outliers: NDArray[np.bool_] = ((channel < lowest) | (channel > highest)) & (channel != 0)
    return outliers if outliers.any() else None


def ordinary_range(channel: NDArray[Any]) -> tuple[float, float]:
    """Return the lowest and the highest intensity that is not an outlier; infinite where this cannot be judged."""
    step = max(1, round((channel.size / _SAMPLED_VOXELS) ** (1 / 3)))
    sample = channel[::step, ::step, ::step]
    sample = sample[sample != 0]
    if len(sample) < _FEWEST_VOXELS:
        sample = channel[channel != 0]
    if len(sample) < _FEWEST_VOXELS:
        return -np.inf, np.inf
    low, middle, high = np.percentile(sample, (1, 50, 99)).tolist()
    lowest = middle - _FARTHEST * (middle - low) if low < middle else -np.inf
    highest = middle + _FARTHEST * (high - middle) if high > middle else np.inf
    return lowest, highest


def spikes(volume: Volume, modalities: Sequence[str], samples: Samples) -> str | None:
    """Describe the images that have outliers, with their number and the farthest one."""
    found = []
    for modality, channel in zip(modalities, volume.data, strict=True):
        outliers = find_outliers(channel)
        if outliers is not None:
            values = channel[outliers]
            farthest = float(values[np.abs(values.astype(np.float64)).argmax()])
            count = f"{len(values)} voxel{'' if len(values) == 1 else 's'}"
            found.append(f"{samples.named([modality])}: {count} (the farthest is {farthest:g})")
    if not found:
        return None
    return (
        f"{'; '.join(found)} with intensities far outside the range of all others. They are replaced by the median of "
        "their neighbours before the intensities are normalized. Check how the images were exported."
    )
