"""Whose rules a score follows: a table, a row for each challenge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gliomask.errors import InputError, unknown_name
from gliomask.metrics.masks import Mask, Spacing
from gliomask.metrics.overlap import count
from gliomask.metrics.surface import hausdorff_95_pooled


@dataclass(frozen=True)
class Protocol:
    """One challenge's rules."""

    name: str
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    """The names of the values that `score` gives; in mm where the name says so, else from 0 to 1."""
    empty_mm: float
    """The distance given where either truth or prediction is empty."""
    score: Callable[[Mask, Mask, Spacing, Protocol], dict[str, float]]
    source: str


def score_regions(truth: Mask, prediction: Mask, spacing_mm: Spacing, protocol: Protocol) -> dict[str, float]:
    """Score a region as one mask, as the challenges of 2017 to 2022 did."""
    counts = count(truth, prediction)
    return {
        "dice": counts.dice(),
        "hd95_pooled_mm": hausdorff_95_pooled(truth, prediction, spacing_mm, empty_mm=protocol.empty_mm),
        "sensitivity": counts.sensitivity(),
        "specificity": counts.specificity(),
    }


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                name="brats2021",
                regions=("WT", "TC", "ET"),
                metrics=("dice", "hd95_pooled_mm", "sensitivity", "specificity"),
                empty_mm=373.12866,  # the diagonal of the 240 x 240 x 155 mm grid, whatever grid is scored
                score=score_regions,
                source="BraTS 2017-2022: Baid et al. 2021, arXiv:2107.02314",
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
    truth: Mapping[str, Mask], prediction: Mapping[str, Mask], spacing_mm: Spacing, protocol: Protocol
) -> dict[str, dict[str, float]]:
    """Return the scores of one case: region -> metric -> value, in the protocol's order.

    Args:
        truth, prediction: A boolean mask `(X, Y, Z)` for each of the protocol's regions, on one grid.
        spacing_mm: Voxel size along X, Y, Z.
        protocol: See `get_protocol`.

    Raises:
        InputError: A region is missing, the masks are not boolean or not of one shape, or the spacing is bad.
    """
    missing = [name for name in protocol.regions if name not in truth or name not in prediction]
    if missing:
        raise InputError(f"{protocol.name} scores {', '.join(protocol.regions)}; missing: {', '.join(missing)}.")
    return {
        region: protocol.score(truth[region], prediction[region], spacing_mm, protocol) for region in protocol.regions
    }
