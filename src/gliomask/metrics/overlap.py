"""How far two masks cover each other: Dice, IoU, sensitivity, specificity, volume; all from three counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gliomask.metrics.masks import Mask, Spacing, check_masks, check_spacing, joint_box


@dataclass(frozen=True)
class Counts:
    """Voxels of the truth, of the prediction, of both, and of the whole grid."""

    truth: int
    prediction: int
    both: int
    grid: int

    def dice(self) -> float:
        """2 both / (truth + prediction); 1 where both are empty, so 0 where only one is."""
        total = self.truth + self.prediction
        return 2 * self.both / total if total else 1.0

    def iou(self) -> float:
        """both / either; 1 where both are empty."""
        either = self.truth + self.prediction - self.both
        return self.both / either if either else 1.0

    def sensitivity(self) -> float:
        """both / truth; an empty truth gives 1 if the prediction is empty too, else 0."""
        if not self.truth:
            return 0.0 if self.prediction else 1.0
        return self.both / self.truth

    def specificity(self) -> float:
        """The share of the true background that the prediction leaves alone; 1 where there is no background."""
        background = self.grid - self.truth
        return (background - (self.prediction - self.both)) / background if background else 1.0


def count(truth: Mask, prediction: Mask) -> Counts:
    """Count what all metrics of this module are made of, reading only the box that holds both masks.

    Raises:
        InputError: The masks are not boolean, or not of one shape.
    """
    check_masks(truth, prediction)
    box = joint_box(truth, prediction)
    if box is None:
        return Counts(0, 0, 0, truth.size)
    true, predicted = truth[box], prediction[box]
    both = int(np.count_nonzero(true & predicted))
    return Counts(int(np.count_nonzero(true)), int(np.count_nonzero(predicted)), both, truth.size)


def dice(truth: Mask, prediction: Mask) -> float:
    """Return the Dice coefficient, 0 to 1. Both empty: 1; one empty: 0.

    Args:
        truth, prediction: Boolean masks of one shape `(X, Y, Z)`, left unchanged.

    Raises:
        InputError: The masks are not boolean, or not of one shape.

    Source: Dice 1945; the empty cases as in the BraTS challenges of 2017 to 2022.
    """
    return count(truth, prediction).dice()


def iou(truth: Mask, prediction: Mask) -> float:
    """Return intersection over union (Jaccard), 0 to 1. Both empty: 1; one empty: 0. Masks as in `dice`."""
    return count(truth, prediction).iou()


def sensitivity(truth: Mask, prediction: Mask) -> float:
    """Return the share of the truth that was found, 0 to 1. Both empty: 1; only the truth: 0. Masks as in `dice`."""
    return count(truth, prediction).sensitivity()


def specificity(truth: Mask, prediction: Mask) -> float:
    """Return the share of the true background that was left alone, 0 to 1, over the whole array. Masks as in `dice`.

    In a brain scan it is near 0.999 whatever is predicted, as almost all voxels are background: report it, rank by
    something else. No background at all: 1.
    """
    return count(truth, prediction).specificity()


def volume_ml(mask: Mask, spacing_mm: Spacing) -> float:
    """Return a mask's volume in millilitres.

    Raises:
        InputError: The mask is not boolean, or the spacing not three positive numbers.
    """
    check_masks(mask, mask)
    check_spacing(spacing_mm)
    return float(np.count_nonzero(mask) * np.prod(spacing_mm) / 1000)
