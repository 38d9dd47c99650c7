"""A tumour that stands out less from its surroundings, or more, than the one that was scanned."""

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
# How often enhancement goes altogether, where it is the enhancement's turn.
_GONE = 0.25
# Voxels around a region that it is compared with, and over which the change fades out.
_SURROUNDINGS = 4
_SEAM = 2


@dataclass(frozen=True)
class LesionContrast:
    """One region, and for each channel by what its difference from the surroundings is multiplied."""

    region: int
    factors: tuple[float, ...]
    gone: bool = False
    """The region leaves the truth with it."""


def sample_lesion_contrast(
    generator: torch.Generator,
    probability: float,
    present: Sequence[int],
    channels: int,
    enhancing: tuple[int, int] | None = None,
) -> LesionContrast | None:
    """Draw whether, which of the present regions, and how much of it is left in each channel.

    Args:
        generator, probability: As everywhere.
        present: The regions that the patch has; none of them: None is returned.
        channels: How many.
        enhancing: The region and the channel of contrast enhancement, where both are known. That one also vanishes at
            times: it alone is seen in one sequence only, so that what is left is core without enhancement.
    """
    if not chance(generator, probability) or not present:
        return None
    region = present[integer(generator, (0, len(present) - 1))]
    factors = tuple(uniform(generator, _FACTORS) for _ in range(channels))
    if enhancing is None or region != enhancing[0] or not chance(generator, _GONE):
        return LesionContrast(region, factors)
    return LesionContrast(region, tuple(float(channel != enhancing[1]) for channel in range(channels)), gone=True)


def apply_lesion_contrast(image: Tensor, target: Tensor, change: LesionContrast) -> tuple[Tensor, Tensor]:
    """Return the patch with the region in each channel moved to or from the median of what lies around it.

    A voxel's difference from that median is multiplied as far as the region's mean nearby goes; what is beyond the mean
    is texture, and stays. So does what lies on the median's other side, dark gaps in a bright rim for example. Across a
    seam of some voxels the change fades out. A channel of 0s stays, and so does the outline of the brain.

    Args:
        image, target: `(C, X, Y, Z)`, normalized, 0 outside the brain, and `(R, X, Y, Z)`. Left unchanged.
        change: As sampled.

    Source: ours. Without it, the held-out cases with the faintest enhancement were the ones that were missed; a few
        dozen cases hold hardly any (recipes/README.md has the figures).
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
