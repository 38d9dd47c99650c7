"""The quality of a preparation in numbers, each with limits: good, to be looked at, or poor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.registration import mutual_information
from gliomask.acquisition.review import StudyReview
from gliomask.labels import REGIONS
from gliomask.volume import Grid, bounding_box, resample

Light = Literal["good", "look", "poor"]
LIGHTS: tuple[Light, ...] = ("good", "look", "poor")
"""From the best to the worst."""

_STEP_MM = 3.0  # about half a thick slice: less is lost in noise, more leaves the maximum's surroundings
_EDGE_MM = 1.5  # of the voxels in which shifts are measured
_SMALL_ML = 0.1  # volumes that differ by less are a voxel or two of a thick slice apart


@dataclass(frozen=True)
class Limits:
    """What a measure says, and from which values it is good or poor."""

    name: str
    meaning: str
    good: tuple[float, float]
    """The range of good values."""
    bearable: tuple[float, float]
    """The range outside of which a value is poor."""
    unit: str = ""
    digits: int = 2

    def light(self, value: float) -> Light:
        """Return the light for a value; NaN is poor."""
        if self.good[0] <= value <= self.good[1]:
            return "good"
        return "look" if self.bearable[0] <= value <= self.bearable[1] else "poor"

    def describe(self, bounds: tuple[float, float]) -> str:
        """Return a range in words."""
        low, high = bounds
        if np.isinf(high):
            return f"at least {low:.{self.digits}f}{self.unit}"
        if low == 0:
            return f"at most {high:.{self.digits}f}{self.unit}"
        return f"{low:.{self.digits}f} to {high:.{self.digits}f}{self.unit}"


_NO_LIMIT = float("inf")
LIMITS: Mapping[str, Limits] = {
    limits.name: limits
    for limits in (
        Limits(
            "shift",
            "distance by which the sequence must be moved for its normalized mutual information with the reference, "
            "inside the brain, to be largest",
            (0, 1),
            (0, 2),
            " mm",
            1,
        ),
        Limits(
            "overlap",
            "Dice coefficient of the brain found in the sequence and the common brain mask",
            (0.92, _NO_LIMIT),
            (0.88, _NO_LIMIT),
        ),
        Limits(
            "atlas",
            "Dice coefficient of the common brain mask and the brain of the atlas",
            (0.85, _NO_LIMIT),
            (0.75, _NO_LIMIT),
        ),
        Limits("brain", "volume of the common brain mask", (900, 1900), (700, 2200), " mL", 0),
        Limits(
            "volumes",
            "difference between the volume of a region in the space of the mask and in the prepared space, in percent "
            f"of the latter; differences below {_SMALL_ML} mL count as 0",
            (0, 2),
            (0, 5),
            " %",
            1,
        ),
    )
}
"""The measures that have a light, by name."""


@dataclass(frozen=True)
class Finding:
    """One measure of one study."""

    measure: str
    """A name in `LIMITS`."""
    of: str
    """What was measured: a sequence (`t1n t1c t2w t2f`), a region, or the empty text."""
    value: float

    @property
    def light(self) -> Light:
        """The light for the value."""
        return LIMITS[self.measure].light(self.value)

    @property
    def text(self) -> str:
        """The value with its unit."""
        limits = LIMITS[self.measure]
        return f"{self.value:.{limits.digits}f}{limits.unit}"


def worst(findings: Sequence[Finding]) -> Light:
    """Return the worst light of some findings; `good` if there are none."""
    return max((finding.light for finding in findings), key=LIGHTS.index, default="good")


def assess(review: StudyReview, facts: Mapping[str, Any] | None = None) -> list[Finding]:
    """Return the findings about the preparation of a study.

    Args:
        review: The study.
        facts: The content of the JSON file beside its mask, if there is a mask.
    """
    quality = review.alignment.quality
    shifts = residual_shifts(review)
    findings = []
    for name in review.images:
        if name in shifts:
            findings.append(Finding("shift", name, shifts[name]))
        if f"overlap_{name}" in quality:
            findings.append(Finding("overlap", name, quality[f"overlap_{name}"]))
    if "overlap_atlas" in quality:
        findings.append(Finding("atlas", "", quality["overlap_atlas"]))
    if "brain_ml" in quality:
        findings.append(Finding("brain", "", quality["brain_ml"]))
    return findings + _volume_findings(facts or {})


def residual_shifts(review: StudyReview) -> dict[str, float]:
    """Return for each sequence but the reference by how many mm it seems to be off, in any direction.

    The normalized mutual information with the reference inside the brain is computed for the sequence as it was
    registered and moved by 3 mm to either side along each axis; the parabola through three values has its maximum at
    the shift that is left. Rotations are seen only by the shift that comes with them.
    """
    box = bounding_box(review.brain.data[0] != 0)
    if box is None:
        return {}
    grid = _coarse_grid(review.brain.grid, box)
    inside = resample(review.brain, grid, nearest=True, zero_outside=True).data[0] != 0
    reference = review.alignment.reference
    fixed = _within(review.onto(grid, reference).data[0], inside)
    return {name: _shift_left(fixed, review, name, grid, inside) for name in review.images if name != reference}


def _shift_left(
    fixed: NDArray[np.float32], review: StudyReview, name: str, grid: Grid, inside: NDArray[np.bool_]
) -> float:
    moving = review.onto(grid, name).data[0]
    steps = round(_STEP_MM / _EDGE_MM)
    here = mutual_information(fixed, _within(moving, inside))
    total = 0.0
    for axis in range(3):
        before, after = (
            mutual_information(fixed, _within(np.roll(moving, side * steps, axis), inside)) for side in (-1, 1)
        )
        curvature = before - 2 * here + after
        # Where the present place is no maximum along the axis, all that is known is that the shift is large.
        away = _STEP_MM if curvature >= 0 else min(_STEP_MM, abs(_STEP_MM * (before - after) / (2 * curvature)))
        total += away**2
    return float(np.sqrt(total))


def _within(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The image inside a mask and 0 outside, without its brightest and darkest half percent."""
    values = image[inside]
    low, high = np.percentile(values, (0.5, 99.5)) if len(values) else (0.0, 1.0)
    kept: NDArray[np.float32] = np.where(inside & (image != 0), image.clip(low, high), 0).astype(np.float32)
    return kept


def _coarse_grid(grid: Grid, box: tuple[slice, slice, slice]) -> Grid:
    change = np.diag([*(_EDGE_MM / edge for edge in grid.spacing_mm), 1.0])
    change[:3, 3] = [span.start for span in box]
    x, y, z = (
        max(1, int((span.stop - span.start) * edge / _EDGE_MM)) for span, edge in zip(box, grid.spacing_mm, strict=True)
    )
    return Grid((x, y, z), grid.affine @ change)


def _volume_findings(facts: Mapping[str, Any]) -> list[Finding]:
    own, prepared = facts.get("volumes_ml"), facts.get("volumes_ml_prepared")
    if not isinstance(own, dict) or not isinstance(prepared, dict):
        return []
    found = []
    for name, volume in own.items():
        regional = name in REGIONS  # a tissue is what lies between two regions, which need not keep its volume
        if regional and isinstance(volume, int | float) and isinstance(prepared.get(name), int | float):
            difference, of = abs(volume - prepared[name]), prepared[name]
            percent = 0.0 if difference < _SMALL_ML else 100 * difference / of if of else 100.0
            found.append(Finding("volumes", name, percent))
    return found
