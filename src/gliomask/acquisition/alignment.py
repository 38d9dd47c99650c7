"""How the images of one examination lie against each other and against the prepared grid; every step can be undone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.volume import Grid, Volume, resample

Matrix = NDArray[np.float64]

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_FORMAT = 1


@dataclass(frozen=True)
class Alignment:
    """The prepared grid, and for each sequence the grid that it came on and the map between the two.

    All places are in millimetres, RAS+ as in NIfTI.
    """

    reference: str
    """The sequence to which the others were registered."""
    grid: Grid
    """The prepared grid, shared by all sequences."""
    native: Mapping[str, Grid]
    """Each sequence's own grid, as it was acquired."""
    to_native: Mapping[str, Matrix]
    """For each sequence the `(4, 4)` matrix from a place in the prepared space to the same place in its own space."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Measures of each step, by name; see `preprocess`."""

    def onto_grid(self, modality: str, volume: Volume, *, nearest: bool = False) -> Volume:
        """Return an image or mask of a sequence's own space on the prepared grid, interpolated once; 0 outside."""
        return carry(volume, self.to_native[modality], self.grid, nearest=nearest)

    def onto_native(self, modality: str, volume: Volume, *, nearest: bool = False) -> Volume:
        """Return something on the prepared grid on a sequence's own grid; outside the prepared grid it is 0.

        Thick voxels of the native grid take the mean over their extent, not the value at their centre, so that volumes
        agree between the two spaces.
        """
        native = self.native[modality]
        back = np.linalg.inv(self.to_native[modality]).astype(np.float64)
        if nearest:
            return carry(volume, back, native, nearest=True)
        fine, parts = _divided(native, self.grid.spacing_mm)
        carried = carry(volume, back, fine).data
        shape = [size for pair in zip(native.shape, parts, strict=True) for size in pair]
        return Volume(carried.reshape(len(carried), *shape).mean(axis=(2, 4, 6)), native.affine)

    def scale(self, modality: str) -> float:
        """Return how many mL of the prepared space one mL of a sequence's own space becomes; 1 for rigid maps."""
        return float(1 / abs(np.linalg.det(self.to_native[modality][:3, :3])))

    def save(self, folder: Path) -> None:
        """Write `transforms.json`, and for each sequence a `.mat` (Greedy, RAS) and a `.tfm` (ITK and ANTs, LPS).

        Raises:
            InputError: The place cannot be written to.
        """
        record = {
            "format": _FORMAT,
            "convention": "4x4 matrices from millimetres (RAS+) of the prepared space to those of the sequence's own",
            "reference": self.reference,
            "grid": _grid_to_dict(self.grid),
            "quality": {name: round(value, 4) for name, value in self.quality.items()},
            "sequences": {
                name: {"grid": _grid_to_dict(grid), "from_prepared": np.round(self.to_native[name], 8).tolist()}
                for name, grid in self.native.items()
            },
        }
        write_text(folder / "transforms.json", json.dumps(record, indent=2) + "\n")
        for name, matrix in self.to_native.items():
            rows = "\n".join(" ".join(f"{value:.8f}" for value in row) for row in matrix)
            write_text(folder / f"prepared_to_{name}.mat", rows + "\n")
            write_text(folder / f"prepared_to_{name}.tfm", _itk_transform(matrix))


def carry(volume: Volume, to_source: Matrix, grid: Grid, *, nearest: bool = False) -> Volume:
    """Return a volume at the places of a grid; outside its own grid it is 0.

    Args:
        volume: Any channels.
        to_source: The `(4, 4)` matrix from the grid's space to the volume's, in millimetres, RAS+.
        grid: Where to.
        nearest: Take the nearest voxel's value, in the type it has; else interpolate linearly, as float32.
    """
    moved = Volume(volume.data, np.linalg.inv(to_source) @ volume.affine)
    return resample(moved, grid, nearest=nearest, zero_outside=True)


def load_alignment(folder: Path) -> Alignment:
    """Return the alignment that `Alignment.save` wrote into a folder.

    Raises:
        InputError: There is none, or the file is damaged.
    """
    path = folder / "transforms.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        sequences = record["sequences"]
        return Alignment(
            reference=str(record["reference"]),
            grid=_grid_from_dict(record["grid"]),
            native={str(name): _grid_from_dict(entry["grid"]) for name, entry in sequences.items()},
            to_native={str(name): _matrix(entry["from_prepared"]) for name, entry in sequences.items()},
            quality={str(name): float(value) for name, value in record["quality"].items()},
        )
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; was this folder made by gliomask preprocess?") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged, or not written by gliomask preprocess: {error}") from error


def _divided(grid: Grid, spacing_mm: tuple[float, float, float]) -> tuple[Grid, tuple[int, int, int]]:
    """The grid with its thick voxels divided to about `spacing_mm`, and into how many parts along each axis."""
    x, y, z = (max(1, round(old / min(spacing_mm))) for old in grid.spacing_mm)
    parts = np.array([x, y, z])
    change = np.diag([*(1 / parts), 1.0])
    change[:3, 3] = (1 / parts - 1) / 2  # the first part's centre
    nx, ny, nz = (int(size * part) for size, part in zip(grid.shape, parts, strict=True))
    return Grid((nx, ny, nz), grid.affine @ change), (x, y, z)


def _itk_transform(matrix: Matrix) -> str:
    lps = _LPS @ matrix @ _LPS
    numbers = [*lps[:3, :3].ravel(), *lps[:3, 3]]
    return (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(f'{value:.10g}' for value in numbers)}\nFixedParameters: 0 0 0\n"
    )


def _grid_to_dict(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def _grid_from_dict(fields: Mapping[str, Any]) -> Grid:
    x, y, z = (int(size) for size in fields["shape"])
    return Grid((x, y, z), _matrix(fields["affine"]))


def _matrix(rows: Any) -> Matrix:
    matrix = np.array(rows, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError("a matrix is not 4 x 4, finite and invertible")
    return matrix
