"""The preview of an image: one slice as a small PNG."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliomask.figures import PLANES
from gliomask.report.pixels import GREYS, to_grey, to_png
from gliomask.volume import Volume, reorient

_PREVIEW_PIXELS = 160


def preview(volume: Volume) -> bytes:
    """Return the axial slice with most non-zero voxels as a PNG with square pixels."""
    oriented = reorient(volume, "LPS")
    data, spacing = oriented.data[0], oriented.spacing_mm
    fullest = int(np.count_nonzero(data, axis=(0, 1)).argmax())
    picture = to_grey(PLANES[0].cut(data, fullest))
    size = np.array([picture.shape[0] * spacing[1], picture.shape[1] * spacing[0]])
    rows, columns = (max(1, int(side)) for side in np.round(size * _PREVIEW_PIXELS / size.max()))
    shown = picture[_nearest(picture.shape[0], rows)][:, _nearest(picture.shape[1], columns)]
    return to_png(shown, [bytes([round(255 * level / GREYS)] * 3) for level in range(GREYS + 1)])


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """Return the indices that resample an axis of length `old` to length `new` by nearest neighbour."""
    return ((np.arange(new) + 0.5) * old / new).astype(np.int64)
