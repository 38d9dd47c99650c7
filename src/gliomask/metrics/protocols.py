"""How each generation of BraTS scores a case: a row of the table a protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from gliomask.errors import InputError, unknown_name
from gliomask.metrics.masks import Mask, Spacing, check_pair, check_spacing, crop_together
from gliomask.metrics.overlap import Overlap, count_overlap
from gliomask.metrics.surface import hausdorff_95_pooled


@dataclass(frozen=True, eq=False)
class Pair:
    """What the metrics of one region are counted from."""

    truth: Mask  # cut, like the prediction, to the box that holds both
    prediction: Mask
    spacing_mm: Spacing
    overlap: Overlap  # of the whole grid, from which the masks were cut


@dataclass(frozen=True)
class Protocol:
    """One way to score a case: which regions, by which metrics, and what an empty mask costs."""

    name: str
    description: str
    regions: tuple[str, ...]
    metrics: Mapping[str, Metric]  # by the names that `score_case` gives back, in this order
    empty_mm: float  # the distance where one mask is empty and the other is not
    source: str


Metric = Callable[[Pair, Protocol], float]


def _dice(pair: Pair, protocol: Protocol) -> float:
    return pair.overlap.dice


def _hd95_pooled(pair: Pair, protocol: Protocol) -> float:
    return hausdorff_95_pooled(pair.truth, pair.prediction, pair.spacing_mm, empty_mm=protocol.empty_mm)


def _sensitivity(pair: Pair, protocol: Protocol) -> float:
    return pair.overlap.sensitivity


def _specificity(pair: Pair, protocol: Protocol) -> float:
    return pair.overlap.specificity


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                name="brats2021",
                description="BraTS 2017-2022: each region as a whole; HD95 pooled over both directions",
                regions=("WT", "TC", "ET"),
                metrics=MappingProxyType(
                    {
                        "dice": _dice,
                        "hd95_pooled_mm": _hd95_pooled,
                        "sensitivity": _sensitivity,
                        "specificity": _specificity,
                    }
                ),
                # the diagonal of the challenge's grid at 1 mm, whatever the grid at hand: published scores have it
                empty_mm=math.hypot(240, 240, 155),
                source="Bakas et al. 2018, arXiv:1811.02629; Baid et al. 2021, arXiv:2107.02314",
            ),
        )
    }
)


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        InputError: The name is not in `PROTOCOLS`.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def score_case(
    truth_regions: Mapping[str, Mask],
    prediction_regions: Mapping[str, Mask],
    spacing_mm: Spacing,
    protocol: str | Protocol,
) -> dict[str, dict[str, float]]:
    """Return the scores of one case, `{region: {metric: score}}`, in the order of the protocol.

    The metrics of "brats2021" are `dice`, `hd95_pooled_mm`, `sensitivity` and `specificity`, the last over the whole
    grid; `hd95_pooled_mm` is 373.128664 where one of the masks is empty, and 0 where both are.

    Args:
        truth_regions, prediction_regions: A boolean mask `(X, Y, Z)` for each region of the protocol; further regions
            are not looked at.
        spacing_mm: Voxel size along X, Y, Z.
        protocol: A protocol, or its name in `PROTOCOLS`.

    Raises:
        InputError: The protocol is unknown, a region is missing, the shapes of a region differ, a mask is not boolean
            with three axes, or the spacing is not three positive numbers.
    """
    row = get_protocol(protocol) if isinstance(protocol, str) else protocol
    check_spacing(spacing_mm)
    _check_regions(truth_regions, prediction_regions, row)
    scores = {}
    for region in row.regions:
        pair = _pair(truth_regions[region], prediction_regions[region], spacing_mm, region)
        scores[region] = {name: metric(pair, row) for name, metric in row.metrics.items()}
    return scores


def _check_regions(truth: Mapping[str, Mask], prediction: Mapping[str, Mask], protocol: Protocol) -> None:
    missing = [
        f"{name} has no {region}"
        for name, given in (("truth", truth), ("prediction", prediction))
        for region in protocol.regions
        if region not in given
    ]
    if missing:
        raise InputError(
            f"protocol {protocol.name} scores {', '.join(protocol.regions)}; {', '.join(missing)}. "
            "Give an empty mask for a region that was looked for and not found."
        )


def _pair(truth: Mask, prediction: Mask, spacing_mm: Spacing, region: str) -> Pair:
    check_pair(truth, prediction, where=region)
    cut_truth, cut_prediction = crop_together(truth, prediction)
    overlap = replace(count_overlap(cut_truth, cut_prediction), grid=truth.size)
    return Pair(cut_truth, cut_prediction, spacing_mm, overlap)
