"""Checks of the masks that enter the metrics, and the bounding box of several masks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def check_mask(mask: Mask, name: str) -> None:
    """Raise an error unless a mask is a boolean array with three axes.

    Raises:
        InputError: It is not; the message begins with `name`.
    """
    if mask.dtype != np.bool_ or mask.ndim != 3:
        raise InputError(
            f"{name} must be a boolean mask of shape (X, Y, Z); got {mask.dtype} of shape {mask.shape}. "
            "Make one boolean mask per region from a label map first, such as labels == 4."
        )


def check_pair(truth: Mask, prediction: Mask, where: str = "") -> None:
    """Raise an error unless two masks can be compared.

    Args:
        truth, prediction: The masks.
        where: The region or case with which an error message begins.

    Raises:
        InputError: One is not a boolean array of three axes, or their shapes differ.
    """
    before = f"{where}: " if where else ""
    check_mask(truth, f"{before}truth")
    check_mask(prediction, f"{before}prediction")
    if truth.shape != prediction.shape:
        raise InputError(
            f"{before}truth and prediction must have one shape; got {truth.shape} and {prediction.shape}. "
            "Resample the prediction to the grid of the truth first."
        )


def check_spacing(spacing_mm: Spacing) -> None:
    """Raise an error unless a voxel size is three positive numbers.

    Raises:
        InputError: It is not.
    """
    if np.shape(spacing_mm) != (3,) or not all(math.isfinite(size) and size > 0 for size in spacing_mm):
        raise InputError(
            f"spacing must be three positive numbers in mm, along X, Y, Z; got {np.ravel(spacing_mm).tolist()}. "
            "Read it from the header of the truth."
        )


def crop_together(truth: Mask, prediction: Mask) -> tuple[Mask, Mask]:
    """Return both masks cropped to their common bounding box, C-contiguous.

    All voxels outside are background in both. If both masks are empty, the arrays have no voxel.
    """
    box = joint_box(truth, prediction)
    return np.ascontiguousarray(truth[box]), np.ascontiguousarray(prediction[box])


def joint_box(*masks: Mask) -> tuple[slice, slice, slice]:
    """Return the smallest box that contains all these masks of one shape; a box without a voxel if all are empty."""
    spans = []
    for seen in zip(*map(_extent, masks), strict=True):
        joint = np.logical_or.reduce(seen)
        spans.append(slice(int(joint.argmax()), len(joint) - int(joint[::-1].argmax())) if joint.any() else slice(0))
    x, y, z = spans
    return x, y, z


def _extent(mask: Mask) -> tuple[Mask, Mask, Mask]:
    """Return, for each axis, which of its planes contain a voxel of the mask."""
    beneath: Mask = np.any(mask, axis=2)
    return np.any(beneath, axis=1), np.any(beneath, axis=0), np.any(mask, axis=(0, 1))
