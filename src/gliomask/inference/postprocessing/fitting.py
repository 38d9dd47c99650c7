"""Choosing post-processing rules on cases that a model was not trained on, without overfitting to those cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.model.plan import Postprocessing, RegionRule

Scorer = Callable[[Postprocessing], NDArray[np.float64]]
"""A function that returns the score of each case under some rules, `(N,)`; higher is better.

It is called with the same rules many times, so it should cache its results.
"""

THRESHOLDS = (0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7)
LEAST_MM3 = (0.0, 10.0, 25.0, 50.0, 100.0, 200.0, 500.0)
LEAST_PROBABILITIES = (0.0, 0.6, 0.7, 0.8, 0.9)
LEAST_ET_MM3 = (0.0, 25.0, 50.0, 100.0, 200.0, 300.0, 500.0)


@dataclass(frozen=True)
class Fit:
    """The chosen rules and the scores before and after."""

    rule: Postprocessing
    before: float
    """The mean score with the rules given at the start."""
    after: float
    """The mean score with the chosen rules, on the cases they were chosen on."""


def fit_rules(score: Scorer, regions: Sequence[str], start: Postprocessing, cases: Sequence[int]) -> Fit:
    """Return the rules with the best score on some cases, preferring smaller changes that are equally good.

    The settings are chosen one after the other: each region's threshold in the order of `regions`, then each region's
    smallest component and smallest mean probability, then the smallest total of ET. Of a setting's candidate values,
    the first one, in order of increasing change, is chosen whose mean score is within one standard error of the best.
    The standard error is that of the mean difference to the best over the cases.

    Args:
        score: Returns the score of each case under some rules.
        regions: The regions whose rules are chosen.
        start: Rules that are fixed already, such as temperatures.
        cases: The indices of the cases to use.
    """
    chosen = list(cases)
    rule = start
    for candidates in _settings(regions):
        rule = _choose(score, [candidate(rule) for candidate in candidates], chosen)
    return Fit(rule, float(score(start)[chosen].mean()), float(score(rule)[chosen].mean()))


def leave_one_out(
    score: Scorer, regions: Sequence[str], start: Postprocessing, count: int
) -> tuple[NDArray[np.float64], list[Postprocessing]]:
    """Return each case's gain by the rules chosen on all other cases, and these rules (leave-one-out).

    The mean of these gains estimates the gain on a new case; the gain on the cases that rules were chosen on is biased.
    """
    gains, rules = [], []
    for case in range(count):
        fit = fit_rules(score, regions, start, [other for other in range(count) if other != case])
        gains.append(float(score(fit.rule)[case] - score(start)[case]))
        rules.append(fit.rule)
    return np.array(gains), rules


Change = Callable[[Postprocessing], Postprocessing]


def _settings(regions: Sequence[str]) -> Iterator[list[Change]]:
    """Yield the candidates of each setting, as functions that change the rules, the smallest change first."""
    for region in regions:
        yield [_region_change(region, "threshold", value) for value in THRESHOLDS]
    for region in regions:
        yield [_region_change(region, "least_mm3", value) for value in LEAST_MM3]
        yield [_region_change(region, "least_probability", value) for value in LEAST_PROBABILITIES]
    if "ET" in regions:
        yield [_et_change(value) for value in LEAST_ET_MM3]


def _region_change(region: str, field: str, value: float) -> Change:
    def change(rule: Postprocessing) -> Postprocessing:
        changed = rule.regions | {region: RegionRule(**rule.rule(region).model_dump() | {field: value})}
        kept = {name: one for name, one in sorted(changed.items()) if one != RegionRule()}
        return rule.model_copy(update={"regions": kept})

    return change


def _et_change(value: float) -> Change:
    return lambda rule: rule.model_copy(update={"least_et_mm3": value})


def _choose(score: Scorer, candidates: Sequence[Postprocessing], cases: Sequence[int]) -> Postprocessing:
    scores = np.stack([score(candidate)[list(cases)] for candidate in candidates])
    best = scores[int(scores.mean(axis=1).argmax())]
    behind = best - scores
    errors = behind.std(axis=1, ddof=1) / np.sqrt(len(cases)) if len(cases) > 1 else np.full(len(candidates), np.inf)
    return candidates[int(np.flatnonzero(behind.mean(axis=1) <= errors)[0])]
