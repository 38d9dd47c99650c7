"""From logits to probabilities and masks, by the rules in a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gliomask.model.plan import Postprocessing, RegionRule
from gliomask.volume import Spacing

# Nested regions, the outermost first: the voxels of each belong to those before it.
_NESTED = ("WT", "TC", "ET")

# With an oblique affine the computed volume of a 1 mm voxel is not exactly 1 mm3; 50 such voxels must still be 50 mm3.
_ROUNDING = 1e-6


def to_probabilities(logits: NDArray[np.float32], regions: Sequence[str], rule: Postprocessing) -> NDArray[np.float32]:
    """Return calibrated probabilities: the sigmoid of the logits divided by their region's temperature.

    Args:
        logits: One channel for each region, `(R, ...)`.
        regions: The names of the channels.
        rule: The post-processing rules of the plan.
    """
    temperatures = [rule.rule(region).temperature for region in regions]
    result = np.empty(logits.shape, np.float32)
    for channel, temperature, out in zip(logits, temperatures, result, strict=True):
        np.divide(channel, np.float32(-temperature), out=out)
        with np.errstate(over="ignore"):  # exp overflows to infinity, which gives a probability of 0
            np.exp(out, out=out)
        out += 1
        np.reciprocal(out, out=out)
    return result


def clean(
    probabilities: NDArray[np.float32], regions: Sequence[str], rule: Postprocessing, spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """Return one mask for each region; ET lies within TC, and TC within WT.

    Voxels above their region's threshold belong to it and to the regions around it. Then, from the outermost region
    inwards, components that are too small or too uncertain are removed: a component of ET stays part of TC, one of TC
    stays part of WT, and one of WT becomes background together with everything inside it. Then ET is removed altogether
    if its total volume is too small. In a case without ET, TC may have another threshold, within WT. Cleaning masks
    that are clean already (given as probabilities of 0 and 1) changes nothing.

    Args:
        probabilities: Calibrated, `(R, X, Y, Z)`.
        regions: The names of the channels.
        rule: The post-processing rules of the plan; by default thresholds of one half and nothing else.
        spacing_mm: Voxel size along X, Y, Z.

    Returns:
        `(R, X, Y, Z)`, new memory.
    """
    masks = np.stack(
        [channel > rule.rule(region).threshold for channel, region in zip(probabilities, regions, strict=True)]
    )
    nested = [list(regions).index(region) for region in _NESTED if region in regions]
    for inner, outer in zip(nested[:0:-1], nested[-2::-1], strict=True):
        masks[outer] |= masks[inner]
    voxel_mm3 = float(np.prod(spacing_mm)) * (1 + _ROUNDING)
    for number, index in enumerate(nested):
        if number:
            masks[index] &= masks[nested[number - 1]]
        _remove_components(masks[index], probabilities[index], rule.rule(regions[index]), voxel_mm3)
    for index in set(range(len(regions))) - set(nested):
        _remove_components(masks[index], probabilities[index], rule.rule(regions[index]), voxel_mm3)
    if "ET" in regions and rule.least_et_mm3:
        enhancing = masks[list(regions).index("ET")]
        if np.count_nonzero(enhancing) * voxel_mm3 < rule.least_et_mm3:
            enhancing[:] = False
    if rule.tc_threshold_without_et is not None and {"TC", "ET"} <= set(regions):
        _extend_core_without_et(masks, probabilities, regions, rule, voxel_mm3)
    return masks


def _extend_core_without_et(
    masks: NDArray[np.bool_],
    probabilities: NDArray[np.float32],
    regions: Sequence[str],
    rule: Postprocessing,
    voxel_mm3: float,
) -> None:
    """In a case without ET, add to TC, in place, the voxels above the threshold for such cases, however uncertain."""
    core, enhancing = (list(regions).index(region) for region in ("TC", "ET"))
    if masks[enhancing].any():
        return
    added = probabilities[core] > rule.tc_threshold_without_et
    if "WT" in regions:
        added &= masks[list(regions).index("WT")]
    size_only = rule.rule("TC").model_copy(update={"least_probability": 0.0})
    _remove_components(added, probabilities[core], size_only, voxel_mm3)
    masks[core] |= added


def _remove_components(
    mask: NDArray[np.bool_], probability: NDArray[np.float32], rule: RegionRule, voxel_mm3: float
) -> None:
    """Remove from a mask, in place, the components that are smaller or more uncertain than its rule allows."""
    if not (rule.least_mm3 or rule.least_probability):
        return
    from gliomask.metrics import components, joint_box  # imported here: it takes a third of a second, seldom needed

    box = joint_box(mask)
    inside = mask[box].copy()
    numbers = components(inside).labels[inside]
    sizes = np.bincount(numbers)
    keep = sizes * voxel_mm3 >= rule.least_mm3
    if rule.least_probability:
        keep &= np.bincount(numbers, probability[box][inside]) >= rule.least_probability * sizes
    mask[box][inside] = keep[numbers]
