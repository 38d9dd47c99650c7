"""How far apart the surfaces of two masks lie: two kinds of HD95, and the surface Dice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from gliomask.metrics.masks import Mask, Spacing, check_pair, check_spacing, crop_together
from gliomask.metrics.surfels import surfel_areas, surfel_codes

# A query of the tree costs as much as the transform of 10 to 100 voxels of the box, more for surfaces far apart. Above
# this share of the box (in practice: the speckle of an untrained network) the transform wins, by up to a hundred times.
_CROWDED = 1 / 20

# Areas add up in another order when a mask is flipped: a share that is 0.95 but for rounding counts as reached.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """The distance in mm from each element of one surface to the nearest of the other, both ways, and their weights."""

    from_truth: NDArray[np.float64]
    from_prediction: NDArray[np.float64]
    truth_areas: NDArray[np.float64]
    prediction_areas: NDArray[np.float64]

    @property
    def one_empty(self) -> bool:
        """Whether only one of the masks has a surface: then there are no distances."""
        return bool(len(self.from_truth)) != bool(len(self.from_prediction))

    @property
    def both_empty(self) -> bool:
        """Whether neither mask has a surface."""
        return not len(self.from_truth) and not len(self.from_prediction)

    def pooled_95(self, empty_mm: float) -> float:
        """Return the 95th percentile of both directions in one list, every element counting once."""
        if self.one_empty:
            return empty_mm
        pooled = np.concatenate([self.from_truth, self.from_prediction])
        return float(np.percentile(pooled, 95)) if len(pooled) else 0.0

    def larger_95(self, empty_mm: float) -> float:
        """Return the larger of the two directed 95th percentiles by area."""
        if self.one_empty:
            return empty_mm
        if self.both_empty:
            return 0.0
        return max(
            _percentile_95(self.from_truth, self.truth_areas),
            _percentile_95(self.from_prediction, self.prediction_areas),
        )

    def within(self, tolerance_mm: float) -> float:
        """Return the mean of the two shares of surface elements that lie no farther than the tolerance."""
        if self.one_empty:
            return 0.0
        if self.both_empty:
            return 1.0
        near = [float(np.mean(distances <= tolerance_mm)) for distances in (self.from_truth, self.from_prediction)]
        return sum(near) / 2


def hausdorff_95_pooled(truth: Mask, prediction: Mask, spacing_mm: Spacing, *, empty_mm: float = math.inf) -> float:
    """Return the 95th percentile Hausdorff distance in mm, of the distances of both directions pooled.

    From each surface voxel of one mask to the nearest of the other, both directions in one list, and of this list the
    95th percentile (linear interpolation). A surface voxel is one with a neighbour across a face that is not in the
    mask; beyond the border of the array nothing is. An error on less than a twentieth of the two surfaces together
    weighs nothing: a small island far away can leave 0. `hausdorff_95_surface` is the other definition in use, and
    MONAI has a third (the larger of two percentiles, unweighted): name the variant in every table.

    Args:
        truth, prediction: Boolean masks of one shape `(X, Y, Z)`, left unchanged.
        spacing_mm: Voxel size along X, Y, Z.
        empty_mm: What to return where one mask is empty and the other is not.

    Returns:
        A distance >= 0; 0 where both masks are empty.

    Raises:
        InputError: The shapes differ, a mask is not boolean with three axes, or the spacing is not three positive
            numbers.

    Source: the definition of medpy's `hd95`, which nnU-Net's BraTS script and BraTS 2026 use as well.
    """
    return voxel_distances(truth, prediction, spacing_mm).pooled_95(empty_mm)


def hausdorff_95_surface(truth: Mask, prediction: Mask, spacing_mm: Spacing, *, empty_mm: float = math.inf) -> float:
    """Return the 95th percentile Hausdorff distance in mm: the larger of both directions, weighted by surface area.

    The surface runs between the voxels, one element in each cube of 2 x 2 x 2 voxel centres that is neither full nor
    empty (see `surfels`). Of each direction: the distance within which 95 % of the surface's area lies; of the two, the
    larger. A small island far away is seen, as it is much of one direction's surface; compare `hausdorff_95_pooled`.

    Args, raises: As for `hausdorff_95_pooled`.

    Returns:
        A distance >= 0; 0 where both masks are empty. Where an area adds up to 95 % exactly, the nearer distance.

    Source: Nikolov et al. 2018, arXiv:1809.04430, the definition that BraTS scores by from 2023 to 2025.
    """
    return surfel_distances(truth, prediction, spacing_mm).larger_95(empty_mm)


def surface_dice(truth: Mask, prediction: Mask, spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Return the normalized surface Dice (NSD): how much of the surfaces lies within a tolerance of the other, 0 to 1.

    Of the surface voxels of each mask (as in `hausdorff_95_pooled`), the share that is no farther than the tolerance
    from a surface voxel of the other; the mean of the two shares. Both masks empty: 1. One empty: 0.

    Args:
        truth, prediction, spacing_mm: As for `hausdorff_95_pooled`.
        tolerance_mm: The largest distance that is no error, 0 or more.

    Raises:
        InputError: As for `hausdorff_95_pooled`.

    Source: nnU-Net's variant of the score of Nikolov et al. 2018, as BraTS 2024 and 2026 use it. That of the
        surface-distance package counts areas rather than voxels, pooled; its values are others.
    """
    return voxel_distances(truth, prediction, spacing_mm).within(tolerance_mm)


