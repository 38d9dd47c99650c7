"""Registration by ANTs, where the user has installed it: its Python package is antspyx."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.itk import to_itk
from gliomask.errors import InputError
from gliomask.volume import Volume

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# So that one pair of images gives one answer: ANTs draws the voxels that it compares at random.
_SEED = 1


def require_ants() -> Any:
    """Return the package ants.

    Raises:
        InputError: It is not installed.
    """
    try:
        import ants
    except ImportError as error:
        raise InputError(
            f"--register ants: ANTs cannot be used ({error}). Install it with `pip install antspyx`, or use --register "
            "greedy."
        ) from error
    return ants


def register_with_ants(fixed: Volume, moving: Volume, *, centred: bool) -> NDArray[np.float64]:
    """Return the rigid `(4, 4)` map from places in the fixed image to those in the moving one, in millimetres, RAS+.

    Similarity: Mattes's mutual information, at the resolutions that ANTs chooses.

    Args:
        fixed, moving: One channel each, on any grids.
        centred: Whether the images lie on each other roughly; else their centres of mass are laid on each other first.

    Raises:
        InputError: ANTs is not installed, or fails.
    """
    ants = require_ants()
    with TemporaryDirectory(prefix="gliomask-") as folder:
        try:
            found = ants.registration(
                _image(ants, fixed),
                _image(ants, moving),
                type_of_transform="Rigid",
                initial_transform="identity" if centred else None,
                outprefix=str(Path(folder) / "found"),
                random_seed=_SEED,
            )
            (path,) = found["fwdtransforms"]
            transform = ants.read_transform(path)
            numbers, centre = np.asarray(transform.parameters, float), np.asarray(transform.fixed_parameters, float)
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise InputError(f"the images could not be registered by ANTs: {error}") from error
    return from_itk_affine(numbers, centre)


def from_itk_affine(numbers: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix, RAS+, of an affine transform of ITK: nine numbers of a matrix, three of a shift, a centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = numbers[:9].reshape(3, 3)
    matrix[:3, 3] = numbers[9:12] + centre - matrix[:3, :3] @ centre
    turned: NDArray[np.float64] = _LPS @ matrix @ _LPS
    return turned


def _image(ants: Any, volume: Volume) -> Any:
    image = to_itk(volume)
    return ants.from_numpy(
        np.ascontiguousarray(volume.data[0], dtype=np.float32),
        origin=list(image.GetOrigin()),
        spacing=list(image.GetSpacing()),
        direction=np.reshape(image.GetDirection(), (3, 3)),
    )
