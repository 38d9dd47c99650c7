"""How two sets of scores of the same cases differ, and how easily chance alone would produce such a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.evaluation.summary import describe

# Up to this number of cases all sign patterns are enumerated (2^14), above it 10,000 are drawn.
_MOST_ENUMERATED = 14
_DRAWN = 10_000

# Differences closer to each other than this are equal: 0.9 - 0.8 and 0.8 - 0.7 are not the same binary number.
_DECIMALS = 9


@dataclass(frozen=True)
class PairedTest:
    """The differences between two sets of scores, first minus second, case by case."""

    cases: int
    """The number of cases in which both scores are defined."""
    first: float
    """The mean of the first set over these cases."""
    second: float
    """The mean of the second set over these cases."""
    difference: float
    """The mean difference."""
    low: float
    """The lower end of its 95 % interval."""
    high: float
    """The upper end of its 95 % interval."""
    ties: int
    """The number of cases in which both scores are equal."""
    p_permutation: float
    p_wilcoxon: float
    effect: float
    """Matched-pairs rank-biserial correlation, from -1 (the first is smaller in every case) to 1."""


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Return how two sets of scores of the same cases differ.

    Cases in which one score is NaN are left out. The interval is that of `summary.describe`. Both tests are two-sided.
    The permutation test counts how often the mean difference is at least as far from 0 when the two scores of each case
    are swapped at random: all 2^n ways for up to 14 cases, otherwise 10,000 seeded draws and the observed one.
    Wilcoxon's signed-rank test leaves ties out; it is exact for up to 50 cases whose differences all have different
    sizes. If all scores are equal, the p-values are 1 and the effect is 0; if no case is left, every number is NaN.

    Args:
        first, second: Scores in the order of the cases; finite or NaN.

    Source: Wilcoxon 1945; Kerby 2014 for the effect.
    """
    pairs = np.array([first, second], dtype=float)
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    if not pairs.shape[1]:
        none = math.nan
        return PairedTest(0, none, none, none, none, none, 0, none, none, none)
    differences = np.round(pairs[0] - pairs[1], _DECIMALS)
    found = describe(differences.tolist())
    return PairedTest(
        cases=len(differences),
        first=float(pairs[0].mean()),
        second=float(pairs[1].mean()),
        difference=found.mean,
        low=found.low,
        high=found.high,
        ties=int(np.count_nonzero(differences == 0)),
        p_permutation=permutation_p(differences),
        p_wilcoxon=_wilcoxon_p(differences),
        effect=_rank_biserial(differences),
    )


def permutation_p(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of the mean difference under random signs; see `paired_test`.

    Up to 14 cases it is the p-value of `scipy.stats.permutation_test`, which takes 16 to 27 times as long
    (benchmarks/permutation.py). Above that, scipy doubles the smaller tail of its draws, where this counts both tails.
    """
    differences = differences[differences != 0]  # changing the sign of 0 has no effect
    count = len(differences)
    if not count:
        return 1.0
    if count <= _MOST_ENUMERATED:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, (_DRAWN, count))
    observed = abs(differences.sum())
    as_far = int(np.count_nonzero(np.abs(signs @ differences) >= observed * (1 - 1e-9)))
    return as_far / len(signs) if count <= _MOST_ENUMERATED else (as_far + 1) / (len(signs) + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests, so that the family-wise error rate at 0.05 is at most 0.05.

    NaN stays NaN and is not counted as a test.

    Source: Holm 1979.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = list(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks along the last axis, 1 for the smallest value; equal values share their mean rank."""
    from scipy.stats import rankdata  # imported here because it takes half a second to load

    ranks: NDArray[np.float64] = rankdata(np.round(values, _DECIMALS), axis=-1)
    return ranks


def _wilcoxon_p(differences: NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon  # imported here because it takes half a second to load

    unequal = differences[differences != 0]
    return float(wilcoxon(unequal).pvalue) if len(unequal) else 1.0


def _rank_biserial(differences: NDArray[np.float64]) -> float:
    unequal = differences[differences != 0]
    if not len(unequal):
        return 0.0
    ranks = mean_ranks(np.abs(unequal))
    return float((np.sign(unequal) * ranks).sum() / ranks.sum())
