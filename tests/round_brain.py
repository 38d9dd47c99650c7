"""Small round brains for the tests of augmentation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gliomask.training.augment import Augmentation

ANISOTROPIC = (24, 20, 16)

ALWAYS = Augmentation(
    rotation_probability=1,
    scaling_probability=1,
    elastic_probability=1,
    shift_probability=1,
    bias_field_probability=1,
    low_resolution_probability=1,
    thick_slices_probability=1,
    blur_probability=1,
    brightness_probability=1,
    contrast_probability=1,
    inverted_gamma_probability=1,
    gamma_probability=1,
    noise_probability=1,
)

STILL = replace(ALWAYS, flip_probability=0, rotation_probability=0, scaling_probability=0, elastic_probability=0)
"""Settings with every change except the spatial ones."""


def seeded(seed: int = 0) -> torch.Generator:
    """Return a new generator with a seed."""
    return torch.Generator().manual_seed(seed)


def radius(shape: tuple[int, ...], centre: tuple[float, ...] = (0, 0, 0)) -> Tensor:
    """Return each voxel's distance in voxels from a point given relative to the patch's centre."""
    x, y, z = (torch.arange(n) - (n - 1) / 2 - c for n, c in zip(shape, centre, strict=True))
    return (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2).sqrt()


def some(shape: tuple[int, int, int] = ANISOTROPIC, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return z-scores of three channels in a ball of brain, and two nested balls of tumour in it."""
    r = radius(shape)
    size = min(shape) / 2
    image = torch.randn(3, *shape, generator=seeded(seed)) * (r < 0.9 * size)
    return image, torch.stack([r < 0.5 * size, r < 0.3 * size])
