"""Volumes to and from SimpleITK, whose axes are LPS and whose arrays are (Z, Y, X)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.extras import missing_extra
from gliomask.volume import Grid, Volume

_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SKEW = 1e-3  # directions further than this from orthogonal are those of a tilted gantry


def to_itk(volume: Volume) -> Any:
    """Return the first channel as a SimpleITK image of float32 at the same place in space.

    Raises:
        InputError: SimpleITK is not installed, or the axes are not at right angles to each other, as ITK needs.
    """
    sitk = require_itk()
    affine = _TO_LPS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > _SKEW:
        raise InputError(
            "the image's axes are not at right angles to each other. Resample it to a straight grid first."
        )
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data[0].T, dtype=np.float32))
    image.SetSpacing([float(value) for value in spacing])
    image.SetDirection(_nearest_rotation(direction).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def from_itk(image: Any) -> Volume:
    """Return a SimpleITK image as a volume, its components as channels; the inverse of `to_itk`.

    Raises:
        InputError: It is not three-dimensional.
    """
    sitk = require_itk()
    if image.GetDimension() != 3:
        raise InputError(f"a 3-D image is needed; this one has {image.GetDimension()} dimensions.")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    data: NDArray[Any] = sitk.GetArrayFromImage(image)
    channels = data[None] if data.ndim == 3 else np.moveaxis(data, -1, 0)
    return Volume(channels.transpose(0, 3, 2, 1), _TO_LPS @ affine)


def read_itk_grid(path: Path) -> Grid:
    """Return the grid of a file that SimpleITK reads; no voxel is read.

    Raises:
        InputError: SimpleITK is not installed, or the file cannot be read or is not three-dimensional.
    """
    reader = require_itk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read: is it damaged, or not a volume?") from error
    if reader.GetDimension() != 3:
        raise InputError(f"{path}: a 3-D image is needed; this one has {reader.GetDimension()} dimensions.")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * np.array(reader.GetSpacing())
    affine[:3, 3] = reader.GetOrigin()
    x, y, z = reader.GetSize()
    return Grid((x, y, z), _TO_LPS @ affine)


def require_itk() -> Any:
    """Return SimpleITK.

    Raises:
        InputError: It is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise missing_extra("raw images need SimpleITK", "raw") from error
    return SimpleITK


def _nearest_rotation(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthogonal matrix nearest to one that is almost orthogonal: rounding in headers, which ITK refuses."""
    left, _, right = np.linalg.svd(direction)
    nearest: NDArray[np.float64] = left @ right
    return nearest
