"""Lower or higher contrast of a tumour region to its surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gliomask.training.augment.brain import find_brain, find_present
from gliomask.training.augment.draws import chance, integer, uniform
from gliomask.training.augment.masks import box_around, grown, smoothed
from gliomask.training.augment.settings import Range

_FACTORS: Range = (0.15, 1.4)
# The probability of removing the enhancement completely if the enhancing region is drawn.
_GONE = 0.25
# The width in voxels of the surroundings that a region is compared with, and of the seam where the change fades out.
_SURROUNDINGS = 4
_SEAM = 2


@dataclass(frozen=True)
class LesionContrast:
    """One region, and for each channel the factor on its difference from the surroundings."""

    region: int
    factors: tuple[float, ...]
    gone: bool = False
    """Whether the region is also removed from the target."""


def sample_lesion_contrast(
    generator: torch.Generator,
    probability: float,
    present: Sequence[int],
    channels: int,
    enhancing: tuple[int, int] | None = None,
) -> LesionContrast | None:
    """Draw one of the present regions and a factor for each channel, or None.

    Args:
        generator, probability: As in the other `sample_*` functions.
        present: The indices of the regions in the patch; None is returned if it is empty.
        channels: The number of channels.
        enhancing: The indices of the enhancing region and of the channel with contrast agent, if both exist. This
            region is sometimes removed completely: it is visible in one sequence only, so a core without enhancement
            remains.
    """
    if not chance(generator, probability) or not present:
        return None
    region = present[integer(generator, (0, len(present) - 1))]
    factors = tuple(uniform(generator, _FACTORS) for _ in range(channels))
    if enhancing is None or region != enhancing[0] or not chance(generator, _GONE):
        return LesionContrast(region, factors)
    return LesionContrast(region, tuple(float(channel != enhancing[1]) for channel in range(channels)), gone=True)


def apply_lesion_contrast(image: Tensor, target: Tensor, change: LesionContrast) -> tuple[Tensor, Tensor]:
    """Return the patch with the region's intensities moved towards or away from the median of its surroundings.

    The difference between a voxel and that median is multiplied up to the local mean of the region; the part beyond the
    mean is texture and is kept, and so are voxels on the other side of the median, such as dark gaps in a bright rim.
    The change fades out over a seam of a few voxels. Channels of zeros and the outline of the brain do not change.

    Args:
        image, target: `(C, X, Y, Z)`, normalized, 0 outside the brain, and `(R, X, Y, Z)`.
        change: As returned by `sample_lesion_contrast`.

    Source: our own. Without it, models missed the held-out cases with the faintest enhancement, of which a few dozen
        training cases contain hardly any (figures in recipes/README.md).
    """
    image, target = image.clone(), target.clone()
    box = box_around(target[change.region], _SURROUNDINGS + 2 * _SEAM)
    if box is None:
        return image, target
    part, mask = image[box], target[box][change.region]
    brain = find_brain(part)
    around = grown(mask, _SURROUNDINGS) & ~mask & brain
    if not around.any():
        return image, target
    share = smoothed(mask.float(), _SEAM)
    weight = smoothed(grown(mask, 1).float(), 1) * brain
    for channel in find_present(image):
        values = part[channel]
        level = values[around].median()
        nearby = smoothed(values * mask, _SEAM) / share.clamp(min=1e-6)
        mean = torch.where(share > 1e-6, nearby - level, 0.0)
        difference = (values - level).clamp(mean.clamp(max=0.0), mean.clamp(min=0.0))
        values.add_(weight * difference, alpha=change.factors[channel] - 1)
    if change.gone:
        target[change.region] = False
    return image, target
