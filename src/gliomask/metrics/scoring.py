"""Score one case under one protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gliomask.errors import InputError
from gliomask.metrics.lesionwise import MatchingInput, score_lesions
from gliomask.metrics.masks import Mask, Spacing, check_pair, check_spacing, joint_box
from gliomask.metrics.measures import Metric, Pair, make_pair
from gliomask.metrics.protocols import Protocol, get_protocol

Regions = Mapping[str, Mask]
Scores = dict[str, float]


def score_case(
    truth_regions: Regions,
    prediction_regions: Regions,
    spacing_mm: Spacing,
    protocol: str | Protocol,
    *,
    grid: tuple[int, int, int] | None = None,
) -> dict[str, Scores]:
    """Return the scores of one case, `{region: {metric: score}}`, in the order of the protocol.

    Each region as a whole has `dice`, `hd95_pooled_mm`, `hd95_surface_mm`, `nsd_0.5mm`, `nsd_1mm`, `sensitivity`,
    `specificity` and `voxel_accuracy` (both over the whole grid, with the accuracy of an empty mask for reference),
    `iou`, the volumes in mL and their difference (prediction minus truth), and the numbers of 26-connected components.
    They are followed by the metrics of lesions, `lesion_...`, and `lesion_tp`, `lesion_fp`, `lesion_fn` and
    `detection_f1`. `protocol.headline` names the metrics that the challenge reports; see `gliomask docs scores`.

    If one mask is empty, a distance is the protocol's penalty. If both are empty, the scores are perfect until 2025 and
    NaN in 2026 (`both_empty_is_perfect`); `detection_f1` is then NaN in every year. In 2026, masks without a common
    voxel get the distances of an empty mask (`disjoint_as_empty`).

    The challenge did not score lesions before 2023; under "brats2021" they are counted as in 2026. This is a choice of
    gliomask. So is the penalty of MET 2024-25, the diagonal of the grid in mm, which the challenge's script measures in
    voxels.

    Args:
        truth_regions, prediction_regions: A boolean mask `(X, Y, Z)` for each region that the protocol requires
            (`Protocol.required_regions`); further regions are ignored.
        spacing_mm: Voxel size along X, Y, Z.
        protocol: A protocol, or its name in `PROTOCOLS`.
        grid: The shape of the whole grid, if the masks were already cropped from it.

    Raises:
        InputError: The protocol is unknown, a region is missing, shapes differ, a mask is not boolean with three axes,
            or the spacing is not three positive numbers.
    """
    row = get_protocol(protocol) if isinstance(protocol, str) else protocol
    check_spacing(spacing_mm)
    _check_regions(truth_regions, prediction_regions, row)
    whole = truth_regions[row.regions[0]].shape if grid is None else grid
    diagonal_mm = math.hypot(*(size * step for size, step in zip(whole, spacing_mm, strict=True)))
    scores = {}
    for region in row.regions:
        pair = make_pair(truth_regions[region], prediction_regions[region], spacing_mm, region, math.prod(whole))
        scores[region] = {
            **_whole_scores(pair, row, diagonal_mm),
            **_lesion_scores(pair, truth_regions, prediction_regions, region, row, diagonal_mm),
        }
    return scores


def score_missing(
    truth_regions: Regions,
    spacing_mm: Spacing,
    protocol: str | Protocol,
    *,
    grid: tuple[int, int, int] | None = None,
) -> dict[str, Scores]:
    """Return the scores of a case without a prediction: the worst possible ones, even if there is no tumour.

    Shares are 0, and distances are the protocol's penalty; volumes and counts are those of an empty prediction. The
    penalty for a single lesion of BraTS 2026 is infinity, where the challenge's script gives a missing case 373, which
    is better than an empty prediction.

    Args, raises: As for `score_case`.
    """
    row = get_protocol(protocol) if isinstance(protocol, str) else protocol
    empty = {region: np.zeros_like(mask) for region, mask in truth_regions.items()}
    scores = score_case(truth_regions, empty, spacing_mm, row, grid=grid)
    whole = next(iter(truth_regions.values())).shape if grid is None else grid
    diagonal_mm = math.hypot(*(size * step for size, step in zip(whole, spacing_mm, strict=True)))
    worst = {name: m.worst(row.penalty_mm(diagonal_mm)) for name, m in row.metrics.items() if m.kind != "fact"}
    worst |= {f"lesion_{m.name}": m.worst(row.lesion_penalty_mm(diagonal_mm)) for m in row.lesion_metrics}
    return {region: {**found, **worst, "detection_f1": 0.0} for region, found in scores.items()}


def _whole_scores(pair: Pair, protocol: Protocol, diagonal_mm: float) -> Scores:
    penalty_mm = protocol.penalty_mm(diagonal_mm)
    nothing = not (pair.overlap.truth or pair.overlap.prediction)
    apart = protocol.disjoint_as_empty and not (nothing or pair.overlap.both)

    def score(metric: Metric) -> float:
        if nothing and metric.kind != "fact" and not protocol.both_empty_is_perfect:
            return math.nan
        return metric.worst(penalty_mm) if apart and metric.surface_based else metric.measure(pair, penalty_mm)

    return {name: score(metric) for name, metric in protocol.metrics.items()}


def _lesion_scores(
    pair: Pair, truth: Regions, prediction: Regions, region: str, protocol: Protocol, diagonal_mm: float
) -> Scores:
    joining = protocol.rule(region).joined_by
    if joining:
        involved = (region, *joining)
        box = joint_box(*(side[name] for side in (truth, prediction) for name in involved))
        true, predicted = (
            {name: np.ascontiguousarray(side[name][box]) for name in involved} for side in (truth, prediction)
        )
    else:
        true, predicted = {region: pair.truth}, {region: pair.prediction}
    rules = {name: protocol.rule(name) for name in (region, *joining)}
    matching = protocol.match(MatchingInput(true, predicted, pair.spacing_mm, region, rules))
    means = score_lesions(matching, protocol.lesion_metrics, pair.spacing_mm, protocol.lesion_penalty_mm(diagonal_mm))
    if means is None:
        means = {f"lesion_{metric.name}": _score_of_empty_pair(metric, protocol) for metric in protocol.lesion_metrics}
    return {**means, **matching.counts()}


def _score_of_empty_pair(metric: Metric, protocol: Protocol) -> float:
    return metric.best if protocol.both_empty_is_perfect else math.nan


def _check_regions(truth: Regions, prediction: Regions, protocol: Protocol) -> None:
    missing = [
        f"{name} has no {region}"
        for name, given in (("truth", truth), ("prediction", prediction))
        for region in protocol.required_regions
        if region not in given
    ]
    if missing:
        raise InputError(
            f"protocol {protocol.name} scores {', '.join(protocol.required_regions)}; {', '.join(missing)}. "
            "Give an empty mask for a region that was not found."
        )
    first = truth[protocol.regions[0]]
    for region in protocol.required_regions:
        check_pair(truth[region], prediction[region], region)
        check_pair(first, truth[region], f"{protocol.regions[0]} and {region}")
