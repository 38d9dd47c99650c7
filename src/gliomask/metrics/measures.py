"""What is measured on a pair of masks, whole regions and single lesions alike: a table of names and functions."""

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
    """Two masks that are compared, cut to the box that holds both, and what several metrics need of them."""

    truth: Mask
    prediction: Mask
    spacing_mm: Spacing
    overlap: Overlap
    """Of the whole grid, from which the masks were cut."""

    @cached_property
    def voxels(self) -> SurfaceDistances:
        """The distances between the surface voxels."""
        return voxel_distances(self.truth, self.prediction, self.spacing_mm)

    @cached_property
    def surfels(self) -> SurfaceDistances:
        """The distances between the surfaces between the voxels, weighted by area."""
        return surfel_distances(self.truth, self.prediction, self.spacing_mm)


@dataclass(frozen=True)
class Metric:
    """A number of a pair of masks."""

    name: str
    kind: Literal["share", "distance", "fact"]
    """A share is at worst 0, at best 1; a distance at worst the year's penalty, at best 0; a fact has neither."""
    measure: Callable[[Pair, float], float]
    """From the pair and the penalty in mm where one of the masks is empty."""
    of_surfaces: bool = False
    """Whether it is taken between the surfaces of the two masks."""

    def worst(self, penalty_mm: float) -> float:
        """Return the score of what was not found at all."""
        return penalty_mm if self.kind == "distance" else 0.0

    @property
    def best(self) -> float:
        """The score of two equal masks."""
        return 1.0 if self.kind == "share" else 0.0


def make_pair(truth: Mask, prediction: Mask, spacing_mm: Spacing, where: str = "", voxels: int | None = None) -> Pair:
    """Return two masks as a pair.

    Args:
        truth, prediction: Boolean masks of one shape `(X, Y, Z)`.
        spacing_mm: Voxel size along X, Y, Z.
        where: The region or case that opens an error's message.
        voxels: How many voxels the grid has, where the masks were already cut from it.

    Raises:
        InputError: The shapes differ, or a mask is not boolean with three axes.
    """
    check_pair(truth, prediction, where)
    cut_truth, cut_prediction = crop_together(truth, prediction)
    overlap = replace(count_overlap(cut_truth, cut_prediction), grid=truth.size if voxels is None else voxels)
    return Pair(cut_truth, cut_prediction, spacing_mm, overlap)


def _nsd(tolerance_mm: float) -> Metric:
    return Metric(f"nsd_{tolerance_mm:g}mm", "share", lambda pair, _: pair.voxels.within(tolerance_mm), True)


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
            # BraTS 2026 asks of a single lesion that its surface is right to a voxel, whatever a voxel's size
            Metric("nsd_one_voxel", "share", lambda pair, _: pair.voxels.within(min(pair.spacing_mm)), True),
            Metric("sensitivity", "share", lambda pair, _: pair.overlap.sensitivity),
            Metric("specificity", "share", lambda pair, _: pair.overlap.specificity),
            Metric("voxel_accuracy", "share", lambda pair, _: pair.overlap.accuracy),
            # beside it, so that nobody takes 0.99 for good
            Metric("voxel_accuracy_of_nothing", "fact", lambda pair, _: pair.overlap.accuracy_of_nothing),
            Metric("truth_ml", "fact", lambda pair, _: volume_ml(pair.truth, pair.spacing_mm)),
            Metric("prediction_ml", "fact", lambda pair, _: volume_ml(pair.prediction, pair.spacing_mm)),
            Metric("volume_difference_ml", "fact", lambda pair, _: _volume_difference(pair)),
            Metric("truth_pieces", "fact", lambda pair, _: components(pair.truth).count),
            Metric("prediction_pieces", "fact", lambda pair, _: components(pair.prediction).count),
        )
    }
)


def _volume_difference(pair: Pair) -> float:
    """Too much is positive, too little negative."""
    return volume_ml(pair.prediction, pair.spacing_mm) - volume_ml(pair.truth, pair.spacing_mm)
