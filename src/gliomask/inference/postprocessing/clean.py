"""From logits to probabilities and masks, by the rules in a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gliomask.labels import REGIONS
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


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of classes, `(C, ...)`, from their logits."""
    result = np.exp(logits - logits.max(axis=0))
    result /= result.sum(axis=0)
    return np.asarray(result, np.float32)


def region_probabilities(
    probabilities: NDArray[np.float32], classes: Sequence[str], regions: Sequence[str], rule: Postprocessing
) -> NDArray[np.float32]:
    """Return the calibrated probability of each region, `(R, ...)`: the sum of those of the classes that belong to it.

    Args:
        probabilities: Those of the classes, `(C, ...)`.
        classes: The tissue of each class; see `Plan.classes`.
        regions: The regions.
        rule: The post-processing rules of the plan, whose temperatures are applied to the regions' log odds.
    """
    result = np.zeros((len(regions), *probabilities.shape[1:]), np.float32)
    for region, out in zip(regions, result, strict=True):
        for tissue, channel in zip(classes, probabilities, strict=True):
            if tissue in REGIONS[region]:
                out += channel
        temperature = rule.rule(region).temperature
        if temperature != 1:
            np.clip(out, 0, 1, out=out)
            inside, outside = out ** (1 / temperature), (1 - out) ** (1 / temperature)
            np.divide(inside, inside + outside, out=out)
    return result


def class_masks(
    probabilities: NDArray[np.float32], classes: Sequence[str], regions: Sequence[str]
) -> NDArray[np.bool_]:
    """Return one mask for each region, `(R, ...)`: the voxels whose most probable class belongs to it."""
    found = probabilities.argmax(axis=0)
    return np.stack([np.array([tissue in REGIONS[region] for tissue in classes])[found] for region in regions])


def clean(
    probabilities: NDArray[np.float32],
    regions: Sequence[str],
    rule: Postprocessing,
    spacing_mm: Spacing,
    decided: NDArray[np.bool_] | None = None,
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
        decided: The masks `(R, X, Y, Z)` that replace those of regions whose threshold is one half, such as those of
            the most probable classes.

    Returns:
        `(R, X, Y, Z)`, new memory.
    """
    masks = _first_masks(probabilities, regions, rule, decided)
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


def _first_masks(
    probabilities: NDArray[np.float32],
    regions: Sequence[str],
    rule: Postprocessing,
    decided: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Return the masks before they are cleaned; see `clean`."""
    thresholds = [rule.rule(region).threshold for region in regions]
    masks = np.stack([channel > threshold for channel, threshold in zip(probabilities, thresholds, strict=True)])
    if decided is not None:
        unchanged = [threshold == RegionRule().threshold for threshold in thresholds]
        masks[unchanged] = decided[unchanged]
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
        probable = np.bincount(numbers, probability[box][inside]) >= rule.least_probability * sizes
        if rule.kept_mm3 is not None:
            probable |= sizes * voxel_mm3 >= rule.kept_mm3
        keep &= probable
    mask[box][inside] = keep[numbers]
