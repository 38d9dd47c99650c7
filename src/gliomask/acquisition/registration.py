"""Registration: the rigid or affine movement that lays one image over another, found by Greedy or ANTs."""

from __future__ import annotations

from io import StringIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gliomask.acquisition.ants import register_with_ants
from gliomask.acquisition.itk import to_itk
from gliomask.errors import InputError
from gliomask.extras import missing_extra
from gliomask.volume import Volume, grid_at_spacing, resample

Matrix = NDArray[np.float64]
Freedom = Literal["rigid", "affine"]
Registering = Literal["greedy", "ants", "none"]
REGISTERING: tuple[Registering, ...] = ("greedy", "ants", "none")
"""What registers the sequences; "none": they must be aligned already."""

# Steps at each level of a pyramid, from the coarsest.
_STEPS = "100x50x20"
# Voxels of the fixed image at the finest level. With 1 mm the errors are as small, and the whole preparation takes 2.7
# times the processor time (docs/design.md).
_FINEST_MM = 2.0
# Width of the smoothing before voxels are left out, relative to the new voxels.
_SMOOTHING = 0.4
_DEGREES = {"rigid": 6, "affine": 12}
# An affine map whose axes are scaled by more than this has gone astray: heads differ by less.
_MOST_SCALE = 1.35


def register(
    fixed: Volume,
    moving: Volume,
    *,
    freedom: Freedom = "rigid",
    start: Matrix | None = None,
    program: Registering = "greedy",
    threads: int | None = None,
) -> Matrix:
    """Return the `(4, 4)` matrix that takes a place in the fixed image to the same place in the moving one.

    Both in millimetres, RAS+. Similarity: normalized mutual information, so the sequences may differ. It is computed at
    voxels of the fixed image of at least 2 mm; its cost is proportional to their number.

    Args:
        fixed, moving: One channel each, on any grids.
        freedom: "rigid" (rotation, translation) or "affine" (12 degrees of freedom).
        start: Where to begin; by default the centres of the two images on each other.
        program: "greedy", or "ants", which only finds rigid maps.
        threads: Of the processor; by default all. ANTs takes all.

    Raises:
        InputError: The program is not installed, or no sensible map was found (an axis scaled by more than 35 %).
    """
    before, centred = np.eye(4) if start is None else start, start is not None
    # Greedy takes no matrix from memory to start with, so the moving image is moved back by it beforehand.
    moved = Volume(moving.data, np.linalg.inv(before) @ moving.affine)
    if program == "ants":
        found: Matrix = before @ register_with_ants(_coarse(fixed), moved, centred=centred)
    else:
        found = before @ _by_greedy(_coarse(fixed), moved, _DEGREES[freedom], centred=centred, threads=threads)
    scales = np.linalg.svd(found[:3, :3], compute_uv=False)
    if not np.isfinite(found).all() or scales.max() > _MOST_SCALE or scales.min() < 1 / _MOST_SCALE:
        raise InputError("the images could not be registered: no sensible alignment was found.")
    return found


def _by_greedy(fixed: Volume, moving: Volume, degrees: int, *, centred: bool, threads: int | None) -> Matrix:
    greedy = _greedy()
    words = f"-i fixed moving -a -dof {degrees} -n {_STEPS} -m NMI -o found -V 0"
    words += " -ia-identity" if centred else " -ia-image-centers"
    if threads:
        words = f"-threads {threads} {words}"
    try:
        greedy.execute(words, out=StringIO(), err=StringIO(), fixed=to_itk(fixed), moving=to_itk(moving), found=None)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the images could not be registered: {error}") from error
    return np.asarray(greedy["found"], np.float64)


def mutual_information(first: NDArray[Any], second: NDArray[Any], bins: int = 32) -> float:
    """Return the normalized mutual information of two images of one shape, 1 (independent) to 2 (equal up to a map).

    Voxels that are zero in either are left out; with fewer than 100 left it is 1. Source: Studholme 1999,
    doi:10.1016/S0031-3203(98)00091-0.
    """
    both = (first != 0) & (second != 0)
    if np.count_nonzero(both) < 100:
        return 1.0
    counts, _, _ = np.histogram2d(first[both], second[both], bins=bins)
    joint = counts / counts.sum()
    together = _entropy(joint)
    return (_entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))) / together if together else 1.0


def _coarse(image: Volume) -> Volume:
    """The first channel, smoothed and then sampled so that no edge of a voxel is shorter than `_FINEST_MM`."""
    factors = np.maximum(1, _FINEST_MM / np.array(image.spacing_mm))
    if (factors < 1 + _SMOOTHING).all():
        return image
    widths = [_SMOOTHING * factor if factor > 1 else 0 for factor in factors]
    smooth = gaussian_filter(image.data[0].astype(np.float32), widths)
    x, y, z = (float(max(edge, _FINEST_MM)) for edge in image.spacing_mm)
    return resample(Volume(smooth[None], image.affine), grid_at_spacing(image.grid, (x, y, z)))


def _entropy(shares: NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _greedy() -> Any:
    try:
        from picsl_greedy import Greedy3D
    except ImportError as error:
        raise missing_extra("registration needs Greedy", "raw") from error
    return Greedy3D()
