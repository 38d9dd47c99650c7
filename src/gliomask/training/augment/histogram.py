"""Histogram matching: intensities of another patient's scanner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gliomask.training.augment.draws import chance, uniform

_POINTS = 65
_MOST_VOXELS = 40_000


@dataclass(frozen=True)
class HistogramMix:
    """How far each channel's histogram is moved towards the donor's: 0 not at all, 1 completely."""

    shares: tuple[float, ...]


def sample_histogram_mix(generator: torch.Generator, probability: float, channels: int) -> HistogramMix | None:
    """Draw how far each channel is moved, or None."""
    if not chance(generator, probability):
        return None
    return HistogramMix(tuple(uniform(generator, (0.0, 1.0)) for _ in range(channels)))


def apply_histogram_mix(image: Tensor, donor: Tensor, mix: HistogramMix) -> Tensor:
    """Return the image with the quantiles of each channel over the brain moved towards those of the donor.

    The order of intensities is kept; values beyond the outermost quantiles move with them. A channel that is 0
    everywhere in the image or the donor is not changed.

    Args:
        image, donor: `(C, X, Y, Z)`, normalized, 0 outside the brain; on any two grids and the same device.
        mix: As returned by `sample_histogram_mix`.

    Source: Nyul and Udupa 1999, Magnetic Resonance in Medicine 42(6), map quantiles onto those of a template; a random
        fraction of the way to a random case is our addition.
    """
    mixed = image.clone()
    for channel, other, share in zip(mixed, donor, mix.shares, strict=True):
        own, theirs = _quantiles(channel), _quantiles(other)
        if own is None or theirs is None:
            continue
        brain = channel != 0
        channel[brain] = _moved(channel[brain], own, own + share * (theirs - own))
    return mixed


def _quantiles(channel: Tensor) -> Tensor | None:
    """Return the quantiles of a sample of the voxels that are not 0; None if there are none."""
    values = channel.flatten()
    values = values[:: max(1, len(values) // (4 * _MOST_VOXELS))]
    values = values[values != 0]
    return torch.quantile(values, torch.linspace(0.005, 0.995, _POINTS, device=values.device)) if len(values) else None


def _moved(values: Tensor, places: Tensor, aims: Tensor) -> Tensor:
    """Map the quantiles `places` to `aims`: linearly in between, and beyond them shifted like the outermost one."""
    slope = aims.diff() / places.diff().clamp(min=1e-6)
    offset = aims[:-1] - slope * places[:-1]
    beyond = torch.tensor([1.0], device=values.device)
    slope = torch.cat([beyond, slope, beyond])
    offset = torch.cat([aims[:1] - places[:1], offset, aims[-1:] - places[-1:]])
    piece = torch.bucketize(values, places)
    return values * slope[piece] + offset[piece]
