"""Changes of one channel's intensities, voxel by voxel: contrast, brightness, gamma, noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gliomask.training.augment.brain import inside, moments
from gliomask.training.augment.draws import chance, seed, uniform
from gliomask.training.augment.settings import Augmentation


@dataclass(frozen=True)
class Contrast:
    """A linear change of one channel: the distance from its mean times `factor`, and `shift` of its sd added."""

    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Gamma:
    """A power law for one channel, or for its negative."""

    exponent: float
    inverted: bool = False


@dataclass(frozen=True)
class Noise:
    """Gaussian noise for one channel: its sd as a share of the channel's own, and the seed it is drawn with."""

    sd: float
    seed: int


def sample_contrast(generator: torch.Generator, settings: Augmentation) -> Contrast | None:
    """Draw the factor and the shift; either may come without the other."""
    stretches = chance(generator, settings.contrast_probability)
    shifts = chance(generator, settings.brightness_probability)
    if not stretches and not shifts:
        return None
    return Contrast(
        uniform(generator, settings.contrast_range) if stretches else 1.0,
        uniform(generator, settings.brightness_range) if shifts else 0.0,
    )


def apply_contrast(channel: Tensor, brain: Tensor, contrast: Contrast) -> Tensor:
    """Return the channel with its sd over the brain times the factor, and its mean moved by the shift."""
    mean, sd = moments(channel, brain)
    return inside((channel * contrast.factor).add_(mean * (1 - contrast.factor) + contrast.shift * sd), brain)


def sample_gamma(generator: torch.Generator, settings: Augmentation, *, inverted: bool = False) -> Gamma | None:
    """Draw the exponent; the negative has a probability of its own."""
    probability = settings.inverted_gamma_probability if inverted else settings.gamma_probability
    return Gamma(uniform(generator, settings.gamma_range), inverted) if chance(generator, probability) else None


def apply_gamma(channel: Tensor, brain: Tensor, gamma: Gamma) -> Tensor:
    """Return the channel with its brain's range rescaled to [0, 1], raised, and given its old mean and sd again.

    Inverted, the range is rescaled to [1, 0] and turned back afterwards. Either way brighter stays brighter.
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
    """Draw the strength and a seed."""
    if not chance(generator, settings.noise_probability):
        return None
    return Noise(uniform(generator, settings.noise_range), seed(generator))


def apply_noise(channel: Tensor, brain: Tensor, noise: Noise) -> Tensor:
    """Return the channel with independent Gaussian noise in each voxel of the brain."""
    _, sd = moments(channel, brain)
    generator = torch.Generator(channel.device).manual_seed(noise.seed)
    drawn = torch.randn(channel.shape, generator=generator, device=channel.device)
    return inside(drawn.mul_(noise.sd * sd).add_(channel), brain)
