"""Paired differences: intervals, tests and ranks against values computed by hand and against all sign patterns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gliomask.evaluation.significance import holm, mean_ranks, paired_test, permutation_p


def test_three_cases_by_hand() -> None:
    """Differences 0.1, 0.2, 0.3: 2 of the 8 sign patterns are as far from 0; Wilcoxon's test also gives 2 of 8."""
    found = paired_test([0.9, 0.8, 0.7], [0.8, 0.6, 0.4])
    assert (found.cases, found.ties) == (3, 0)
    assert (found.first, found.second) == pytest.approx((0.8, 0.6))
    assert found.difference == pytest.approx(0.2)
    assert found.p_permutation == found.p_wilcoxon == 0.25
    assert found.effect == 1
    assert 0.1 <= found.low < 0.2 < found.high <= 0.3


def test_the_effect_is_that_of_the_signed_ranks() -> None:
    """Differences 1, -2, 3, 4: ranks 1, 3 and 4 against 2 of 10 in all."""
    assert paired_test([1, 0, 3, 4], [0, 2, 0, 0]).effect == pytest.approx(0.6)


def test_all_scores_equal() -> None:
    """Without a difference the effect is 0 and the p-values are 1."""
    found = paired_test([0.5, 0.7, 1.0], [0.5, 0.7, 1.0])
    assert (found.difference, found.low, found.high, found.ties) == (0, 0, 0, 3)
    assert (found.p_permutation, found.p_wilcoxon, found.effect) == (1, 1, 0)


def test_equal_differences_are_equal_whatever_their_binary_digits() -> None:
    """0.9 - 0.8 and 0.8 - 0.7 differ in the 17th digit: they share a rank and cancel each other."""
    found = paired_test([0.9, 0.7], [0.8, 0.8])
    assert (found.difference, found.effect, found.p_permutation) == (0, 0, 1)


def test_a_case_without_a_number_is_left_out() -> None:
    """An undefined score on either side leaves the case out; without any case left, every number is NaN."""
    found = paired_test([math.nan, 0.5, 0.6], [0.5, math.nan, 0.4])
    assert (found.cases, found.difference, found.first) == (1, pytest.approx(0.2), 0.6)
    assert (found.p_permutation, found.p_wilcoxon) == (1, 1)
    nothing = paired_test([math.nan], [1.0])
    assert nothing.cases == nothing.ties == 0
    assert math.isnan(nothing.difference)
    assert math.isnan(nothing.p_permutation)


@pytest.mark.parametrize("seed", range(4))
def test_few_cases_are_enumerated(seed: int) -> None:
    """The exact p-value is the fraction of all sign patterns whose mean is as far from 0, as scipy computes it."""
    differences = np.round(np.random.default_rng(seed).normal(0.3, 1, 9), 1)
    means = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=9)]
    share = sum(mean >= abs(differences.sum()) - 1e-9 for mean in means) / len(means)
    assert permutation_p(differences) == pytest.approx(share)
    tenths = np.rint(10 * differences)
    scipys = stats.permutation_test((tenths,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert permutation_p(differences) == pytest.approx(scipys.pvalue)


def test_many_cases_are_drawn_at_random_but_the_same_each_time() -> None:
    """For 40 cases the p-value is near the normal approximation, equal in a second run, and never 0."""
    differences = np.random.default_rng(5).normal(0.25, 1, 40)
    p = permutation_p(differences)
    z = abs(differences.sum()) / math.sqrt((differences**2).sum())
    assert p == permutation_p(differences)
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)
    assert permutation_p(np.full(40, 1.0)) == pytest.approx(1 / 10_001)


def test_the_tests_are_symmetric() -> None:
    """Exchanging the two sets changes only the sign of the difference and of the effect."""
    first, second = np.random.default_rng(1).uniform(size=(2, 10))
    here, there = paired_test(first, second), paired_test(second, first)
    assert (here.difference, here.effect) == (-there.difference, -there.effect)
    assert (here.p_permutation, here.p_wilcoxon) == (there.p_permutation, there.p_wilcoxon)


def test_holm_by_hand() -> None:
    """The smallest of four is multiplied by four, the next by three; never less than the one before, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9]) == pytest.approx([1, math.nan, 1], nan_ok=True)


def test_equal_values_share_a_rank() -> None:
    """Two values that share the first place both have rank 1.5."""
    assert mean_ranks(np.array([[0.2, 0.1, 0.1], [1, 2, 3]])).tolist() == [[3, 1.5, 1.5], [1, 2, 3]]
