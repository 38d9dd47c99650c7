"""Checks of the images' values: already normalized, the same image twice, a mask, missing slices."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from gliomask.inspection.sampled import Samples

_NEGATIVE = 0.05
# Two sequences of one brain correlate by .79 at most on 53 cases of BraTS; a copy correlates by 1, rescaled or not.
_SAME = 0.99
# One of 53 cases of BraTS has a FLAIR of two thirds of the brain; in all others each image covers .965 or more.
_COVERED = 0.9


def scaled(samples: Samples) -> str | None:
    """Name the images that were normalized before: values around zero, or fractions from 0 to 1."""
    around = [m for m, image in samples.images.items() if np.mean(image[samples.brain] < 0) > _NEGATIVE]
    if around:
        return (
            f"{samples.named(around)}: negative intensities, as in an image that was normalized before; voxels of "
            "exactly 0 count as background. Use the images as they were before normalization."
        )
    fractions = [
        m for m, image in samples.images.items() if samples.whole_floats[m] and 0 <= image.min() <= image.max() <= 1
    ]
    if fractions:
        return (
            f"{samples.named(fractions)}: intensities from 0 to 1, as in an image that was normalized before; the "
            "darkest voxels may count as background. Use the images as they were before normalization."
        )
    return None


def copies(samples: Samples) -> str | None:
    """Name the images that are the same."""
    found = []
    for one, other in combinations(samples.images, 2):
        first, second = samples.images[one][samples.brain], samples.images[other][samples.brain]
        if np.array_equal(first, second) or _correlation(first, second) > _SAME:
            found.append(f"{samples.named([one])} and {samples.named([other])}")
    if not found:
        return None
    return f"{'; '.join(found)}: the same image twice. Use a file of its own for each sequence."


def masks(samples: Samples) -> str | None:
    """Name the images that have a single value beside 0, as a mask has."""
    present = {m: image[image != 0] for m, image in samples.images.items()}
    found = [m for m, values in present.items() if values.size and np.ptp(values) == 0]
    if not found:
        return None
    return f"{samples.named(found)}: a single value beside 0, as in a mask. Use the image itself."


def coverage(samples: Samples) -> str | None:
    """Name the images that lack a part of the brain that others show."""
    shares = {m: float(np.mean(image[samples.brain] != 0)) for m, image in samples.images.items()}
    found = {m: share for m, share in shares.items() if share < _COVERED}
    if not found:
        return None
    least = min(found.values())
    return (
        f"{samples.named(list(found))}: zero in {1 - least:.0%} of the brain that the other sequences show. Are slices "
        "missing, or are the sequences not registered to each other?"
    )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if not (first.std() and second.std()):
        return 0.0
    with np.errstate(all="ignore"):  # the squares of very small values are 0
        found = float(np.corrcoef(first, second)[0, 1])
    return found if np.isfinite(found) else 0.0
