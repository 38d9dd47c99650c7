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


def fit_rules(
    score: Scorer,
    regions: Sequence[str],
    start: Postprocessing,
    cases: Sequence[int],
    on_setting: Callable[[], None] = lambda: None,
) -> Fit:
    """Return the rules with the best score on some cases, preferring smaller changes that are equally good.

    The settings are chosen one after the other: each region's threshold in the order of `regions`, then each region's
    smallest component and smallest mean probability, then the smallest total of ET. Of a setting's candidate values,
    beginning with the one that it has at the start, the first one in order of increasing change is chosen whose mean
    score is within one standard error of the best. The standard error is that of the mean difference to the best over
    the cases.

    Args:
        score: Returns the score of each case under some rules.
        regions: The regions whose rules are chosen.
        start: The rules to begin with; their temperatures are not changed.
        cases: The indices of the cases to use.
        on_setting: Called after each setting; see `count_settings`.
    """
    chosen = list(cases)
    rule = start
    for candidates in _settings(regions, start):
        rule = _choose(score, [candidate(rule) for candidate in candidates], chosen)
        on_setting()
    return Fit(rule, float(score(start)[chosen].mean()), float(score(rule)[chosen].mean()))


def leave_out(
    score: Scorer,
    regions: Sequence[str],
    starts: Sequence[Postprocessing],
    groups: Sequence[Sequence[int]],
    on_setting: Callable[[], None] = lambda: None,
) -> list[Postprocessing]:
    """Return for each group of cases, such as those of a patient, the rules chosen on all other cases.

    The scores of each group under its rules estimate those of new cases; scores of the cases that rules were chosen on
    are biased.

    Args:
        score, regions, on_setting: As for `fit_rules`.
        starts: The rules to begin with for each group, which must not have been fitted to it either.
        groups: The indices of the cases of each group; together all cases.
    """
    every = {case for group in groups for case in group}
    return [
        fit_rules(score, regions, start, sorted(every - set(group)), on_setting).rule
        for start, group in zip(starts, groups, strict=True)
    ]


def count_settings(regions: Sequence[str]) -> int:
    """Return the number of settings that one call of `fit_rules` chooses."""
    return sum(1 for _ in _settings(regions, Postprocessing()))


Change = Callable[[Postprocessing], Postprocessing]


def _settings(regions: Sequence[str], start: Postprocessing) -> Iterator[list[Change]]:
    """Yield the candidates of each setting, as functions that change the rules: first no change, then the smallest."""
    for region in regions:
        now = start.rule(region).threshold
        yield [_region_change(region, "threshold", value) for value in _first(now, THRESHOLDS)]
    for region in regions:
        rule = start.rule(region)
        yield [_region_change(region, "least_mm3", value) for value in _first(rule.least_mm3, LEAST_MM3)]
        probabilities = _first(rule.least_probability, LEAST_PROBABILITIES)
        yield [_region_change(region, "least_probability", value) for value in probabilities]
    if "ET" in regions:
        yield [_et_change(value) for value in _first(start.least_et_mm3, LEAST_ET_MM3)]


def _first(now: float, others: Sequence[float]) -> list[float]:
    return list(dict.fromkeys((now, *others)))


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
