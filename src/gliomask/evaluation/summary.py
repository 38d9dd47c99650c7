"""Summary statistics of scores: mean, standard deviation, median, and the 95 % interval of the mean."""

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
    """The statistics of one metric over the cases for which it is defined."""

    cases: int
    """The number of cases in the mean: all but those whose value is NaN."""
    mean: float
    std: float
    """The sample standard deviation (n - 1); 0 for a single case, NaN if a value is infinite."""
    median: float
    low: float
    """The lower end of the 95 % interval of the mean."""
    high: float
    """The upper end of the 95 % interval of the mean."""


def describe(values: Sequence[float]) -> Statistics:
    """Return the statistics of one metric; NaN values are left out and not counted.

    The interval is a percentile bootstrap: the middle 95 % of the means of 2000 resamples of the cases, drawn with
    replacement. The draws are seeded, so the same scores give the same interval. It says how certain the mean is for
    cases like these, not how well cases of another hospital would be segmented. An infinite value makes the mean
    infinite, and also an end of the interval if it is drawn often enough. Without any value every statistic is NaN.

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
    infinite = np.isinf(values)
    means = draws @ np.where(infinite, 0.0, values) / len(values)
    means[draws[:, infinite].any(axis=1)] = math.inf
    means.sort()
    # The nearest rank, without interpolation: nothing lies between a number and infinity.
    cut = math.floor(0.025 * (_RESAMPLES - 1))
    return float(means[cut]), float(means[_RESAMPLES - 1 - cut])


@lru_cache(maxsize=4)
def _draws(cases: int) -> NDArray[np.float64]:
    """Return how often each case is drawn in each resample, `(2000, cases)`."""
    counts = np.random.default_rng(0).multinomial(cases, np.full(cases, 1 / cases), size=_RESAMPLES)
    return counts.astype(float)
