"""What every metric takes: boolean masks of one shape, the truth before the prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Box = tuple[slice, ...]


def check_masks(truth: Mask, prediction: Mask) -> None:
    """Refuse masks that are not boolean or not of one 3-D shape.

    Raises:
        InputError: As said.
    """
    for mask, name in ((truth, "truth"), (prediction, "prediction")):
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            kind = getattr(mask, "dtype", type(mask).__name__)
            raise InputError(f"the {name} must be a boolean array; got {kind}. Compare labels with a number first.")
    if truth.shape != prediction.shape or truth.ndim != 3:
        raise InputError(f"truth and prediction must share one 3-D shape; got {truth.shape} and {prediction.shape}.")


def check_spacing(spacing_mm: Spacing) -> None:
    """Refuse voxel sizes that are not three positive numbers.

    Raises:
        InputError: As said.
    """
    values = np.asarray(spacing_mm, dtype=float)
    if values.shape != (3,) or not np.isfinite(values).all() or (values <= 0).any():
        raise InputError(f"spacing_mm must be three positive numbers; got {spacing_mm}.")


def joint_box(*masks: Mask) -> Box | None:
    """Return the smallest box that holds every true voxel of all masks, or None where there is none."""
    spans = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        inside = np.flatnonzero(np.logical_or.reduce([mask.any(axis=others) for mask in masks]))
        if not len(inside):
            return None
        spans.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(spans)
