"""Checks of single images: scaled already, one twice, slices missing."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from gliomask.inspection.sampled import Samples

_NEGATIVE = 0.05
# Two sequences of one brain correlate by .79 at the most on 53 cases of BraTS; a copy, also one scaled anew, by 1.
_SAME = 0.99
# One of 53 cases of BraTS has a FLAIR of two thirds of the brain; in all others an image covers .965 and more.
_COVERED = 0.9


def scaled(look: Samples) -> str | None:
    """Say which images were normalized already: around zero, or fractions from 0 to 1."""
    around = [m for m, image in look.images.items() if np.mean(image[look.brain] < 0) > _NEGATIVE]
    if around:
        return (
            f"{look.named(around)}: negative intensities, as if normalized already; voxels of exactly 0 count as "
            "background. Give the images as they were before."
        )
    fractions = [m for m, image in look.images.items() if look.whole_floats[m] and 0 <= image.min() <= image.max() <= 1]
    if fractions:
        return (
            f"{look.named(fractions)}: intensities from 0 to 1, as if normalized already; the darkest voxels may count "
            "as background. Give the images as they were before."
        )
    return None


def copies(look: Samples) -> str | None:
    """Say which two images are one."""
    found = []
    for one, other in combinations(look.images, 2):
        first, second = look.images[one][look.brain], look.images[other][look.brain]
        if np.array_equal(first, second) or _correlation(first, second) > _SAME:
            found.append(f"{look.named([one])} and {look.named([other])}")
    if not found:
        return None
    return f"{'; '.join(found)}: the same image twice. Give each sequence its own file."


def coverage(look: Samples) -> str | None:
    """Say which images lack a part of the brain that others have."""
    shares = {m: float(np.mean(image[look.brain] != 0)) for m, image in look.images.items()}
    found = {m: share for m, share in shares.items() if share < _COVERED}
    if not found:
        return None
    least = min(found.values())
    return (
        f"{look.named(list(found))}: zero in {1 - least:.0%} of the brain that the other sequences show. Are slices "
        "missing, or are the sequences not registered to each other?"
    )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if not (first.std() and second.std()):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
