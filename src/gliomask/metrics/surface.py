"""Distances between the surfaces of two masks: two definitions of HD95, and the surface Dice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from gliomask.metrics.masks import Mask, Spacing, check_pair, check_spacing, crop_together
from gliomask.metrics.surfels import surfel_areas, surfel_codes

# One query of the tree takes as long as the distance transform of 10 to 100 voxels of the box, longer for surfaces far
# apart. Above this fraction of the box (in practice, the speckle of an untrained network) the transform is faster, by
# up to a hundred times.
_LARGEST_FRACTION_FOR_TREE = 1 / 20

# Areas are summed in another order when a mask is flipped: 95 % counts as reached within this rounding error.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """The distances in mm from the elements of each surface to the nearest of the other, and their areas."""

    from_truth: NDArray[np.float64]
    from_prediction: NDArray[np.float64]
    truth_areas: NDArray[np.float64]
    prediction_areas: NDArray[np.float64]

    @property
    def one_empty(self) -> bool:
        """Whether exactly one of the masks is empty; there are no distances then."""
        return bool(len(self.from_truth)) != bool(len(self.from_prediction))

    @property
    def both_empty(self) -> bool:
        """Whether both masks are empty."""
        return not len(self.from_truth) and not len(self.from_prediction)

    def pooled_95(self, empty_mm: float) -> float:
        """Return the 95th percentile of the distances of both directions pooled, unweighted."""
        if self.one_empty:
            return empty_mm
        pooled = np.concatenate([self.from_truth, self.from_prediction])
        return float(np.percentile(pooled, 95)) if len(pooled) else 0.0

    def larger_95(self, empty_mm: float) -> float:
        """Return the larger of the two directed, area-weighted 95th percentiles."""
        if self.one_empty:
            return empty_mm
        if self.both_empty:
            return 0.0
        return max(
            _percentile_95(self.from_truth, self.truth_areas),
            _percentile_95(self.from_prediction, self.prediction_areas),
        )

    def share_within(self, tolerance_mm: float) -> float:
        """Return the mean of the two fractions of surface elements that are no farther than the tolerance."""
        if self.one_empty:
            return 0.0
        if self.both_empty:
            return 1.0
        near = [float(np.mean(distances <= tolerance_mm)) for distances in (self.from_truth, self.from_prediction)]
        return sum(near) / 2


def hausdorff_95_pooled(truth: Mask, prediction: Mask, spacing_mm: Spacing, *, empty_mm: float = math.inf) -> float:
    """Return the 95th percentile Hausdorff distance in mm, of the distances of both directions pooled.

    The distances from each surface voxel of one mask to the nearest surface voxel of the other are pooled over both
    directions; the result is their 95th percentile (linear interpolation). A surface voxel has a neighbour across a
    face that is not in the mask; outside the array, no voxel is. Errors on less than a twentieth of both surfaces
    together have no effect: the result can be 0 despite a small island far away. `hausdorff_95_surface` is the other
    definition in use, and MONAI has a third one (the larger of two unweighted percentiles): name the variant in every
    table.

    Args:
        truth, prediction: Boolean masks of one shape `(X, Y, Z)`, left unchanged.
        spacing_mm: Voxel size along X, Y, Z.
        empty_mm: The distance to return if exactly one mask is empty.

    Returns:
        A distance >= 0; 0 if both masks are empty.

    Raises:
        InputError: The shapes differ, a mask is not boolean with three axes, or the spacing is not three positive
            numbers.

    Source: the definition of medpy's `hd95`, which nnU-Net's BraTS script and BraTS 2026 also use.
    """
    return voxel_distances(truth, prediction, spacing_mm).pooled_95(empty_mm)


def hausdorff_95_surface(truth: Mask, prediction: Mask, spacing_mm: Spacing, *, empty_mm: float = math.inf) -> float:
    """Return the 95th percentile Hausdorff distance in mm: the larger of both directions, weighted by surface area.

    The surface lies between the voxels, with one element in each cube of 2 x 2 x 2 voxel centres that is neither full
    nor empty (see `surfels`). For each direction, the distance within which 95 % of the surface area lies is computed;
    the result is the larger of the two. A small island far away increases it, because it is a large part of one of the
    two surfaces; compare `hausdorff_95_pooled`.

    Args, raises: As for `hausdorff_95_pooled`.

    Returns:
        A distance >= 0; 0 if both masks are empty. If the area sums to exactly 95 %, the smaller distance.

    Source: Nikolov et al. 2018, arXiv:1809.04430, the definition used by BraTS from 2023 to 2025.
    """
    return surfel_distances(truth, prediction, spacing_mm).larger_95(empty_mm)


def surface_dice(truth: Mask, prediction: Mask, spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Return the normalized surface Dice (NSD): the fraction of both surfaces within a tolerance of the other, 0 to 1.

    For each mask, the fraction of its surface voxels (as in `hausdorff_95_pooled`) that are no farther than the
    tolerance from a surface voxel of the other mask; the result is the mean of the two. Both masks empty: 1. One: 0.

    Args:
        truth, prediction, spacing_mm: As for `hausdorff_95_pooled`.
        tolerance_mm: The largest distance that does not count as an error, >= 0.

    Raises:
        InputError: As for `hausdorff_95_pooled`.

    Source: nnU-Net's variant of the score of Nikolov et al. 2018, as used by BraTS 2024 and 2026. The surface-distance
        package pools areas instead of counting voxels, and gives other values.
    """
    return voxel_distances(truth, prediction, spacing_mm).share_within(tolerance_mm)


