"""The spaces into which examinations are brought: BraTS's SRI24 grid, MNI152, or the patient's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.alignment import carry
from gliomask.errors import InputError
from gliomask.volume import Grid, Volume, bounding_box, read_volume

AtlasName = Literal["sri24", "mni", "none"]
ATLASES: tuple[AtlasName, ...] = ("sri24", "mni", "none")


def _lps_1mm(x: float, y: float, z: float) -> NDArray[np.float64]:
    """The affine of voxels of 1 mm whose axes grow to the left, the back and the top, from a first voxel at x, y, z."""
    return np.array([[-1.0, 0, 0, x], [0, -1.0, 0, y], [0, 0, 1.0, z], [0, 0, 0, 1.0]])


# The grid of BraTS 2017 to 2023, in the space of the atlas SRI24.
_SRI24_GRID = Grid((240, 240, 155), _lps_1mm(0, 239, 0))
# The grid of BraTS 2024 and later, in MNI152.
_MNI_GRID = Grid((182, 218, 182), _lps_1mm(90, 91, -72))
# From SRI24 to MNI152 2009a, millimetres in RAS+: found by `register`, rigid and then affine, between the brains of the
# two atlases on 2026-11-28; their Dice is then .969. So that SRI24 itself, whose licence is share-alike, is not needed.
_SRI24_TO_MNI = np.array(
    [
        [1.08333410, 0.00872762448, 0.00632523486, 127.444680],
        [0.0137342055, 1.02519477, 0.223532807, -142.983084],
        [0.00464323225, -0.231214811, 1.14292073, -52.4175121],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
_MARGIN_MM = 5.0


def atlas_grid(name: AtlasName) -> Grid:
    """Return the grid of 1 mm on which images lie that were brought into an atlas's space."""
    return {"sri24": _SRI24_GRID, "mni": _MNI_GRID}[name]


def read_atlas(name: AtlasName, grid: Grid | None = None) -> Volume:
    """Return the atlas's brain in T1, without skull, in the space of `name`, by default on its own grid.

    It is MNI152 2009a (Fonov 2011, doi:10.1016/j.neuroimage.2010.07.033), for SRI24 moved by a fixed affine map.

    Raises:
        InputError: The atlas is not part of this installation.
    """
    path = Path(str(files("gliomask"))) / "acquisition" / "assets" / "mni152_t1_brain.nii.gz"
    if not path.is_file():
        raise InputError(
            "the atlas is not part of this installation: it could not be fetched when gliomask was built. Install it "
            "again with a network, or keep the patient's own space with --atlas none."
        )
    brain = read_volume(path)
    return carry(brain, _SRI24_TO_MNI if name == "sri24" else np.eye(4), grid or atlas_grid(name))


def own_grid(brain: Volume) -> Grid:
    """Return a straight grid of 1 mm, LPS, around a brain mask in the patient's own space, with a margin of 5 mm."""
    box = bounding_box(brain.data[0] != 0)
    if box is None:
        raise InputError("the brain mask is empty.")
    indices = [(span.start, span.stop - 1) for span in box]
    corners = np.array(np.meshgrid(*indices, indexing="ij")).reshape(3, -1)
    places = brain.affine[:3, :3] @ corners + brain.affine[:3, 3:]
    low, high = np.floor(places.min(axis=1) - _MARGIN_MM), np.ceil(places.max(axis=1) + _MARGIN_MM)
    x, y, z = (int(size) for size in high - low + 1)
    return Grid((x, y, z), _lps_1mm(high[0], high[1], low[2]))