def voxel_distances(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> SurfaceDistances:
    """Return the distances between the surface voxels of two masks, each of weight 1.

    Args, raises: As for `hausdorff_95_pooled`.
    """
    check_pair(truth, prediction)
    check_spacing(spacing_mm)
    truth, prediction = crop_together(truth, prediction)
    ours, theirs = _surface(truth), _surface(prediction)
    there, back = _both_ways(ours, theirs, spacing_mm)
    return SurfaceDistances(there, back, np.ones(np.count_nonzero(ours)), np.ones(np.count_nonzero(theirs)))


def surfel_distances(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> SurfaceDistances:
    """Return the distances between the surface elements of two masks, each weighted by its area.

    Args, raises: As for `hausdorff_95_pooled`.
    """
    check_pair(truth, prediction)
    check_spacing(spacing_mm)
    truth, prediction = crop_together(truth, prediction)
    ours, theirs = surfel_codes(truth), surfel_codes(prediction)
    areas = surfel_areas(spacing_mm)
    on_ours, on_theirs = _border(ours), _border(theirs)
    there, back = _both_ways(on_ours, on_theirs, spacing_mm)
    return SurfaceDistances(there, back, areas[ours[on_ours]], areas[theirs[on_theirs]])


def _percentile_95(distances: NDArray[np.float64], areas: NDArray[np.float64]) -> float:
    order = np.argsort(distances)
    reached = np.cumsum(areas[order])
    place = int(np.searchsorted(reached, (0.95 - _ROUNDING) * reached[-1]))
    return float(distances[order[place]])


def _border(codes: NDArray[np.uint8]) -> Mask:
    border: Mask = (codes != 0) & (codes != 255)
    return border


def _surface(mask: Mask) -> Mask:
    """Return the voxels of a mask with one of their six neighbours outside it, or outside the array."""
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


def _both_ways(ours: Mask, theirs: Mask, spacing_mm: Spacing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances of both directions; where a surface is empty, infinity to it and nothing from it."""
    if not (ours.any() and theirs.any()):
        return np.full(np.count_nonzero(ours), np.inf), np.full(np.count_nonzero(theirs), np.inf)
    return _directed(ours, theirs, spacing_mm), _directed(theirs, ours, spacing_mm)


def _directed(start: Mask, goal: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Return the distance in mm from each element of one surface to the nearest of the other, in the array's order."""
    apart = start & ~goal  # the rest, on both surfaces, has distance 0
    asked = np.count_nonzero(apart)
    route = _by_transform if asked > _CROWDED * apart.size else _by_tree
    distances = np.zeros(np.count_nonzero(start))
    if asked:
        distances[apart[start]] = route(apart, goal, spacing_mm)
    return distances


def _by_tree(start: Mask, goal: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    # Left unbalanced, the tree is built faster and, on points of a grid, searched up to four times faster as well.
    tree = cKDTree(np.argwhere(goal) * spacing_mm, balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(np.argwhere(start) * spacing_mm)
    return np.asarray(distances)


def _by_transform(start: Mask, goal: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    # Only where the nearest goal is, not how far: that is wanted at few of the voxels.
    nearest = ndimage.distance_transform_edt(~goal, sampling=spacing_mm, return_distances=False, return_indices=True)
    steps = nearest[:, start] - np.stack(start.nonzero())
    distances: NDArray[np.float64] = np.linalg.norm(steps * np.array(spacing_mm)[:, None], axis=0)
    return distances
