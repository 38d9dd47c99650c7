"""Two sets of scores of the same cases: how far apart they are, and how easily chance alone would part them so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.evaluation.summary import describe

# Up to here all ways to flip the signs are gone through; 2^14 of them.
_ALL_FLIPS = 14
_FLIPS = 10_000

# Differences closer to each other than this are equal: 0.9 - 0.8 and 0.8 - 0.7 are not the same binary number.
_DECIMALS = 9


@dataclass(frozen=True)
class PairedTest:
    """The differences of two sets of scores, first less second, case by case."""

    cases: int
    """Those in which both have a number."""
    first: float
    """The mean of the first over these cases."""
    second: float
    difference: float
    """The mean difference."""
    low: float
    """The lower end of its 95 % interval."""
    high: float
    ties: int
    """Cases in which both have the same score."""
    p_permutation: float
    p_wilcoxon: float
    effect: float
    """Matched-pairs rank-biserial correlation, from -1 (the first is smaller in every case) to 1."""


def compare_paired(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Return how two sets of scores of the same cases differ.

    Cases in which one of them has no number are left out. The interval is that of `summary.describe`. Both tests are
    two-sided. The permutation test asks how often the mean difference is as far from 0 when for each case it is drawn
    which score is whose: all ways to draw it for up to 14 cases, else 10,000 seeded ones, with the one observed among
    them. Wilcoxon's signed-rank test leaves ties out; it is exact for up to 50 cases whose differences are all of
    different size. Where all scores are equal, the p-values are 1 and the effect 0; where no case is left, nothing is a
    number.

    Args:
        first, second: Scores in the order of the cases, finite or not a number.

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
    """Return how often a mean this far from 0 comes about when the sign of each difference is drawn; two-sided."""
    differences = differences[differences != 0]  # to flip a 0 changes nothing
    count = len(differences)
    if not count:
        return 1.0
    if count <= _ALL_FLIPS:
        flips = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        flips = 1 - 2 * np.random.default_rng(0).integers(0, 2, (_FLIPS, count))
    observed = abs(differences.sum())
    as_far = int(np.count_nonzero(np.abs(flips @ differences) >= observed * (1 - 1e-9)))
    return as_far / len(flips) if count <= _ALL_FLIPS else (as_far + 1) / (len(flips) + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, so that of all that stay under 0.05 none is chance, 19 times in 20.

    What is not a number stays so, and does not count.

    Source: Holm 1979.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = list(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks along the last axis, 1 for the smallest; equal values share the mean of their places."""
    from scipy.stats import rankdata  # here: it takes half a second to load

    ranks: NDArray[np.float64] = rankdata(np.round(values, _DECIMALS), axis=-1)
    return ranks


def _wilcoxon_p(differences: NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon  # here, as above

    unequal = differences[differences != 0]
    return float(wilcoxon(unequal).pvalue) if len(unequal) else 1.0


def _rank_biserial(differences: NDArray[np.float64]) -> float:
    unequal = differences[differences != 0]
    if not len(unequal):
        return 0.0
    ranks = mean_ranks(np.abs(unequal))
    return float((np.sign(unequal) * ranks).sum() / ranks.sum())
