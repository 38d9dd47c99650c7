"""Voxels in a page: packed volumes for its viewer, and PNG files, which are written without an image library."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.figures import PLANES, REGION_COLOURS
from gliomask.figures.case import display_window
from gliomask.metrics import Mask

GREYS = 127
"""Grey levels above black: fine enough beside outlines, and packed an eighth smaller than 255 levels."""

_SCALE = 2  # pixels per voxel in the PNGs, so that outlines are thinner than a voxel


def to_grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image in grey levels from 1 to `GREYS` within its `display_window`; 0 stays 0."""
    low, high = display_window(image)
    scaled = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    grey: NDArray[np.uint8] = np.where(image != 0, np.rint(scaled * (GREYS - 1)) + 1, 0).astype(np.uint8)
    return grey


def pack(volume: NDArray[np.uint8]) -> str:
    """Return bytes `(X, Y, Z)` as text: X varies fastest, gzipped, base64."""
    return base64.b64encode(gzip.compress(volume.transpose(2, 1, 0).tobytes(), 6, mtime=0)).decode()


def pack_bits(masks: Mapping[str, Mask]) -> str:
    """Return masks of one shape as one packed volume; the first mask is bit 0 of each byte."""
    total = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for bit, mask in enumerate(masks.values()):
        total |= mask.astype(np.uint8) << np.uint8(bit)
    return pack(total)


def draw_slices(grey: NDArray[np.uint8], masks: Mapping[str, Mask], plane: int, places: Sequence[int]) -> list[str]:
    """Return slices with outlined regions, each as a data URL of a PNG.

    Args:
        grey: Isotropic, `(X, Y, Z)` in LPS order; see `to_grey`.
        masks: The regions by name, of the same shape; drawn in the order of `REGION_COLOURS`.
        plane: The index of the plane in `PLANES`.
        places: The indices of the slices.
    """
    colours = list(REGION_COLOURS)
    palette = [bytes([round(255 * level / GREYS)] * 3) for level in range(GREYS + 1)]
    palette += [bytes.fromhex(REGION_COLOURS[name][1:]) for name in colours]
    drawn = []
    for place in places:
        picture = _enlarged(PLANES[plane].cut(grey, place))
        for name in colours:
            if name in masks:
                mask = PLANES[plane].cut(masks[name], place).repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
                picture[rim(mask)] = GREYS + 1 + colours.index(name)
        drawn.append(embed(to_png(picture, palette), "image/png"))
    return drawn


def to_png(indices: NDArray[np.uint8], palette: Sequence[bytes]) -> bytes:
    """Return a picture `(rows, columns)` of indices into a palette (red, green, blue) as a PNG file."""
    rows, columns = indices.shape
    lines = np.concatenate(
        [np.zeros((rows, 1), np.uint8), indices], axis=1
    )  # each row begins with its filter type, 0 (none)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", b"".join(palette)),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def embed(content: bytes, kind: str) -> str:
    """Return the content of a file as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture with twice as many rows and columns, interpolated linearly between voxel centres."""
    for axis in (0, 1):
        picture = np.moveaxis(picture, axis, 0)
        wide = picture.astype(np.uint16)
        before, after = np.concatenate([wide[:1], wide[:-1]]), np.concatenate([wide[1:], wide[-1:]])
        both = np.stack([(before + 3 * wide + 2) // 4, (3 * wide + after + 2) // 4], axis=1)
        picture = np.moveaxis(both.reshape(-1, *wide.shape[1:]).astype(np.uint8), 0, axis)
    return np.ascontiguousarray(picture)


def rim(mask: Mask) -> Mask:
    """Return the pixels of a two-dimensional mask that touch its outside along a row or a column."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
