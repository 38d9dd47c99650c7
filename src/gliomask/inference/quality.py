"""How good a predicted mask probably is: the Dice that is expected if the model's probabilities are right."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.model.plan import Plan


@dataclass(frozen=True)
class EstimatedDice:
    """The estimated Dice of one region of one case, and the interval in which four of five true values lay."""

    dice: float
    low: float
    high: float


def expected_dice(probability: NDArray[np.floating], mask: NDArray[np.bool_]) -> float | None:
    """Return an estimate of the Dice between a mask and the unknown truth, or None for an empty mask.

    It is `2 * sum(p in mask) / (sum(p) + voxels of mask)`: the ratio of the expected overlap and the expected sizes if
    each voxel belongs to the region with its probability p, which must be calibrated. The estimate cannot know of a
    tumour, or a part of one, that the model is certain not to see.

    Args:
        probability: The calibrated probabilities of a region, any shape.
        mask: The predicted mask, of the same shape.
    """
    voxels = int(np.count_nonzero(mask))
    if not voxels:
        return None
    # NumPy adds float32 in pairs, which is precise to six digits here and takes a third of the time of float64.
    return 2 * float(probability[mask].sum()) / (float(probability.sum()) + voxels)


def estimate_dice(
    probabilities: NDArray[np.floating], masks: NDArray[np.bool_], plan: Plan, modalities: Collection[str]
) -> dict[str, EstimatedDice]:
    """Return the estimates for the regions and sequences for which the plan says that they were checked.

    Args:
        probabilities: `(R, X, Y, Z)`, calibrated.
        masks: The predicted masks, of the same shape.
        plan: The plan of the model.
        modalities: The sequences of the examination.
    """
    given = {name for name in plan.modalities if name in modalities}
    found = {}
    for probability, mask, region in zip(probabilities, masks, plan.regions, strict=True):
        checked = plan.dice_estimates.get(region)
        if checked is None or given not in map(set, checked.sequences):
            continue
        dice = expected_dice(probability, mask)
        if dice is not None:
            low, high = (min(1.0, max(0.0, dice + step)) for step in (checked.low, checked.high))
            found[region] = EstimatedDice(round(dice, 3), round(low, 3), round(high, 3))
    return found
