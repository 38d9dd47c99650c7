"""Masks where they enter the metrics: what is refused, and the box that holds two of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def check_mask(mask: Mask, name: str) -> None:
    """Refuse what is not a boolean array of three axes.

    Raises:
        InputError: It is not; `name` opens the message.
    """
    if mask.dtype != np.bool_ or mask.ndim != 3:
        raise InputError(
            f"{name} must be a boolean mask of shape (X, Y, Z); got {mask.dtype} of shape {mask.shape}. "
            "Make one mask a region from a label map first, such as labels == 4."
        )


def check_pair(truth: Mask, prediction: Mask, where: str = "") -> None:
    """Refuse two masks that cannot be compared.

    Args:
        truth, prediction: The masks.
        where: The region or case that opens the message.

    Raises:
        InputError: One is not a boolean array of three axes, or their shapes differ.
    """
    before = f"{where}: " if where else ""
    check_mask(truth, f"{before}truth")
    check_mask(prediction, f"{before}prediction")
    if truth.shape != prediction.shape:
        raise InputError(
            f"{before}truth and prediction must have one shape; got {truth.shape} and {prediction.shape}. "
            "Bring the prediction to the grid of the truth first."
        )


def check_spacing(spacing_mm: Spacing) -> None:
    """Refuse a voxel size that is not three positive numbers.

    Raises:
        InputError: It is not.
    """
    if np.shape(spacing_mm) != (3,) or not all(math.isfinite(size) and size > 0 for size in spacing_mm):
        raise InputError(
            f"spacing must be three positive numbers in mm, along X, Y, Z; got {np.ravel(spacing_mm).tolist()}. "
            "Read it from the header of the truth."
        )


def crop_together(truth: Mask, prediction: Mask) -> tuple[Mask, Mask]:
    """Return both masks cut to the smallest box that holds them both, C-contiguous.

    All that was cut away is background in both. Both empty: two arrays without a voxel.
    """
    box = joint_box(truth, prediction)
    return np.ascontiguousarray(truth[box]), np.ascontiguousarray(prediction[box])


def joint_box(*masks: Mask) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds all these masks of one shape; one without a voxel if all are empty."""
    spans = []
    for seen in zip(*map(_extent, masks), strict=True):
        joint = np.logical_or.reduce(seen)
        spans.append(slice(int(joint.argmax()), len(joint) - int(joint[::-1].argmax())) if joint.any() else slice(0))
    x, y, z = spans
    return x, y, z


def _extent(mask: Mask) -> tuple[Mask, Mask, Mask]:
    """Return for each axis which of its planes hold a voxel of the mask."""
    beneath: Mask = np.any(mask, axis=2)
    return np.any(beneath, axis=1), np.any(beneath, axis=0), np.any(mask, axis=(0, 1))