def voxel_distances(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> SurfaceDistances:
    """Return the distances between the surface voxels of two masks, each of weight 1.

    Args, raises: As for `hausdorff_95_pooled`.
    """
    check_pair(truth, prediction)
    check_spacing(spacing_mm)
    truth, prediction = crop_together(truth, prediction)
    true, predicted = _surface(truth), _surface(prediction)
    there, back = _both_ways(true, predicted, spacing_mm)
    return SurfaceDistances(there, back, np.ones(np.count_nonzero(true)), np.ones(np.count_nonzero(predicted)))


def surfel_distances(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> SurfaceDistances:
    """Return the distances between the surface elements of two masks, each weighted by its area.

    Args, raises: As for `hausdorff_95_pooled`.
    """
    check_pair(truth, prediction)
    check_spacing(spacing_mm)
    truth, prediction = crop_together(truth, prediction)
    true, predicted = surfel_codes(truth), surfel_codes(prediction)
    areas = surfel_areas(spacing_mm)
    on_true, on_predicted = _border(true), _border(predicted)
    there, back = _both_ways(on_true, on_predicted, spacing_mm)
    return SurfaceDistances(there, back, areas[true[on_true]], areas[predicted[on_predicted]])


def _percentile_95(distances: NDArray[np.float64], areas: NDArray[np.float64]) -> float:
    order = np.argsort(distances)
    reached = np.cumsum(areas[order])
    place = int(np.searchsorted(reached, (0.95 - _ROUNDING) * reached[-1]))
    return float(distances[order[place]])


def _border(codes: NDArray[np.uint8]) -> Mask:
    border: Mask = (codes != 0) & (codes != 255)
    return border


def _surface(mask: Mask) -> Mask:
    """Return the voxels of a mask that have at least one of their six neighbours outside it, or outside the array."""
    core = mask[1:-1, 1:-1, 1:-1]
    inner = (
        core
        & mask[2:, 1:-1, 1:-1]
        & mask[:-2, 1:-1, 1:-1]
        & mask[1:-1, 2:, 1:-1]
        & mask[1:-1, :-2, 1:-1]
        & mask[1:-1, 1:-1, 2:]
        & mask[1:-1, 1:-1, :-2]
    )
    surface: Mask = mask.copy()
    surface[1:-1, 1:-1, 1:-1] &= ~inner
    return surface


def _both_ways(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances of both directions; they are infinite if the other surface is empty."""
    if not (truth.any() and prediction.any()):
        return np.full(np.count_nonzero(truth), np.inf), np.full(np.count_nonzero(prediction), np.inf)
    return _directed(truth, prediction, spacing_mm), _directed(prediction, truth, spacing_mm)


def _directed(start: Mask, goal: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Return the distance in mm from each element of one surface to the nearest of the other, in array order."""
    apart = start & ~goal  # elements on both surfaces have distance 0
    queries = np.count_nonzero(apart)
    distances_of = _by_transform if queries > _LARGEST_FRACTION_FOR_TREE * apart.size else _by_tree
    distances = np.zeros(np.count_nonzero(start))
    if queries:
        distances[apart[start]] = distances_of(apart, goal, spacing_mm)
    return distances


def _by_tree(start: Mask, goal: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    # On points of a grid, an unbalanced tree is built faster and searched up to four times as fast.
    tree = cKDTree(np.argwhere(goal) * spacing_mm, balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(np.argwhere(start) * spacing_mm)
    return np.asarray(distances)


def _by_transform(start: Mask, goal: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    # The transform returns only the nearest element; its distance is computed at the few voxels that need it.
    nearest = ndimage.distance_transform_edt(~goal, sampling=spacing_mm, return_distances=False, return_indices=True)
    steps = nearest[:, start] - np.stack(start.nonzero())
    distances: NDArray[np.float64] = np.linalg.norm(steps * np.array(spacing_mm)[:, None], axis=0)
    return distances
