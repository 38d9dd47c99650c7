"""One synthetic examination: a head with a tumour, in four sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError, unknown_name
from gliomask.phantom.anatomy import Head, make_head
from gliomask.phantom.contrast import scan
from gliomask.phantom.fields import FULL_SHAPE, Frame, make_frame
from gliomask.phantom.tumour import KINDS, Kind, grow_tumour, plan_tumour

# The numbers in `Phantom.anatomy`, which is the tissue of each voxel without the tumour; 0 is background.
ANATOMY = {"csf": 1, "grey": 2, "white": 3, "deep": 4, "ventricle": 5}

_SMALLEST = 32


@dataclass(frozen=True)
class Phantom:
    """A synthetic examination, all on one grid `(X, Y, Z)`.

    `images` holds int16 arrays under `t1n t1c t2w t2f`, 0 outside of the brain and >= 1 inside; `tissues` is 0, 1 NCR,
    2 ED, 3 ET; `anatomy` is the healthy tissue underneath, numbered as in `ANATOMY`; `affine` maps voxel indices to mm
    (RAS+).
    """

    images: dict[str, NDArray[np.int16]]
    tissues: NDArray[np.uint8]
    anatomy: NDArray[np.uint8]
    affine: NDArray[np.float64]


def make_phantom(seed: int, *, size: int = FULL_SHAPE[0], kind: Kind | None = None) -> Phantom:
    """Return the synthetic examination of a seed.

    The head, its folding and its tumour depend on the seed alone; `size` is only the resolution at which they are
    sampled. The same arguments always give the same voxels.

    Args:
        seed: Any integer >= 0.
        size: Voxels along X and Y, at least 32, and 48 for rims and foci to show well; 240 gives the grid of BraTS,
            240 x 240 x 155 of 1 mm, and 80 one of 80 x 80 x 52 with voxels of 3 mm.
        kind: `ring`, a ring of enhancing tumour around necrosis, in oedema; `foci`, several rings; `non_enhancing`, a
            core without contrast uptake, as in low-grade glioma. None draws them with 65, 20 and 15 % probability.

    Raises:
        InputError: A negative seed, a size below 32, or an unknown kind.
    """
    if seed < 0:
        raise InputError(f"the seed of a phantom must be 0 or more; got {seed}.")
    if size < _SMALLEST:
        raise InputError(f"a phantom needs at least {_SMALLEST} voxels along X and Y to show a ring; got size={size}.")
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of phantom", kind, KINDS)
    frame = make_frame(size)
    plan = plan_tumour(seed, kind)
    head = make_head(seed, frame, plan.pushes)
    tumour = grow_tumour(seed, frame, head, plan)
    images = scan(seed, frame, head, plan, tumour)
    return Phantom(images, _on_grid(frame, head, tumour.tissues), _on_grid(frame, head, _numbered(head)), frame.affine)


def _numbered(head: Head) -> NDArray[np.uint8]:
    """Return the number of the tissue that fills most of each voxel of the mask."""
    shares = np.stack([getattr(head, name) for name in ANATOMY])
    numbers: NDArray[np.uint8] = np.array(list(ANATOMY.values()), np.uint8)[shares.argmax(axis=0)]
    return numbers


def _on_grid(frame: Frame, head: Head, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return values of the mask on the whole grid, 0 outside the brain."""
    volume: NDArray[np.uint8] = np.zeros(frame.shape, np.uint8)
    volume[frame.box][head.mask] = values
    return volume
