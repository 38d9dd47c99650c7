"""The table of metrics of a pair of masks, which may be whole regions or single lesions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from gliomask.metrics.lesions import components
from gliomask.metrics.masks import Mask, Spacing, check_pair, crop_together
from gliomask.metrics.overlap import Overlap, count_overlap, volume_ml
from gliomask.metrics.surface import SurfaceDistances, surfel_distances, voxel_distances


@dataclass(frozen=True, eq=False)
class Pair:
    """Two masks cropped to their common bounding box, and intermediate results that several metrics share."""

    truth: Mask
    prediction: Mask
    spacing_mm: Spacing
    overlap: Overlap
    """The voxel counts of the whole grid from which the masks were cropped."""

    @cached_property
    def voxels(self) -> SurfaceDistances:
        """The distances between the surface voxels."""
        return voxel_distances(self.truth, self.prediction, self.spacing_mm)

    @cached_property
    def surfels(self) -> SurfaceDistances:
        """The distances between the surface elements (surfels), weighted by their area."""
        return surfel_distances(self.truth, self.prediction, self.spacing_mm)


@dataclass(frozen=True)
class Metric:
    """A number computed from a pair of masks."""

    name: str
    kind: Literal["share", "distance", "fact"]
    """A share ranges from 0 (worst) to 1; a distance from the protocol's penalty (worst) to 0; a fact has no order."""
    measure: Callable[[Pair, float], float]
    """Compute the value from the pair and the distance in mm to return if one of the masks is empty."""
    surface_based: bool = False
    """Whether it compares the surfaces of the two masks."""

    def worst(self, penalty_mm: float) -> float:
        """Return the score of a region or lesion that was not found at all."""
        return penalty_mm if self.kind == "distance" else 0.0

    @property
    def best(self) -> float:
        """The score of two identical masks."""
        return 1.0 if self.kind == "share" else 0.0


def make_pair(truth: Mask, prediction: Mask, spacing_mm: Spacing, where: str = "", voxels: int | None = None) -> Pair:
    """Return two masks as a pair.

    Args:
        truth, prediction: Boolean masks of one shape `(X, Y, Z)`.
        spacing_mm: Voxel size along X, Y, Z.
        where: The region or case with which an error message begins.
        voxels: The number of voxels of the whole grid, if the masks were already cropped from it.

    Raises:
        InputError: The shapes differ, or a mask is not boolean with three axes.
    """
    check_pair(truth, prediction, where)
    cut_truth, cut_prediction = crop_together(truth, prediction)
    overlap = replace(count_overlap(cut_truth, cut_prediction), grid=truth.size if voxels is None else voxels)
    return Pair(cut_truth, cut_prediction, spacing_mm, overlap)


def _nsd(tolerance_mm: float) -> Metric:
    return Metric(f"nsd_{tolerance_mm:g}mm", "share", lambda pair, _: pair.voxels.share_within(tolerance_mm), True)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("dice", "share", lambda pair, _: pair.overlap.dice),
            Metric("iou", "share", lambda pair, _: pair.overlap.iou),
            Metric("hd95_pooled_mm", "distance", lambda pair, penalty: pair.voxels.pooled_95(penalty), True),
            Metric("hd95_surface_mm", "distance", lambda pair, penalty: pair.surfels.larger_95(penalty), True),
            _nsd(0.5),
            _nsd(1.0),
            # BraTS 2026 allows the surface of a single lesion an error of one voxel, whatever its size in mm
            Metric("nsd_one_voxel", "share", lambda pair, _: pair.voxels.share_within(min(pair.spacing_mm)), True),
            Metric("sensitivity", "share", lambda pair, _: pair.overlap.sensitivity),
            Metric("specificity", "share", lambda pair, _: pair.overlap.specificity),
            Metric("voxel_accuracy", "share", lambda pair, _: pair.overlap.accuracy),
            # the accuracy of an empty prediction, against which the accuracy has to be read
            Metric("voxel_accuracy_of_nothing", "fact", lambda pair, _: pair.overlap.accuracy_of_empty),
            Metric("truth_ml", "fact", lambda pair, _: volume_ml(pair.truth, pair.spacing_mm)),
            Metric("prediction_ml", "fact", lambda pair, _: volume_ml(pair.prediction, pair.spacing_mm)),
            Metric("volume_difference_ml", "fact", lambda pair, _: _volume_difference(pair)),
            Metric("truth_pieces", "fact", lambda pair, _: components(pair.truth).count),
            Metric("prediction_pieces", "fact", lambda pair, _: components(pair.prediction).count),
        )
    }
)


def _volume_difference(pair: Pair) -> float:
    """Return predicted minus true volume in mL."""
    return volume_ml(pair.prediction, pair.spacing_mm) - volume_ml(pair.truth, pair.spacing_mm)
