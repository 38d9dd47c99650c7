"""Lesions: the connected pieces of a mask, and what the challenges make one lesion of."""

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
    """What one region's lesions are in one year of the challenge."""

    dilation: int = 0
    """Steps by which lesions of the truth are dilated: two whose dilations touch are one, and what lies within counts
    as found there."""
    ignored_mm3: float = 0.0
    """Lesions of the truth up to this volume do not count, hit or missed."""
    merge_predictions: bool = False
    """Whether predicted pieces are joined in the same way; else each is a lesion of its own."""
    dropped_voxels: int = 0
    """Predicted lesions up to this size are deleted, after they were joined."""
    joined_by: tuple[str, ...] = ()
    """Regions whose lesions join those of this one that touch them, one after the other."""


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of a mask, numbered from 1, on the mask's grid."""

    labels: Labels
    reach: Labels
    """The lesions dilated as their rule says; those of two lesions never overlap."""
    count: int

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The voxels of each lesion; place 0 is the background."""
        return np.bincount(self.labels.ravel(), minlength=self.count + 1)

    @cached_property
    def boxes(self) -> list[Box]:
        """The box of each lesion, the first at place 0."""
        found = ndimage.find_objects(self.labels, self.count)
        return [(box[0], box[1], box[2]) for box in found if box is not None]


def components(mask: Mask) -> Lesions:
    """Return the pieces of a mask that hang together across faces, edges or corners (26-connected).

    They are numbered in the order in which a scan along Z, then Y, then X first meets them.
    """
    # cc3d 4.1.1 fails where there are as many pieces as an array can hold: a layer of background makes room for more.
    # It takes no array but a writable one in C's order, though it writes nothing; this is one.
    x, y, z = mask.shape
    padded = np.zeros((x + 1, y + 1, z + 1), bool)
    padded[:x, :y, :z] = mask
    found, count = cc3d.connected_components(padded, connectivity=26, return_N=True)
    labels: Labels = np.ascontiguousarray(found[:x, :y, :z], dtype=np.int32)
    return Lesions(labels, labels, int(count))


def find_lesions(masks: Mapping[str, Mask], region: str, rules: Mapping[str, LesionRule], *, truth: bool) -> Lesions:
    """Return one region's lesions as its rule has them.

    Args:
        masks: Boolean masks `(X, Y, Z)` of one shape: the region, and those that may join its lesions.
        region: Whose lesions.
        rules: Those of the region and of all that may join its lesions.
        truth: Whether the masks are the truth: of a prediction, `merge_predictions` and `dropped_voxels` are heeded.
    """
    lesions = _by_dilation(masks[region], rules[region], truth=truth)
    for other in rules[region].joined_by:
        if lesions.count < 2 or not masks[other].any():
            continue
        lesions = _join(lesions, _by_dilation(masks[other], rules[other], truth=truth))
    return lesions


def dilate(mask: Mask, steps: int) -> Mask:
    """Return a mask grown by a number of steps, each to the 18 neighbours across faces and edges; the shape is kept."""
    for _ in range(steps):
        along_x = _grow(mask, 0)
        along_y = _grow(mask, 1)
        mask = _grow(along_x, 1) | _grow(along_x, 2) | _grow(along_y, 2)
    return mask


def shared_voxels(first: Labels, second: Labels, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return how many voxels each pair of labels has in common, `(N, M)`; place 0 is the background and stays 0."""
    both = (first > 0) & (second > 0)
    counts = np.bincount(np.ravel_multi_index((first[both], second[both]), shape), minlength=math.prod(shape))
    return counts.reshape(shape)


def _by_dilation(mask: Mask, rule: LesionRule, *, truth: bool) -> Lesions:
    if not truth and not rule.merge_predictions:
        return components(mask)
    steps = rule.dilation
    grown = components(dilate(np.pad(mask, steps), steps))
    # What is grown past the border is cut off: two lesions that meet there meet inside as well.
    reach = np.ascontiguousarray(grown.labels[tuple(slice(steps, steps + size) for size in mask.shape)])
    lesions = Lesions(reach * mask, reach, grown.count)
    if truth or not rule.dropped_voxels:
        return lesions
    return _renumber(lesions, np.where(lesions.sizes > rule.dropped_voxels, np.arange(lesions.count + 1), 0))


def _join(lesions: Lesions, others: Lesions) -> Lesions:
    """Make one lesion of all that touch the same other lesion; of several others that one touches, the first counts."""
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
    """Give the two label maps shifted against each other, once for each of the 18 neighbours and once in place."""
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
    """Give each lesion another number (0: none), then number them from 1 without gaps, in the same order."""
    kept = np.unique(numbers[numbers > 0])
    table = np.where(numbers > 0, np.searchsorted(kept, numbers) + 1, 0).astype(np.int32)
    return replace(lesions, labels=table[lesions.labels], reach=table[lesions.reach], count=len(kept))


def _grow(mask: Mask, axis: int) -> Mask:
    """Return a mask grown by one voxel both ways along one axis."""
    grown: Mask = mask.copy()
    before: list[slice] = [slice(None)] * 3
    after: list[slice] = [slice(None)] * 3
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    grown[tuple(after)] |= mask[tuple(before)]
    grown[tuple(before)] |= mask[tuple(after)]
    return grown
