"""The answer on the prepared grid taken back to the grid on which a sequence was acquired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.alignment import Alignment
from gliomask.acquisition.resampling import box_on_native, part_of
from gliomask.inference.result import Prediction
from gliomask.labels import get_convention, to_labels, to_regions
from gliomask.volume import Volume, voxel_volume_ml

# How far inside or outside of its region a voxel stands at least that post-processing added or removed.
_SURE = 0.01
# From the outermost region inwards.
_NESTED = ("WT", "TC", "ET")


@dataclass(frozen=True)
class NativeAnswer:
    """A prediction in the space of one of the patient's own images."""

    modality: str
    """The sequence on whose grid it lies."""
    labels: Volume
    """One uint8 channel in the numbers of the prediction's convention."""
    probabilities: Volume | None
    """If wanted, one float32 channel for each region; 0 outside the prepared grid."""
    volumes_ml: dict[str, float]
    """The volume of each region on this grid."""


def to_native(
    prediction: Prediction, alignment: Alignment, modality: str | None = None, *, probabilities: bool = False
) -> NativeAnswer:
    """Return a prediction on the grid of one of the sequences as it was acquired.

    The probabilities are what is interpolated: before that they are shifted so that each region's border lies at .5 and
    is the border of the mask after post-processing. Each region keeps its volume, apart from what lies outside the
    sequence's grid: it gets as many voxels as the mask fills, those with the highest mean over their extent. The voxels
    of TC are among those of WT, and the voxels of ET among those of TC.

    Args:
        prediction: Of the prepared images.
        alignment: The one that prepared them.
        modality: The sequence; by default the reference.
        probabilities: Whether the answer also has the probabilities.
    """
    modality = modality or alignment.reference
    regions = prediction.plan.regions
    convention = get_convention(prediction.convention)
    masks = to_regions(prediction.labels.data[0], convention, regions)
    borders = _with_borders_at_half(prediction.probabilities.data, masks, _thresholds(prediction, regions))
    native = alignment.native[modality]
    tumour: NDArray[np.bool_] = np.any(masks, axis=0)
    box = box_on_native(tumour, alignment, modality)
    near = replace(alignment, native={modality: part_of(native, box)})
    both = Volume(np.concatenate([borders, masks.astype(np.float32)]), prediction.labels.affine)
    carried = near.onto_native(modality, both).data
    inside = _fill(carried[: len(regions)], carried[len(regions) :], regions)
    labels = np.zeros(native.shape, np.uint8)
    labels[box] = to_labels(inside, regions, convention)
    voxel_ml = voxel_volume_ml(native.affine)
    return NativeAnswer(
        modality=modality,
        labels=Volume(labels[None], native.affine),
        probabilities=alignment.onto_native(modality, prediction.probabilities) if probabilities else None,
        volumes_ml={
            region: round(float(np.count_nonzero(mask)) * voxel_ml, 3)
            for region, mask in zip(regions, to_regions(labels, convention, regions), strict=True)
        },
    )


def _fill(values: NDArray[np.float32], shares: NDArray[np.float32], regions: Sequence[str]) -> NDArray[np.bool_]:
    """For each region the voxels with the highest values, as many as the sum of the shares that the region fills."""
    inside = np.zeros(values.shape, bool)
    outer: NDArray[np.bool_] | None = None
    for region in sorted(regions, key=lambda name: _NESTED.index(name) if name in _NESTED else len(_NESTED)):
        channel = regions.index(region)
        share = shares[channel]
        possible = share > 0
        if region in _NESTED and outer is not None:
            possible &= outer
        count = min(round(float(share.sum(dtype=np.float64))), int(np.count_nonzero(possible)))
        if count:
            # Shares decide between equal values, such as those that are certain.
            rank = np.where(possible, values[channel] + np.float32(1e-3) * share, -np.inf).ravel()
            inside[channel].reshape(-1)[np.argpartition(rank, len(rank) - count)[len(rank) - count :]] = True
        if region in _NESTED:
            outer = inside[channel]
    return inside


def _thresholds(prediction: Prediction, regions: Sequence[str]) -> list[float]:
    rules = prediction.plan.postprocessing.regions
    return [rules[region].threshold if region in rules else 0.5 for region in regions]


def _with_borders_at_half(
    probabilities: NDArray[np.float32], masks: NDArray[np.bool_], thresholds: Sequence[float]
) -> NDArray[np.float32]:
    """Probabilities whose level .5 is the border of the masks."""
    shifted = np.empty_like(probabilities)
    for channel, mask, threshold, out in zip(probabilities, masks, thresholds, shifted, strict=True):
        moved = (channel + (0.5 - threshold)).clip(0, 1)
        out[...] = np.where(mask, np.maximum(moved, 0.5 + _SURE), np.minimum(moved, 0.5 - _SURE))
    return shifted
