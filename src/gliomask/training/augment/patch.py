"""All changes of a patch, in the order in which they are applied."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gliomask.training.augment.brain import find_brain, find_present
from gliomask.training.augment.faults import (
    BiasField,
    apply_bias_field,
    apply_shift,
    sample_bias_field,
    sample_shift,
)
from gliomask.training.augment.intensity import (
    Contrast,
    Gamma,
    Noise,
    apply_contrast,
    apply_gamma,
    apply_noise,
    sample_contrast,
    sample_gamma,
    sample_noise,
)
from gliomask.training.augment.resolution import (
    Blur,
    LowResolution,
    apply_blur,
    apply_low_resolution,
    coarser,
    sample_blur,
    sample_low_resolution,
    sample_thick_scan,
)
from gliomask.training.augment.settings import DEFAULT, Augmentation
from gliomask.training.augment.spatial import apply_flip, apply_turn, sample_flip, sample_turn


@dataclass(frozen=True)
class Intensity:
    """The changes of one channel, in the order in which they are applied; None: no change."""

    bias_field: BiasField | None = None
    low_resolution: LowResolution | None = None
    blur: Blur | None = None
    contrast: Contrast | None = None
    inverted_gamma: Gamma | None = None
    gamma: Gamma | None = None
    noise: Noise | None = None


def augment(
    image: Tensor, target: Tensor, generator: torch.Generator, settings: Augmentation = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Return a randomly changed patch, image and target, in new memory.

    On a CPU, the same state of the generator gives the same bits. The changes are computed on the device of image and
    target; on another device rounding and the noise differ. About 4 times the image's memory is needed in addition.

    Args:
        image, target: On one grid `(X, Y, Z)` of any size; see `gliomask.training.augment`.
        generator: A generator on the CPU; its state advances.
        settings: The probabilities and strengths of the changes.
    """
    assert image.shape[1:] == target.shape[1:], f"one grid is needed; got {image.shape} and {target.shape}"
    flip = sample_flip(generator, settings)
    turn = sample_turn(generator, settings)
    shift = sample_shift(generator, settings, find_present(image))
    intensities = [sample_intensity(generator, settings) for _ in image]
    thick = sample_thick_scan(generator, settings)
    intensities = [replace(each, low_resolution=coarser(each.low_resolution, thick)) for each in intensities]
    if turn is None:
        image, target = apply_flip(image, target, flip)
    else:
        image, target = apply_turn(image, target, turn, flip)
    brain = find_brain(image)
    # From here on `image` is a copy, whose channels may be overwritten.
    if shift is not None:
        image[shift.channel] = apply_shift(image[shift.channel], brain, shift)
    for channel, intensity in zip(image, intensities, strict=True):
        if intensity != Intensity():
            channel.copy_(apply_intensity(channel, brain, intensity))
    return image, target


def sample_intensity(generator: torch.Generator, settings: Augmentation) -> Intensity:
    """Draw the changes of one channel."""
    return Intensity(
        bias_field=sample_bias_field(generator, settings),
        low_resolution=sample_low_resolution(generator, settings),
        blur=sample_blur(generator, settings),
        contrast=sample_contrast(generator, settings),
        inverted_gamma=sample_gamma(generator, settings, inverted=True),
        gamma=sample_gamma(generator, settings),
        noise=sample_noise(generator, settings),
    )


def apply_intensity(channel: Tensor, brain: Tensor, intensity: Intensity) -> Tensor:
    """Return one channel changed inside the brain; a channel of zeros does not change."""
    if intensity.bias_field is not None:
        channel = apply_bias_field(channel, brain, intensity.bias_field)
    if intensity.low_resolution is not None:
        channel = apply_low_resolution(channel, brain, intensity.low_resolution)
    if intensity.blur is not None:
        channel = apply_blur(channel, brain, intensity.blur)
    if intensity.contrast is not None:
        channel = apply_contrast(channel, brain, intensity.contrast)
    for gamma in (intensity.inverted_gamma, intensity.gamma):
        if gamma is not None:
            channel = apply_gamma(channel, brain, gamma)
    if intensity.noise is not None:
        channel = apply_noise(channel, brain, intensity.noise)
    return channel
