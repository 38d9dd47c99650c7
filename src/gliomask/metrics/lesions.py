"""Lesions: the connected components of a mask, and how the challenges merge them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomask.metrics.masks import Mask

Labels = NDArray[np.int32]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LesionRule:
    """How a year of the challenge defines the lesions of one region."""

    dilation: int = 0
    """Number of dilation steps for lesions of the truth. Two lesions whose dilations touch are one lesion, and a
    predicted lesion that reaches into the dilation of a true one is matched with it."""
    ignored_mm3: float = 0.0
    """Lesions of the truth up to this volume are not scored, whether found or missed."""
    merge_predictions: bool = False
    """Whether predicted components are merged in the same way; otherwise each component is a lesion."""
    dropped_voxels: int = 0
    """Predicted lesions up to this size are deleted, after merging."""
    joined_by: tuple[str, ...] = ()
    """Regions whose lesions merge the lesions of this region that touch them; applied in this order."""


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of a mask, numbered from 1, on the mask's grid."""

    labels: Labels
    dilated: Labels
    """The lesions dilated according to their rule; the dilations of two lesions never overlap."""
    count: int

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The number of voxels of each lesion; entry 0 is the background."""
        return np.bincount(self.labels.ravel(), minlength=self.count + 1)

    @cached_property
    def boxes(self) -> list[Box]:
        """The bounding box of each lesion; lesion 1 is entry 0."""
        found = ndimage.find_objects(self.labels, self.count)
        return [(box[0], box[1], box[2]) for box in found if box is not None]


def components(mask: Mask) -> Lesions:
    """Return the 26-connected components of a mask (connected across faces, edges or corners).

    They are numbered in the order in which a scan along Z, then Y, then X first reaches them.
    """
    # cc3d 4.1.1 fails if a mask has the largest possible number of components; a layer of background avoids that.
    # It accepts only writable C-contiguous arrays, although it does not write to them; the padded copy is one.
    x, y, z = mask.shape
    padded = np.zeros((x + 1, y + 1, z + 1), bool)
    padded[:x, :y, :z] = mask
    found, count = cc3d.connected_components(padded, connectivity=26, return_N=True)
    labels: Labels = np.ascontiguousarray(found[:x, :y, :z], dtype=np.int32)
    return Lesions(labels, labels, int(count))


def find_lesions(masks: Mapping[str, Mask], region: str, rules: Mapping[str, LesionRule], *, truth: bool) -> Lesions:
    """Return the lesions of one region according to its rule.

    Args:
        masks: Boolean masks `(X, Y, Z)` of one shape: the region, and the regions that may merge its lesions.
        region: The name of the region.
        rules: The rules of the region and of all regions that may merge its lesions.
        truth: Whether the masks are the truth; `merge_predictions` and `dropped_voxels` apply to predictions only.
    """
    lesions = _by_dilation(masks[region], rules[region], truth=truth)
    for other in rules[region].joined_by:
        if lesions.count < 2 or not masks[other].any():
            continue
        lesions = _join(lesions, _by_dilation(masks[other], rules[other], truth=truth))
    return lesions


def dilate(mask: Mask, steps: int) -> Mask:
    """Return a mask dilated by a number of steps, each to the 18 neighbours across faces and edges; same shape."""
    for _ in range(steps):
        along_x = _grow(mask, 0)
        along_y = _grow(mask, 1)
        mask = _grow(along_x, 1) | _grow(along_x, 2) | _grow(along_y, 2)
    return mask


def shared_voxels(first: Labels, second: Labels, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return how many voxels each pair of labels has in common, `(N, M)`; row and column 0 (background) stay 0."""
    both = (first > 0) & (second > 0)
    counts = np.bincount(np.ravel_multi_index((first[both], second[both]), shape), minlength=math.prod(shape))
    return counts.reshape(shape)


def _by_dilation(mask: Mask, rule: LesionRule, *, truth: bool) -> Lesions:
    if not truth and not rule.merge_predictions:
        return components(mask)
    steps = rule.dilation
    grown = components(dilate(np.pad(mask, steps), steps))
    # The part that was dilated beyond the border is cut off: two lesions that touch there touch inside as well.
    dilated = np.ascontiguousarray(grown.labels[tuple(slice(steps, steps + size) for size in mask.shape)])
    lesions = Lesions(dilated * mask, dilated, grown.count)
    if truth or not rule.dropped_voxels:
        return lesions
    return _renumber(lesions, np.where(lesions.sizes > rule.dropped_voxels, np.arange(lesions.count + 1), 0))


def _join(lesions: Lesions, others: Lesions) -> Lesions:
    """Merge the lesions that touch the same other lesion; a lesion that touches several others joins the first."""
    shape = (lesions.count + 1, others.count + 1)
    touching = np.zeros(shape, bool)
    for here, there in _neighbours(lesions.labels, others.labels):
        both = (here > 0) & (there > 0)
        touching[here[both], there[both]] = True
    touched = touching.any(axis=1)
    first = touching.argmax(axis=1)
    number = np.arange(lesions.count + 1)
    return _renumber(lesions, np.where(touched, lesions.count + first, number))


def _neighbours(first: Labels, second: Labels) -> Sequence[tuple[Labels, Labels]]:
    """Return the two label maps shifted against each other by each of the 18 neighbour offsets, and unshifted."""
    pairs = []
    for shift in np.ndindex(3, 3, 3):
        steps = [step - 1 for step in shift]
        if sum(map(abs, steps)) <= 2:
            here = tuple(
                slice(max(0, -step), size - max(0, step)) for step, size in zip(steps, first.shape, strict=True)
            )
            there = tuple(
                slice(max(0, step), size - max(0, -step)) for step, size in zip(steps, first.shape, strict=True)
            )
            pairs.append((first[here], second[there]))
    return pairs


def _renumber(lesions: Lesions, numbers: NDArray[np.int64]) -> Lesions:
    """Assign each lesion a new number (0 deletes it), then renumber from 1 without gaps, in the same order."""
    kept = np.unique(numbers[numbers > 0])
    table = np.where(numbers > 0, np.searchsorted(kept, numbers) + 1, 0).astype(np.int32)
    return replace(lesions, labels=table[lesions.labels], dilated=table[lesions.dilated], count=len(kept))


def _grow(mask: Mask, axis: int) -> Mask:
    """Return a mask dilated by one voxel in both directions along one axis."""
    grown: Mask = mask.copy()
    before: list[slice] = [slice(None)] * 3
    after: list[slice] = [slice(None)] * 3
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    grown[tuple(after)] |= mask[tuple(before)]
    grown[tuple(before)] |= mask[tuple(after)]
    return grown
