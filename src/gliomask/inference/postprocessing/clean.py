"""Logits -> probabilities -> masks, as a plan's rules say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gliomask.model.plan import Postprocessing, RegionRule
from gliomask.volume import Spacing

# From the outside in: a voxel of one belongs to those before it.
_NESTED = ("WT", "TC", "ET")

# A voxel of 1 mm, taken from an oblique affine, is not quite 1 mm: 50 of them are still 50 mm3.
_ROUNDING = 1e-6


def to_probabilities(logits: NDArray[np.float32], regions: Sequence[str], rule: Postprocessing) -> NDArray[np.float32]:
    """Return the calibrated probabilities: the sigmoid of the logits over their region's temperature.

    Args:
        logits: One channel a region, `(R, ...)`.
        regions: The channels' names.
        rule: The plan's.
    """
    temperatures = [rule.rule(region).temperature for region in regions]
    result = np.empty(logits.shape, np.float32)
    for channel, temperature, out in zip(logits, temperatures, result, strict=True):
        np.divide(channel, np.float32(-temperature), out=out)
        with np.errstate(over="ignore"):  # the probability is 0 then
            np.exp(out, out=out)
        out += 1
        np.reciprocal(out, out=out)
    return result


def clean(
    probabilities: NDArray[np.float32], regions: Sequence[str], rule: Postprocessing, spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """Return one mask a region, nested: ET lies within TC, and TC within WT.

    Voxels above their region's threshold belong to it and to those around it. Then, from the outside in, pieces that
    are too small or too doubtful are taken from their region: a piece of ET stays TC, one of TC stays WT, one of WT is
    background with all that lies in it. Then ET goes as a whole if there is too little of it, and where none is left TC
    may have another threshold, within WT. Cleaning what is clean (its masks as probabilities) changes nothing.

    Args:
        probabilities: `(R, X, Y, Z)`, calibrated.
        regions: The channels' names.
        rule: The plan's; one that says nothing leaves thresholds of one half.
        spacing_mm: Voxel size along X, Y, Z.

    Returns:
        `(R, X, Y, Z)`, new memory.
    """
    masks = np.stack(
        [channel > rule.rule(region).threshold for channel, region in zip(probabilities, regions, strict=True)]
    )
    places = [list(regions).index(region) for region in _NESTED if region in regions]
    for inner, outer in zip(places[:0:-1], places[-2::-1], strict=True):
        masks[outer] |= masks[inner]
    voxel_mm3 = float(np.prod(spacing_mm)) * (1 + _ROUNDING)
    for number, place in enumerate(places):
        if number:
            masks[place] &= masks[places[number - 1]]
        _drop_pieces(masks[place], probabilities[place], rule.rule(regions[place]), voxel_mm3)
    for place in set(range(len(regions))) - set(places):
        _drop_pieces(masks[place], probabilities[place], rule.rule(regions[place]), voxel_mm3)
    if "ET" in regions and rule.least_et_mm3:
        enhancing = masks[list(regions).index("ET")]
        if np.count_nonzero(enhancing) * voxel_mm3 < rule.least_et_mm3:
            enhancing[:] = False
    if rule.tc_threshold_without_et is not None and {"TC", "ET"} <= set(regions):
        _widen_core(masks, probabilities, regions, rule, voxel_mm3)
    return masks


def _widen_core(
    masks: NDArray[np.bool_],
    probabilities: NDArray[np.float32],
    regions: Sequence[str],
    rule: Postprocessing,
    voxel_mm3: float,
) -> None:
    """Where no ET is left, put into TC, in place, what is above the threshold for such cases, doubtful as it is."""
    core, enhancing = (list(regions).index(region) for region in ("TC", "ET"))
    if masks[enhancing].any():
        return
    wide = probabilities[core] > rule.tc_threshold_without_et
    if "WT" in regions:
        wide &= masks[list(regions).index("WT")]
    _drop_pieces(wide, probabilities[core], rule.rule("TC").model_copy(update={"least_probability": 0.0}), voxel_mm3)
    masks[core] |= wide


def _drop_pieces(mask: NDArray[np.bool_], probability: NDArray[np.float32], rule: RegionRule, voxel_mm3: float) -> None:
    """Take from a mask, in place, the pieces that its rule does not keep."""
    if not (rule.least_mm3 or rule.least_probability):
        return
    from gliomask.metrics import components, joint_box  # a third of a second, and mostly not needed

    box = joint_box(mask)
    inside = mask[box].copy()
    numbers = components(inside).labels[inside]
    sizes = np.bincount(numbers)
    keep = sizes * voxel_mm3 >= rule.least_mm3
    if rule.least_probability:
        keep &= np.bincount(numbers, probability[box][inside]) >= rule.least_probability * sizes
    mask[box][inside] = keep[numbers]
