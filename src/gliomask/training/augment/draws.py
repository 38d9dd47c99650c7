"""Single random numbers from a generator."""

from __future__ import annotations

import torch

from gliomask.training.augment.settings import Range


def chance(generator: torch.Generator, probability: float) -> bool:
    """Return True with this probability."""
    return torch.rand((), generator=generator).item() < probability


def uniform(generator: torch.Generator, bounds: Range) -> float:
    """Return a number between the bounds, each as likely."""
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand((), generator=generator).item()


def integer(generator: torch.Generator, bounds: tuple[int, int]) -> int:
    """Return a whole number between the bounds, both among them, each as likely."""
    return int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator).item())


def seed(generator: torch.Generator) -> int:
    """Return the seed of another generator, so that a record can hold what fills a whole array."""
    return integer(generator, (0, 2**62 - 1))
