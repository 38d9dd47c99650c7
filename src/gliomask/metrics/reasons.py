"""Explain why two years of the challenge score the same prediction differently."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gliomask.metrics.lesions import components, shared_voxels
from gliomask.metrics.lesionwise import Matching, MatchingInput, match_by_dilation
from gliomask.metrics.masks import Mask, Spacing
from gliomask.metrics.protocols import Protocol

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Reason:
    """One property of a region that the protocols score differently."""

    kind: str
    """A short name, the same for all cases, such as "stray piece"."""
    text: str
    """An explanation with the numbers of this case."""


def disagree(scores: Mapping[str, float]) -> bool:
    """Return whether the protocols' scores of one region differ, in value or in whether they are defined."""
    numbers = [value for value in scores.values() if not math.isnan(value)]
    return 0 < len(numbers) < len(scores) or (bool(numbers) and max(numbers) - min(numbers) > _ROUNDING)


def find_reasons(
    truth: Mapping[str, Mask],
    prediction: Mapping[str, Mask],
    spacing_mm: Spacing,
    region: str,
    protocols: Sequence[Protocol],
) -> list[Reason]:
    """Return why these protocols score one region of a case differently.

    Args:
        truth, prediction: Boolean masks `(X, Y, Z)` of one shape, for all regions that the protocols require.
        spacing_mm: Voxel size along X, Y, Z.
        region: The region to explain.
        protocols: Two or more.

    Returns:
        At least one reason. If none of the specific reasons applies, it is that one protocol weights all voxels equally
        and another all lesions. Call this only if the scores `disagree`.
    """
    if not (truth[region].any() or prediction[region].any()):
        return [Reason("nothing there", "truth and prediction are empty: a perfect score until 2025, no score in 2026")]
    matchings = {
        row.name: row.match(MatchingInput(truth, prediction, spacing_mm, region, row.lesions))
        for row in protocols
        if row.match is match_by_dilation
    }
    ignored = {row.name: row.rule(region).ignored_mm3 for row in protocols if row.name in matchings}
    dropped = {row.name: row.rule(region).dropped_voxels for row in protocols if row.name in matchings}
    found = [
        *_stray_pieces(truth[region], prediction[region], dropped),
        *_small_lesions(truth[region], prediction[region], spacing_mm, ignored),
        *_merged(truth[region], matchings),
        *_bridges(matchings),
        *_near(matchings),
    ]
    return found or [
        Reason(
            "lesions or voxels",
            "2021 weights all voxels equally, the years from 2023 all lesions; 2026 leaves out unmatched lesions",
        )
    ]


def _stray_pieces(truth: Mask, prediction: Mask, dropped: Mapping[str, int]) -> list[Reason]:
    sizes = _without_overlap(prediction, truth)
    if not sizes:
        return []
    gone = [f"{name} deletes those of up to {limit} voxels" for name, limit in dropped.items() if limit]
    text = (
        f"{_pieces(sizes)} predicted where the truth has no voxel: 2021 weights {'it' if len(sizes) == 1 else 'them'} "
        "by voxels; from 2023 each one that is not near a lesion counts as much as a missed lesion; 2026 counts it in "
        "F1 only"
    )
    return [Reason("stray piece", "; ".join([text, *gone]))]


def _small_lesions(truth: Mask, prediction: Mask, spacing_mm: Spacing, ignored: Mapping[str, float]) -> list[Reason]:
    limit = max(ignored.values(), default=0)
    small = [n for n in _without_overlap(truth, prediction) if n * math.prod(spacing_mm) <= limit * (1 + _ROUNDING)]
    if not small:
        return []
    limits = ", ".join(f"{name} up to {value:g} mm³" for name, value in ignored.items())
    return [
        Reason(
            "missed small lesion",
            f"{_pieces(small)} of the truth not found: some protocols ignore small ones ({limits}); 2021 weights the "
            "voxels, 2026 counts every lesion",
        )
    ]


def _merged(truth: Mask, matchings: Mapping[str, Matching]) -> list[Reason]:
    pieces = components(truth).count
    counts = {name: matching.truth.count for name, matching in matchings.items() if matching.truth.count < pieces}
    if not counts:
        return []
    merged = ", ".join(f"{count} in {name}" for name, count in counts.items())
    return [
        Reason(
            "merged pair",
            f"{pieces} components of the truth are so close that they count as {merged}; 2026 keeps them apart",
        )
    ]


def _bridges(matchings: Mapping[str, Matching]) -> list[Reason]:
    for name, matching in matchings.items():
        uses = np.bincount([other for _, others in matching.pairs for other in others], minlength=1)
        if uses.max(initial=0) > 1:
            text = f"one predicted lesion is matched with {uses.max()} of the truth in {name}, with one of them in 2026"
            return [Reason("bridge", text)]
    return []


def _near(matchings: Mapping[str, Matching]) -> list[Reason]:
    for name, matching in matchings.items():
        shape = (matching.truth.count + 1, matching.prediction.count + 1)
        shared = shared_voxels(matching.truth.labels, matching.prediction.labels, shape)
        beside = [number for number, others in matching.pairs if not shared[number, list(others)].any()]
        if beside:
            text = f"{len(beside)} predicted nearby without a common voxel: found with Dice 0 in {name}, missed in 2026"
            return [Reason("near miss", text)]
    return []


def _without_overlap(mask: Mask, other: Mask) -> list[int]:
    """Return the sizes of the components of one mask that have no voxel in the other, smallest first."""
    pieces = components(mask)
    overlapping = np.unique(pieces.labels[mask & other])
    return sorted(int(pieces.sizes[number]) for number in set(range(1, pieces.count + 1)) - set(overlapping.tolist()))


def _pieces(sizes: Sequence[int]) -> str:
    voxels = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    return f"{len(sizes)} component{'s' if len(sizes) > 1 else ''} of {voxels} voxel{'s' if sizes[-1] > 1 else ''}"
