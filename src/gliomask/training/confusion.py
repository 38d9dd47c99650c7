"""Voxel accuracy and mean IoU over many patches or cases, computed from a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Background, oedema (WT without TC), non-enhancing core (TC without ET), and enhancing tumour.
_CLASSES = 4
LEVELS = {"WT": 1, "TC": 2, "ET": 3}
"""The class of a voxel is the highest level of the regions that contain it, or 0."""


@dataclass
class Confusion:
    """Counts of voxels by true and by predicted class, `(4, 4)`: background, ED, NCR, ET.

    The scores are voxel accuracy and the mean IoU of all four classes including background. They overstate the quality:
    if a tumour fills 2 % of the voxels, a mask without any tumour has an accuracy of 98 %. Cases whose masks do not
    label all regions are not counted, because the class of a voxel is not known there.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((_CLASSES, _CLASSES), np.int64))

    def add(self, truth: NDArray[np.bool_], prediction: NDArray[np.bool_], regions: Sequence[str]) -> None:
        """Add the counts of a batch of region channels, `(B, R, X, Y, Z)` each."""
        pairs = _classes(truth, regions) * np.uint8(_CLASSES) + _classes(prediction, regions)
        self.counts += np.bincount(pairs.ravel(), minlength=_CLASSES**2).reshape(_CLASSES, _CLASSES)

    def accuracy(self) -> float:
        """Return the fraction of voxels with the right class; NaN if nothing was counted."""
        if not self.counts.any():
            return math.nan
        return float(np.trace(self.counts) / self.counts.sum())

    def background_accuracy(self) -> float:
        """Return the accuracy of a mask without any tumour; NaN if nothing was counted."""
        if not self.counts.any():
            return math.nan
        return float(self.counts[0].sum() / self.counts.sum())

    def mean_iou(self) -> float:
        """Return the mean intersection over union of the classes, except those absent from truth and prediction.

        NaN if nothing was counted.
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
