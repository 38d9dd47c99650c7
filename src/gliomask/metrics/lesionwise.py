"""Truth and prediction taken apart into lesions, matched as each year does it, and scored with every lesion alike."""

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

# Below this, a pair that one-to-one matching put together is none.
_LEAST_DICE = 1e-6

# A voxel of 1 mm, taken from an oblique affine, is not quite 1 mm: 50 of them are still not more than 50 mm3.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Parts:
    """What the lesions of one region are found in."""

    truth: Mapping[str, Mask]
    """The region, and those that may join its lesions; all masks of both sides are on one grid."""
    prediction: Mapping[str, Mask]
    spacing_mm: Spacing
    region: str
    rules: Mapping[str, LesionRule]


@dataclass(frozen=True, eq=False)
class Matching:
    """Which predicted lesions are compared with which of the truth."""

    truth: Lesions
    prediction: Lesions
    pairs: tuple[tuple[int, tuple[int, ...]], ...]
    """A lesion of the truth and its one or more predicted ones, by their numbers."""
    false: tuple[int, ...]
    """Predicted lesions that belong to none of the truth (false positives), by their numbers."""
    missed: tuple[int, ...]
    """Lesions of the truth that count and have no predicted one (false negatives), by their numbers."""
    charged: int
    """How many lesions without a counterpart are in the mean, each at its worst."""

    def counts(self) -> dict[str, float]:
        """Return `lesion_tp`, `lesion_fp`, `lesion_fn` and `detection_f1`, 2 TP / (2 TP + FP + FN).

        F1 is not a number where there is nothing to detect and nothing was.
        """
        found, false, missed = len(self.pairs), len(self.false), len(self.missed)
        everything = 2 * found + false + missed
        f1 = 2 * found / everything if everything else math.nan
        return {"lesion_tp": found, "lesion_fp": false, "lesion_fn": missed, "detection_f1": f1}


Matcher = Callable[[Parts], Matching]


def match_by_dilation(parts: Parts) -> Matching:
    """Match lesions as BraTS 2023 to 2025 do.

    To each lesion of the truth belong all predicted ones, whole, that reach into its dilation. A predicted lesion may
    belong to several and counts in full for each; one with no voxel in the lesion itself still counts as found. What
    belongs to a lesion too small to count is not false either. False and missed lesions are all charged.

    Source: BraTS-2023-Metrics and BraTS-2024-Metrics; what differs between the years stands in their `LesionRule`.
    """
    truth = find_lesions(parts.truth, parts.region, parts.rules, truth=True)
    prediction = find_lesions(parts.prediction, parts.region, parts.rules, truth=False)
    near = shared_voxels(truth.reach, prediction.labels, (truth.count + 1, prediction.count + 1)) > 0
    large = truth.sizes * math.prod(parts.spacing_mm) > parts.rules[parts.region].ignored_mm3 * (1 + _ROUNDING)
    counted = [number for number in range(1, truth.count + 1) if large[number]]
    partners = {number: tuple(int(other) for other in np.flatnonzero(near[number])) for number in counted}
    pairs = tuple((number, others) for number, others in partners.items() if others)
    missed = tuple(number for number, others in partners.items() if not others)
    false = _others(prediction, np.flatnonzero(near.any(axis=0)).tolist())
    return Matching(truth, prediction, pairs, false, missed, charged=len(false) + len(missed))


def match_one_to_one(parts: Parts) -> Matching:
    """Match lesions as BraTS 2026 does.

    Every 26-connected piece is a lesion, whatever its size. Pairs are one to one, chosen for the largest sum of Dice;
    what does not overlap is no pair. False and missed lesions are not charged: they show in the counts and in F1 alone,
    unless there is no pair at all.

    Source: maximum bipartite matching on Dice above 0.000001, as panoptica 2.1.7 does it; among equal sums more pairs
        are preferred.
    """
    truth, prediction = components(parts.truth[parts.region]), components(parts.prediction[parts.region])
    shared = shared_voxels(truth.labels, prediction.labels, (truth.count + 1, prediction.count + 1))
    rows, columns = np.flatnonzero(shared.any(axis=1)), np.flatnonzero(shared.any(axis=0))
    dice = 2 * shared[np.ix_(rows, columns)] / (truth.sizes[rows][:, None] + prediction.sizes[columns][None])
    chosen = linear_sum_assignment(np.where(dice > _LEAST_DICE, dice + _LEAST_DICE, 0.0), maximize=True)
    pairs = tuple((int(rows[i]), (int(columns[j]),)) for i, j in zip(*chosen, strict=True) if dice[i, j] > _LEAST_DICE)
    false = _others(prediction, [other for _, (other,) in pairs])
    missed = _others(truth, [number for number, _ in pairs])
    return Matching(truth, prediction, pairs, false, missed, charged=0 if pairs else len(false) + len(missed))


def score_lesions(
    matching: Matching, metrics: Sequence[Metric], spacing_mm: Spacing, penalty_mm: float
) -> dict[str, float] | None:
    """Return the mean of each metric over the pairs and the lesions that are charged, by `lesion_` and its name.

    Args:
        matching: The lesions of one region.
        metrics: What is measured on each pair; they are shares or distances.
        spacing_mm: Voxel size along X, Y, Z.
        penalty_mm: The distance that a charged lesion costs.

    Returns:
        The means, or None where there is no lesion that counts.
    """
    weighing = len(matching.pairs) + matching.charged
    if not weighing:
        return None
    totals = [matching.charged * metric.worst(penalty_mm) if matching.charged else 0.0 for metric in metrics]
    for number, others in matching.pairs if metrics else ():
        pair = make_pair(*_cut_out(matching, number, others), spacing_mm)
        totals = [total + metric.measure(pair, penalty_mm) for total, metric in zip(totals, metrics, strict=True)]
    return {f"lesion_{metric.name}": total / weighing for metric, total in zip(metrics, totals, strict=True)}


def _others(lesions: Lesions, matched: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of the lesions that are not among the matched ones."""
    return tuple(sorted(set(range(1, lesions.count + 1)) - set(matched)))


def _cut_out(matching: Matching, number: int, others: Sequence[int]) -> tuple[Mask, Mask]:
    """Return a lesion of the truth and the predicted ones that belong to it, cut to the box that holds them."""
    boxes = [matching.truth.boxes[number - 1], *(matching.prediction.boxes[other - 1] for other in others)]
    box = _around(boxes)
    wanted: NDArray[np.bool_] = np.zeros(matching.prediction.count + 1, bool)
    wanted[list(others)] = True
    return matching.truth.labels[box] == number, wanted[matching.prediction.labels[box]]


def _around(boxes: Sequence[Box]) -> Box:
    x, y, z = (slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3))
    return x, y, z
