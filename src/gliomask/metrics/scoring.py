"""One case under one protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gliomask.errors import InputError
from gliomask.metrics.lesionwise import Parts, score_lesions
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

    Of each region as a whole `dice`, `hd95_pooled_mm`, `hd95_surface_mm`, `nsd_0.5mm`, `nsd_1mm`, `sensitivity`,
    `specificity` and `voxel_accuracy` (both over the whole grid; beside it the accuracy that an empty mask would have),
    `iou`, volumes in mL with their difference (prediction less truth), and the numbers of 26-connected pieces; then
    what the year measures on lesions, `lesion_...`, and `lesion_tp`, `lesion_fp`, `lesion_fn` and `detection_f1`.
    `protocol.headline` names those that are the challenge's own; docs/scores.md tells what each year's are.

    Where one mask is empty, a distance is the protocol's penalty. Where both are, the score is perfect until 2025 and
    not a number in 2026 (`nothing_scores`); `detection_f1` is then not a number in any year. Masks without a common
    voxel are in 2026 as far from each other as if one were empty (`apart_as_empty`).

    Before 2023 the challenge knows no lesions: under "brats2021" they are counted as in 2026. This is our choice, as is
    that a diagonal as penalty (MET 2024-25) is that of the grid in mm, where the challenge's script counts voxels.

    Args:
        truth_regions, prediction_regions: A boolean mask `(X, Y, Z)` for each region that the protocol needs
            (`Protocol.needs`); further regions are not looked at.
        spacing_mm: Voxel size along X, Y, Z.
        protocol: A protocol, or its name in `PROTOCOLS`.
        grid: The shape of the whole grid, where the masks were already cut from it.

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
    """Return the scores of a case that has no prediction: every one at its worst, also where there is no tumour.

    Shares are 0, distances the protocol's penalty; volumes and counts are those of an empty prediction. For one lesion
    of BraTS 2026 the penalty is infinity; its script gives 373 to a missing case, less than to an empty prediction.

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
    apart = protocol.apart_as_empty and not (nothing or pair.overlap.both)

    def score(metric: Metric) -> float:
        if nothing and metric.kind != "fact" and not protocol.nothing_scores:
            return math.nan
        return metric.worst(penalty_mm) if apart and metric.of_surfaces else metric.measure(pair, penalty_mm)

    return {name: score(metric) for name, metric in protocol.metrics.items()}


def _lesion_scores(
    pair: Pair, truth: Regions, prediction: Regions, region: str, protocol: Protocol, diagonal_mm: float
) -> Scores:
    joining = protocol.rule(region).joined_by
    if joining:
        concerned = (region, *joining)
        box = joint_box(*(side[name] for side in (truth, prediction) for name in concerned))
        ours, theirs = (
            {name: np.ascontiguousarray(side[name][box]) for name in concerned} for side in (truth, prediction)
        )
    else:
        ours, theirs = {region: pair.truth}, {region: pair.prediction}
    rules = {name: protocol.rule(name) for name in (region, *joining)}
    matching = protocol.match(Parts(ours, theirs, pair.spacing_mm, region, rules))
    means = score_lesions(matching, protocol.lesion_metrics, pair.spacing_mm, protocol.lesion_penalty_mm(diagonal_mm))
    if means is None:
        means = {f"lesion_{metric.name}": _of_nothing(metric, protocol) for metric in protocol.lesion_metrics}
    return {**means, **matching.counts()}


def _of_nothing(metric: Metric, protocol: Protocol) -> float:
    return metric.best if protocol.nothing_scores else math.nan


def _check_regions(truth: Regions, prediction: Regions, protocol: Protocol) -> None:
    missing = [
        f"{name} has no {region}"
        for name, given in (("truth", truth), ("prediction", prediction))
        for region in protocol.needs
        if region not in given
    ]
    if missing:
        raise InputError(
            f"protocol {protocol.name} scores {', '.join(protocol.needs)}; {', '.join(missing)}. "
            "Give an empty mask for a region that was looked for and not found."
        )
    first = truth[protocol.regions[0]]
    for region in protocol.needs:
        check_pair(truth[region], prediction[region], region)
        check_pair(first, truth[region], f"{protocol.regions[0]} and {region}")
