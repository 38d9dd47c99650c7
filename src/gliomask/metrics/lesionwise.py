"""Lesion-wise scores: match the lesions of truth and prediction as each year does, and average over the lesions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from gliomask.metrics.lesions import Box, LesionRule, Lesions, components, find_lesions, shared_voxels
from gliomask.metrics.masks import Mask, Spacing
from gliomask.metrics.measures import Metric, make_pair

# A pair of one-to-one matching with a Dice up to this does not count as a match.
_LEAST_DICE = 1e-6

# The spacing computed from an oblique affine is not exactly 1 mm: 50 such voxels still count as at most 50 mm3.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class MatchingInput:
    """The masks and rules from which the lesions of one region are found and matched."""

    truth: Mapping[str, Mask]
    """The region and the regions that may merge its lesions; all masks of truth and prediction are on one grid."""
    prediction: Mapping[str, Mask]
    spacing_mm: Spacing
    region: str
    rules: Mapping[str, LesionRule]


@dataclass(frozen=True, eq=False)
class Matching:
    """Which predicted lesions are compared with which lesions of the truth."""

    truth: Lesions
    prediction: Lesions
    pairs: tuple[tuple[int, tuple[int, ...]], ...]
    """The number of a lesion of the truth, and the numbers of the one or more predicted lesions matched with it."""
    false: tuple[int, ...]
    """The numbers of predicted lesions that match no lesion of the truth (false positives)."""
    missed: tuple[int, ...]
    """The numbers of scored lesions of the truth without a predicted lesion (false negatives)."""
    penalized: int
    """How many unmatched lesions enter the mean, each with the worst score."""

    def counts(self) -> dict[str, float]:
        """Return `lesion_tp`, `lesion_fp`, `lesion_fn` and `detection_f1`, 2 TP / (2 TP + FP + FN).

        F1 is NaN if there is no lesion to detect and none was predicted.
        """
        matched, false, missed = len(self.pairs), len(self.false), len(self.missed)
        everything = 2 * matched + false + missed
        f1 = 2 * matched / everything if everything else math.nan
        return {"lesion_tp": matched, "lesion_fp": false, "lesion_fn": missed, "detection_f1": f1}


Matcher = Callable[[MatchingInput], Matching]


def match_by_dilation(parts: MatchingInput) -> Matching:
    """Match lesions as BraTS 2023 to 2025 do.

    A lesion of the truth is matched with every predicted lesion that reaches into its dilation, each as a whole. A
    predicted lesion may be matched with several lesions of the truth and counts in full for each. A lesion counts as
    found even if the predicted lesion has no voxel inside it. A predicted lesion that matches only a lesion too small
    to be scored is not a false positive. All false and missed lesions are penalized.

    Source: BraTS-2023-Metrics and BraTS-2024-Metrics; the differences between the years are in their `LesionRule`.
    """
    truth = find_lesions(parts.truth, parts.region, parts.rules, truth=True)
    prediction = find_lesions(parts.prediction, parts.region, parts.rules, truth=False)
    near = shared_voxels(truth.dilated, prediction.labels, (truth.count + 1, prediction.count + 1)) > 0
    large = truth.sizes * math.prod(parts.spacing_mm) > parts.rules[parts.region].ignored_mm3 * (1 + _ROUNDING)
    counted = [number for number in range(1, truth.count + 1) if large[number]]
    partners = {number: tuple(int(other) for other in np.flatnonzero(near[number])) for number in counted}
    pairs = tuple((number, others) for number, others in partners.items() if others)
    missed = tuple(number for number, others in partners.items() if not others)
    false = _others(prediction, np.flatnonzero(near.any(axis=0)).tolist())
    return Matching(truth, prediction, pairs, false, missed, penalized=len(false) + len(missed))


def match_one_to_one(parts: MatchingInput) -> Matching:
    """Match lesions as BraTS 2026 does.

    Every 26-connected component is a lesion, whatever its size. Lesions are paired one to one so that the sum of their
    Dice is largest; lesions that do not overlap are not paired. False and missed lesions are not penalized and only
    enter the counts and F1, unless there is no pair at all.

    Source: maximum bipartite matching on Dice above 0.000001, as in panoptica 2.1.7; among equal sums, more pairs are
        preferred.
    """
    truth, prediction = components(parts.truth[parts.region]), components(parts.prediction[parts.region])
    shared = shared_voxels(truth.labels, prediction.labels, (truth.count + 1, prediction.count + 1))
    rows, columns = np.flatnonzero(shared.any(axis=1)), np.flatnonzero(shared.any(axis=0))
    dice = 2 * shared[np.ix_(rows, columns)] / (truth.sizes[rows][:, None] + prediction.sizes[columns][None])
    chosen = linear_sum_assignment(np.where(dice > _LEAST_DICE, dice + _LEAST_DICE, 0.0), maximize=True)
    pairs = tuple((int(rows[i]), (int(columns[j]),)) for i, j in zip(*chosen, strict=True) if dice[i, j] > _LEAST_DICE)
    false = _others(prediction, [other for _, (other,) in pairs])
    missed = _others(truth, [number for number, _ in pairs])
    return Matching(truth, prediction, pairs, false, missed, penalized=0 if pairs else len(false) + len(missed))


def score_lesions(
    matching: Matching, metrics: Sequence[Metric], spacing_mm: Spacing, penalty_mm: float
) -> dict[str, float] | None:
    """Return the mean of each metric over the pairs and the penalized lesions, as `lesion_` and the metric's name.

    Args:
        matching: The lesions of one region.
        metrics: The metrics of each pair, shares or distances.
        spacing_mm: Voxel size along X, Y, Z.
        penalty_mm: The distance that a penalized lesion gets.

    Returns:
        The means, or None if there is no lesion to score.
    """
    count = len(matching.pairs) + matching.penalized
    if not count:
        return None
    totals = [matching.penalized * metric.worst(penalty_mm) if matching.penalized else 0.0 for metric in metrics]
    for number, others in matching.pairs if metrics else ():
        pair = make_pair(*_crop_to_match(matching, number, others), spacing_mm)
        totals = [total + metric.measure(pair, penalty_mm) for total, metric in zip(totals, metrics, strict=True)]
    return {f"lesion_{metric.name}": total / count for metric, total in zip(metrics, totals, strict=True)}


def _others(lesions: Lesions, matched: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of the lesions that are not among the matched ones."""
    return tuple(sorted(set(range(1, lesions.count + 1)) - set(matched)))


def _crop_to_match(matching: Matching, number: int, others: Sequence[int]) -> tuple[Mask, Mask]:
    """Return a lesion of the truth and the predicted lesions matched with it, cropped to their bounding box."""
    boxes = [matching.truth.boxes[number - 1], *(matching.prediction.boxes[other - 1] for other in others)]
    box = _enclosing_box(boxes)
    wanted: NDArray[np.bool_] = np.zeros(matching.prediction.count + 1, bool)
    wanted[list(others)] = True
    return matching.truth.labels[box] == number, wanted[matching.prediction.labels[box]]


def _enclosing_box(boxes: Sequence[Box]) -> Box:
    x, y, z = (slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3))
    return x, y, z
