"""Single random numbers from a generator."""

from __future__ import annotations

import torch

from gliomask.training.augment.settings import Range


def chance(generator: torch.Generator, probability: float) -> bool:
    """Return True with the given probability."""
    return torch.rand((), generator=generator).item() < probability


def uniform(generator: torch.Generator, bounds: Range) -> float:
    """Return a number drawn uniformly from between the bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand((), generator=generator).item()


def integer(generator: torch.Generator, bounds: tuple[int, int]) -> int:
    """Return a whole number drawn uniformly from between the bounds, including both."""
    return int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator).item())


def seed(generator: torch.Generator) -> int:
    """Return a seed for another generator, so that a small record determines a whole array."""
    return integer(generator, (0, 2**62 - 1))
