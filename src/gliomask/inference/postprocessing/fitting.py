"""Choose rules on cases that a model has not seen, and no more rules than the cases can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.model.plan import Postprocessing, RegionRule

Scorer = Callable[[Postprocessing], NDArray[np.float64]]
"""A rule -> a score for each case, `(N,)`; the higher the better. Asked for a rule again and again: remember."""

THRESHOLDS = (0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7)
LEAST_MM3 = (0.0, 10.0, 25.0, 50.0, 100.0, 200.0, 500.0)
LEAST_PROBABILITIES = (0.0, 0.6, 0.7, 0.8, 0.9)
LEAST_ET_MM3 = (0.0, 25.0, 50.0, 100.0, 200.0, 300.0, 500.0)


@dataclass(frozen=True)
class Fit:
    """A rule and what it is worth."""

    rule: Postprocessing
    before: float
    """The mean score without it."""
    after: float
    """The mean score with it, on the cases that it was chosen on."""


def fit_rules(score: Scorer, regions: Sequence[str], start: Postprocessing, cases: Sequence[int]) -> Fit:
    """Return the rule that scores best on some cases, unless a smaller change is as good as the cases can tell.

    One setting after the other is chosen: each region's threshold from the outside in, then each region's least piece
    and least mean probability, then the least ET. Of a setting's values the one nearest to none at all is taken that is
    within one standard error of the best: the error of the mean difference between the two over the cases.

    Args:
        score: What a rule is worth on each case.
        regions: The regions whose rules are chosen.
        start: What is fixed already, such as temperatures.
        cases: Which of the scorer's cases to look at.
    """
    chosen = list(cases)
    rule = start
    for candidates in _settings(regions):
        rule = _choose(score, [candidate(rule) for candidate in candidates], chosen)
    return Fit(rule, float(score(start)[chosen].mean()), float(score(rule)[chosen].mean()))


def leave_one_out(
    score: Scorer, regions: Sequence[str], start: Postprocessing, count: int
) -> tuple[NDArray[np.float64], list[Postprocessing]]:
    """Return what each case gains by the rule that all other cases choose, and those rules.

    This, not the gain on the cases that the rule was chosen on, is what to expect on a new case.
    """
    gains, rules = [], []
    for case in range(count):
        fit = fit_rules(score, regions, start, [other for other in range(count) if other != case])
        gains.append(float(score(fit.rule)[case] - score(start)[case]))
        rules.append(fit.rule)
    return np.array(gains), rules


Change = Callable[[Postprocessing], Postprocessing]


def _settings(regions: Sequence[str]) -> Iterator[list[Change]]:
    """Give each setting's candidates, as changes of a rule, in order from none at all."""
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
