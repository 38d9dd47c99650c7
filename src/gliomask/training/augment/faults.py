"""Faults of whole sequences: a bias field, an inexact registration, a missing sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gliomask.errors import InputError
from gliomask.training.augment.axes import multiply_axes
from gliomask.training.augment.brain import find_present, inside
from gliomask.training.augment.draws import chance, integer, seed, uniform
from gliomask.training.augment.settings import Augmentation

# The number of cosines of the bias field along each axis: constant, half a wave and one wave over the patch.
_WAVES = 3


@dataclass(frozen=True)
class BiasField:
    """Uneven sensitivity of the coil for one channel: the standard deviation of its logarithm, and the seed."""

    strength: float
    seed: int


@dataclass(frozen=True)
class Shift:
    """A displacement of one channel along X, Y, Z, in voxels."""

    channel: int
    voxels: tuple[int, int, int]


def sample_bias_field(generator: torch.Generator, settings: Augmentation) -> BiasField | None:
    """Draw the strength and the seed, or None."""
    if not chance(generator, settings.bias_field_probability):
        return None
    return BiasField(uniform(generator, settings.bias_field_range), seed(generator))


def apply_bias_field(channel: Tensor, brain: Tensor, bias: BiasField) -> Tensor:
    """Return the channel multiplied by the field, with its darkest voxel in the brain as zero.

    Normalized intensities no longer have the scanner's zero; the darkest voxel is close to it and does not change.
    """
    dark = torch.where(brain, channel, math.inf).amin().item()
    if dark == math.inf:
        return channel
    return inside(draw_bias_field(channel.shape, bias).to(channel.device).mul_(channel - dark).add_(dark), brain)


def draw_bias_field(shape: torch.Size, bias: BiasField) -> Tensor:
    """Return the field: positive, smooth, with a mean of about 1.

    Its logarithm is a sum of cosines with at most one wave over the patch along each axis; slower waves are stronger.

    Source: Ashburner and Friston 2005, doi:10.1016/j.neuroimage.2005.02.018, where a bias field is that.
    """
    wave = torch.arange(_WAVES)
    order = wave[:, None, None] + wave[:, None] + wave
    drawn = torch.randn(order.shape, generator=torch.Generator().manual_seed(bias.seed)) / order.clamp(min=1)
    drawn[0, 0, 0] = 0
    power = 0.5 ** (wave > 0).float()  # a cosine's mean square
    sd = (drawn.square() * power[:, None, None] * power[:, None] * power).sum().sqrt().item()
    cosines = [torch.cos(math.pi * (torch.arange(size)[:, None] + 0.5) / size * wave) for size in shape]
    # The exponential of a Gaussian with this standard deviation has mean 1 after subtracting half its variance.
    return multiply_axes(drawn * (bias.strength / sd), cosines).sub_(bias.strength**2 / 2).exp_()


def sample_shift(generator: torch.Generator, settings: Augmentation, present: list[int]) -> Shift | None:
    """Draw one of the present channels and its displacement, or None; a single channel is never shifted."""
    if not chance(generator, settings.shift_probability) or len(present) < 2:
        return None
    least, most = settings.shift_range
    far = integer(generator, (round(least), round(most)))
    voxels = [integer(generator, (-far, far)) for _ in range(3)]
    voxels[integer(generator, (0, 2))] = far if chance(generator, 0.5) else -far
    return Shift(present[integer(generator, (0, len(present) - 1))], (voxels[0], voxels[1], voxels[2]))


def apply_shift(channel: Tensor, brain: Tensor, shift: Shift) -> Tensor:
    """Return the shifted channel; voxels into which no brain is shifted, at the outline and the faces, do not change.

    The channel thus keeps the outline that all channels share (BraTS crops after registration) and has no gaps.
    """
    sizes = list(zip(channel.shape, shift.voxels, strict=True))
    into = tuple(slice(max(by, 0), max(size + min(by, 0), 0)) for size, by in sizes)
    out_of = tuple(slice(max(-by, 0), max(size - max(by, 0), 0)) for size, by in sizes)
    moved = channel.clone()
    moved[into] = torch.where(brain[into] & brain[out_of], channel[out_of], channel[into])
    return moved


def drop_modalities(image: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Return a copy of the image with each channel set to 0 with this probability, but never all of them.

    If all present channels (not 0 everywhere) were drawn, one of them is kept, each with the same probability.

    Raises:
        InputError: The probability is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise InputError(f"the probability of dropping a modality must lie in [0, 1]; got {probability}")
    result = image.clone()
    result[sample_dropped(generator, find_present(image), probability)] = 0.0
    return result


def keep_one_modality(image: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Return the image, or with this probability a copy in which all present channels but one are set to 0.

    Each present channel (not 0 everywhere) is kept with the same probability.

    Raises:
        InputError: The probability is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise InputError(f"the probability of keeping one modality only must lie in [0, 1]; got {probability}")
    present = find_present(image)
    if not chance(generator, probability) or not present:
        return image
    kept = present[integer(generator, (0, len(present) - 1))]
    result = torch.zeros_like(image)
    result[kept] = image[kept]
    return result


def sample_dropped(generator: torch.Generator, present: list[int], probability: float) -> list[int]:
    """Draw which of the present channels are removed; at least one is kept."""
    dropped = [channel for channel in present if chance(generator, probability)]
    if present and dropped == present:
        dropped.pop(integer(generator, (0, len(present) - 1)))
    return dropped
