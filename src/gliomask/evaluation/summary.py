"""What many scores come to: mean, spread, median, and how sure the mean is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000


@dataclass(frozen=True)
class Statistics:
    """One metric over the cases for which it is defined."""

    cases: int
    """Those that are in the mean: all but the ones that have no number."""
    mean: float
    std: float
    """Of a sample (n - 1); 0 for a single case, not a number where a value is infinite."""
    median: float
    low: float
    """The lower end of the 95 % interval of the mean."""
    high: float


def describe(values: Sequence[float]) -> Statistics:
    """Return the statistics of one metric; values that are not a number are left out and not counted.

    The interval is that of the bootstrap: of 2000 draws of as many cases, with replacement, the middle 95 % of their
    means. The draws are seeded: the same scores have the same interval. It tells how sure the mean is of cases like
    these, not how well another hospital's would be segmented. An infinite value makes the mean infinite, and the
    interval where it is drawn often enough. Without any value all is not a number.

    Source: Efron 1979; the percentile interval.
    """
    numbers = np.array([value for value in values if not math.isnan(value)], dtype=float)
    if not len(numbers):
        return Statistics(0, *[math.nan] * 5)
    finite = bool(np.isfinite(numbers).all())
    std = 0.0 if len(numbers) == 1 else float(numbers.std(ddof=1)) if finite else math.nan
    low, high = _interval(numbers)
    return Statistics(len(numbers), float(numbers.mean()), std, float(np.median(numbers)), low, high)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    draws = _draws(len(values))
    endless = np.isinf(values)
    means = draws @ np.where(endless, 0.0, values) / len(values)
    means[draws[:, endless].any(axis=1)] = math.inf
    means.sort()
    # the nearest rank rather than between two, as there is nothing between a number and infinity
    aside = math.floor(0.025 * (_RESAMPLES - 1))
    return float(means[aside]), float(means[_RESAMPLES - 1 - aside])


@lru_cache(maxsize=4)
def _draws(cases: int) -> NDArray[np.float64]:
    """How often each case is drawn in each resample, `(2000, cases)`."""
    counts = np.random.default_rng(0).multinomial(cases, np.full(cases, 1 / cases), size=_RESAMPLES)
    return counts.astype(float)
