"""Changes of the intensities of one channel: contrast, brightness, gamma, noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gliomask.training.augment.brain import inside, moments
from gliomask.training.augment.draws import chance, seed, uniform
from gliomask.training.augment.settings import Augmentation


@dataclass(frozen=True)
class Contrast:
    """A linear change of one channel: deviations from its mean times `factor`, plus `shift` standard deviations."""

    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Gamma:
    """A power law for one channel, or for its negative."""

    exponent: float
    inverted: bool = False


@dataclass(frozen=True)
class Noise:
    """Gaussian noise for one channel: its standard deviation as a fraction of the channel's, and the seed."""

    sd: float
    seed: int


def sample_contrast(generator: torch.Generator, settings: Augmentation) -> Contrast | None:
    """Draw the factor and the shift, each with its own probability, or None."""
    stretches = chance(generator, settings.contrast_probability)
    shifts = chance(generator, settings.brightness_probability)
    if not stretches and not shifts:
        return None
    return Contrast(
        uniform(generator, settings.contrast_range) if stretches else 1.0,
        uniform(generator, settings.brightness_range) if shifts else 0.0,
    )


def apply_contrast(channel: Tensor, brain: Tensor, contrast: Contrast) -> Tensor:
    """Return the channel with its standard deviation over the brain scaled and its mean shifted."""
    mean, sd = moments(channel, brain)
    return inside((channel * contrast.factor).add_(mean * (1 - contrast.factor) + contrast.shift * sd), brain)


def sample_gamma(generator: torch.Generator, settings: Augmentation, *, inverted: bool = False) -> Gamma | None:
    """Draw the exponent, or None; `inverted` has a probability of its own."""
    probability = settings.inverted_gamma_probability if inverted else settings.gamma_probability
    return Gamma(uniform(generator, settings.gamma_range), inverted) if chance(generator, probability) else None


def apply_gamma(channel: Tensor, brain: Tensor, gamma: Gamma) -> Tensor:
    """Return the channel with its range over the brain rescaled to [0, 1], raised to the exponent, and scaled back.

    The mean and the standard deviation are restored. If inverted, the range is rescaled to [1, 0] and turned back
    afterwards. In both cases the order of intensities is kept.
    """
    mean, sd = moments(channel, brain)
    raised = torch.where(brain, channel, mean)  # the background must not widen the range
    first, last = (bound.item() for bound in raised.aminmax())
    if first == last:
        return channel
    if gamma.inverted:
        first, last, sd = last, first, -sd
    raised = inside(raised.sub_(first).div_(last - first).pow_(gamma.exponent), brain)
    raised_mean, raised_sd = moments(raised, brain)
    return inside(raised.sub_(raised_mean).mul_(sd / raised_sd).add_(mean), brain)


def sample_noise(generator: torch.Generator, settings: Augmentation) -> Noise | None:
    """Draw the strength and the seed, or None."""
    if not chance(generator, settings.noise_probability):
        return None
    return Noise(uniform(generator, settings.noise_range), seed(generator))


def apply_noise(channel: Tensor, brain: Tensor, noise: Noise) -> Tensor:
    """Return the channel with independent Gaussian noise in each voxel of the brain."""
    _, sd = moments(channel, brain)
    generator = torch.Generator(channel.device).manual_seed(noise.seed)
    drawn = torch.randn(channel.shape, generator=generator, device=channel.device)
    return inside(drawn.mul_(noise.sd * sd).add_(channel), brain)
