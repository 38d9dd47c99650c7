"""Voxel accuracy and mean IoU over many patches or cases, from one table of counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Background and what lies between nested regions: oedema (WT alone), core (TC without ET), enhancing tumour.
_CLASSES = 4
LEVELS = {"WT": 1, "TC": 2, "ET": 3}
"""The class of a voxel is the highest of the levels of the regions it is in; 0 in none."""


@dataclass
class Confusion:
    """Counts of voxels by true and by predicted class, `(4, 4)`; background, ED, NCR, ET.

    The scores are voxel accuracy and the mean IoU of all four classes, background included. They flatter: where a
    tumour fills 2 % of the voxels, an answer without any tumour is 98 % accurate. Cases whose masks do
    not label all regions are not counted, as the class of a voxel is not known there.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((_CLASSES, _CLASSES), np.int64))

    def add(self, truth: NDArray[np.bool_], prediction: NDArray[np.bool_], regions: Sequence[str]) -> None:
        """Count a batch of region channels, `(B, R, X, Y, Z)` each."""
        pairs = _classes(truth, regions) * np.uint8(_CLASSES) + _classes(prediction, regions)
        self.counts += np.bincount(pairs.ravel(), minlength=_CLASSES**2).reshape(_CLASSES, _CLASSES)

    def accuracy(self) -> float:
        """Return the share of voxels whose class is right; NaN where nothing was counted."""
        if not self.counts.any():
            return math.nan
        return float(np.trace(self.counts) / self.counts.sum())

    def background_accuracy(self) -> float:
        """Return the accuracy of the answer that there is no tumour anywhere; NaN where nothing was counted."""
        if not self.counts.any():
            return math.nan
        return float(self.counts[0].sum() / self.counts.sum())

    def mean_iou(self) -> float:
        """Return the mean over the classes of intersection over union; a class absent from both sides is left out.

        NaN where nothing was counted.
        """
        hit = np.diag(self.counts)
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - hit
        return float(np.mean(hit[union > 0] / union[union > 0])) if union.any() else math.nan


def _classes(masks: NDArray[np.bool_], regions: Sequence[str]) -> NDArray[np.uint8]:
    classes = np.zeros((len(masks), *masks.shape[2:]), np.uint8)
    for region, level in LEVELS.items():
        if region in regions:
            classes[masks[:, list(regions).index(region)]] = level
    return classes
