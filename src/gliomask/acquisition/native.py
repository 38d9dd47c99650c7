"""The answer on the prepared grid taken back to the grid on which a sequence was acquired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.alignment import Alignment
from gliomask.inference.prediction import Prediction
from gliomask.labels import get_convention, to_labels, to_regions
from gliomask.volume import Volume, voxel_volume_ml

# How far inside or outside of its region a voxel stands at least that post-processing added or removed.
_SURE = 0.01


@dataclass(frozen=True)
class NativeAnswer:
    """A prediction in the space of one of the patient's own images."""

    modality: str
    """The sequence on whose grid it lies."""
    labels: Volume
    """One uint8 channel in the numbers of the prediction's convention."""
    probabilities: Volume
    """One float32 channel for each region; 0 outside the prepared grid."""
    volumes_ml: dict[str, float]
    """The volume of each region on this grid."""


def to_native(prediction: Prediction, alignment: Alignment, modality: str | None = None) -> NativeAnswer:
    """Return a prediction on the grid of one of the sequences as it was acquired.

    The probabilities are what is interpolated: before that they are shifted so that each region's border lies at .5 and
    is the border of the mask after post-processing. A voxel of a thick slice belongs to a region where the mean over
    its extent does.

    Args:
        prediction: Of the prepared images.
        alignment: The one that prepared them.
        modality: The sequence; by default the reference.
    """
    modality = modality or alignment.reference
    regions = prediction.plan.regions
    convention = get_convention(prediction.convention)
    masks = to_regions(prediction.labels.data[0], convention, regions)
    borders = _with_borders_at_half(prediction.probabilities.data, masks, _thresholds(prediction, regions))
    carried = alignment.onto_native(modality, Volume(borders, prediction.labels.affine))
    inside = carried.data > 0.5
    labels = to_labels(inside, regions, convention)
    voxel_ml = voxel_volume_ml(carried.affine)
    return NativeAnswer(
        modality=modality,
        labels=Volume(labels[None], carried.affine),
        probabilities=alignment.onto_native(modality, prediction.probabilities),
        volumes_ml={
            region: round(float(np.count_nonzero(mask)) * voxel_ml, 3)
            for region, mask in zip(regions, to_regions(labels, convention, regions), strict=True)
        },
    )


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
