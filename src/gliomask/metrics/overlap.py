"""Overlap metrics of two masks or two label maps."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.metrics.masks import Mask, Spacing, check_mask, check_pair, check_spacing

LabelMap = NDArray[np.integer]


@dataclass(frozen=True)
class Overlap:
    """The voxel counts from which all overlap metrics are computed; see the functions below for empty masks."""

    truth: int
    prediction: int
    both: int
    grid: int  # all voxels, background included

    @property
    def dice(self) -> float:
        """See `dice`."""
        return _ratio(2 * self.both, self.truth + self.prediction, otherwise=1.0)

    @property
    def iou(self) -> float:
        """See `iou`."""
        return _ratio(self.both, self.truth + self.prediction - self.both, otherwise=1.0)

    @property
    def sensitivity(self) -> float:
        """See `sensitivity`."""
        return _ratio(self.both, self.truth, otherwise=0.0 if self.prediction else 1.0)

    @property
    def specificity(self) -> float:
        """See `specificity`."""
        return _ratio(self._neither, self.grid - self.truth, otherwise=1.0)

    @property
    def accuracy(self) -> float:
        """The fraction of all voxels, background included, that is in both masks or in neither; see `accuracy`."""
        return _ratio(self.both + self._neither, self.grid, otherwise=1.0)

    @property
    def accuracy_of_empty(self) -> float:
        """The accuracy of an empty prediction, against which `accuracy` has to be read."""
        return _ratio(self.grid - self.truth, self.grid, otherwise=1.0)

    @property
    def _neither(self) -> int:
        return self.grid - self.truth - self.prediction + self.both


def count_overlap(truth: Mask, prediction: Mask) -> Overlap:
    """Count the voxels of two boolean masks of one shape `(X, Y, Z)`, once for all overlap metrics.

    Raises:
        InputError: The shapes differ, or a mask is not boolean with three axes.
    """
    check_pair(truth, prediction)
    return Overlap(
        truth=int(np.count_nonzero(truth)),
        prediction=int(np.count_nonzero(prediction)),
        both=int(np.count_nonzero(truth & prediction)),
        grid=truth.size,
    )


def dice(truth: Mask, prediction: Mask) -> float:
    """Return the Dice coefficient, 2 |T ∩ P| / (|T| + |P|), from 0 to 1.

    Both masks empty: 1. One empty: 0.

    Raises:
        InputError: The shapes differ, or a mask is not boolean with three axes.

    Source: Dice, Ecology 1945; empty masks as in BraTS 2017-2022.
    """
    return count_overlap(truth, prediction).dice


def iou(truth: Mask, prediction: Mask) -> float:
    """Return the intersection over the union (Jaccard index), |T ∩ P| / |T ∪ P|, from 0 to 1.

    Both masks empty: 1. One empty: 0.

    Raises:
        InputError: The shapes differ, or a mask is not boolean with three axes.
    """
    return count_overlap(truth, prediction).iou


def sensitivity(truth: Mask, prediction: Mask) -> float:
    """Return the fraction of the truth that was found, TP / (TP + FN), from 0 to 1.

    Both masks empty: 1. Only the truth empty: 0, as in BraTS. Only the prediction empty: 0.

    Raises:
        InputError: The shapes differ, or a mask is not boolean with three axes.
    """
    return count_overlap(truth, prediction).sensitivity


def specificity(truth: Mask, prediction: Mask) -> float:
    """Return the fraction of the background that was not segmented, TN / (TN + FP), from 0 to 1.

    It is computed over the whole grid, air included, as in BraTS. A tumour fills about one hundredth of the grid, so
    almost any prediction scores near 0.999: report it, but do not rank by it. No background in the truth: 1.

    Raises:
        InputError: The shapes differ, or a mask is not boolean with three axes.
    """
    return count_overlap(truth, prediction).specificity


def volume_ml(mask: Mask, spacing_mm: Spacing) -> float:
    """Return the volume of a boolean mask `(X, Y, Z)` in millilitres.

    Raises:
        InputError: The mask is not boolean with three axes, or the spacing is not three positive numbers.
    """
    check_mask(mask, "mask")
    check_spacing(spacing_mm)
    return float(np.count_nonzero(mask) * math.prod(spacing_mm) / 1000)


def accuracy(truth_labels: LabelMap, prediction_labels: LabelMap) -> float:
    """Return the fraction of all voxels, background included, whose label is correct, from 0 to 1.

    It is misleading: about 99 of 100 voxels of a BraTS volume are background, so a prediction without any tumour scores
    0.98 to 0.99. It is provided for comparison with older results. Read it beside the score of an empty prediction,
    `accuracy(truth_labels, np.zeros_like(truth_labels))`, and rely on the `dice` of the regions instead.

    Args:
        truth_labels, prediction_labels: Integer label maps of one shape with at least one voxel.

    Raises:
        InputError: The shapes differ, a map is not of integer type, or there is no voxel.
    """
    _check_labels(truth_labels, prediction_labels)
    return float(np.count_nonzero(truth_labels == prediction_labels) / truth_labels.size)


def mean_iou(truth_labels: LabelMap, prediction_labels: LabelMap, labels: Collection[int]) -> float:
    """Return the mean intersection over union of the classes, from 0 to 1, as in `keras.metrics.MeanIoU`.

    The background is one of the classes, and its IoU near 1 raises the mean; a class that is in neither map is left
    out. Keras accumulates the counts over all voxels it has seen; here they are those of one case.

    Args:
        truth_labels, prediction_labels: Integer label maps of one shape with at least one voxel.
        labels: All values that the maps may contain, background included.

    Raises:
        InputError: The shapes differ, a map is not of integer type, there is no voxel, or a map has another value.
    """
    _check_labels(truth_labels, prediction_labels)
    scores = []
    seen = {"truth": 0, "prediction": 0}
    for label in sorted(set(labels)):
        truth, prediction = truth_labels == label, prediction_labels == label
        in_truth, in_prediction = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
        seen["truth"] += in_truth
        seen["prediction"] += in_prediction
        if in_truth or in_prediction:
            both = int(np.count_nonzero(truth & prediction))
            scores.append(both / (in_truth + in_prediction - both))
    for name, labels_map in (("truth", truth_labels), ("prediction", prediction_labels)):
        if seen[name] < labels_map.size:
            strange = sorted(set(np.unique(labels_map).tolist()) - set(labels))
            raise InputError(
                f"{name}: labels {strange} are not among the classes {sorted(set(labels))}. "
                "List all values of the maps, background included."
            )
    return math.fsum(scores) / len(scores)


def _ratio(part: int, whole: int, otherwise: float) -> float:
    return part / whole if whole else otherwise


def _check_labels(truth: LabelMap, prediction: LabelMap) -> None:
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if not np.issubdtype(labels.dtype, np.integer) or not labels.size:
            raise InputError(
                f"{name} must be an integer label map with at least one voxel; got {labels.dtype} of shape "
                f"{labels.shape}. Convert it first, such as labels.astype('uint8')."
            )
    if truth.shape != prediction.shape:
        raise InputError(
            f"truth and prediction must have one shape; got {truth.shape} and {prediction.shape}. "
            "Resample the prediction to the grid of the truth first."
        )
