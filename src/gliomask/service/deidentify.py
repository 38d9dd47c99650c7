"""Copy an uploaded NIfTI file without the parts of its header that may identify a patient.

Only the numeric fields that describe the grid and the storage of the voxels are copied. Free text (descrip, db_name,
aux_file, intent_name) and extensions, which may contain a patient's name, are dropped. A file is never decompressed
beyond the size that its header declares.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal import isal_zlib

from gliomask.errors import InputError
from gliomask.volume import Grid, read_grid

_CHUNK = 1 << 18
_GZIP = b"\x1f\x8b"
_DAMAGED: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub gives an instance
# Bytes allowed before the voxels (extensions) and after them (padding by the writer); neither is copied.
_LONGEST_EXTENSION = 1 << 24
_LONGEST_TAIL = 1 << 16

# Bytes per voxel by NIfTI datatype code. Colour and complex types are missing: they are not grey values.
_FLOAT32, _FLOAT64 = 16, 64
_VOXEL_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}


@dataclass(frozen=True)
class _Format:
    """The byte positions of the header fields in one version of NIfTI."""

    length: int
    kept: tuple[tuple[int, int], ...]
    """Byte ranges that are copied; all other bytes become zero."""
    kind: int
    """Position of datatype and bitpix, 16 bits each."""
    offset: int
    """Position of vox_offset, the position of the voxels in the file."""
    offset_code: str
    """Type of vox_offset as a `struct` format character."""
    scale: int
    """Position of scl_slope and scl_inter."""
    scale_code: str
    """Their type as a `struct` format character."""


# dim; datatype, bitpix; pixdim; scl_slope, scl_inter; xyzt_units; qform_code to srow_z; magic
_NIFTI_1 = _Format(
    348, ((0, 4), (40, 56), (70, 74), (76, 108), (112, 120), (123, 124), (252, 328), (344, 348)), 70, 108, "f", 112, "f"
)
# sizeof_hdr, magic, datatype, bitpix, dim; pixdim; scl_slope, scl_inter; qform_code to srow_z; xyzt_units
_NIFTI_2 = _Format(540, ((0, 80), (104, 168), (176, 192), (344, 496), (500, 504)), 12, 168, "q", 176, "d")


def deidentify(source: Path, target: Path, *, most_voxels: int, most_bytes: int) -> tuple[Grid, int]:
    """Write an image without identifying text to a `.nii.gz` file.

    Args:
        source: The uploaded file: NIfTI, gzipped or not, under any name.
        target: The file to write; it must not exist.
        most_voxels: Largest permitted number of voxels.
        most_bytes: Largest permitted size of the written voxels in bytes, before compression.

    Returns:
        The grid, and the size of the written voxels in bytes, before compression. Voxels of type float64 are written as
        float32, as which they are read in any case (see `read_volume`), unless the header scales them.

    Raises:
        InputError: The file is not a NIfTI file with one 3-D image of grey values, is truncated or damaged, has an
            unusable affine, or exceeds a limit. The message does not contain the file's name.
    """
    try:
        grid, channels = read_grid(source)
    except InputError as error:
        raise InputError(_unknown_kind(source) or str(error).removeprefix(f"{source}: ")) from error
    if channels != 1:
        raise InputError(
            f"is a 4-D file of {channels} volumes; one sequence is expected. Split it into 3-D files first."
        )
    voxels = grid.shape[0] * grid.shape[1] * grid.shape[2]
    if voxels > most_voxels:
        shape = " x ".join(map(str, grid.shape))
        raise InputError(f"has {shape} voxels, more than this server accepts ({most_voxels / 1e6:.0f} million).")
    with source.open("rb") as file:
        stream = _Stream(_inflated(file.read))
        head = _clean_header(stream)
        size = voxels * (4 if head.narrowed else head.voxel_bytes)
        if size > most_bytes:
            raise InputError(
                f"holds {size / 1e6:.0f} MB of voxels, more than this server accepts ({most_bytes / 1e6:.0f} MB)."
            )
        stream.skip(head.gap)
        chunks = stream.chunks(voxels * head.voxel_bytes)
        _write(target, head.content, _narrow(chunks, head.narrowed) if head.narrowed else chunks)
        stream.end(_LONGEST_TAIL)
    return grid, size


@dataclass(frozen=True)
class _Head:
    """The header to write, and how the voxels behind the old one are read."""

    content: bytes
    gap: int
    """Bytes between the old header and the voxels."""
    voxel_bytes: int
    narrowed: str
    """The byte order, `<` or `>`, if the voxels are float64 and are written as float32; else empty."""


def _clean_header(stream: _Stream) -> _Head:
    first = stream.take(4)
    order = next((code for code in "<>" if struct.unpack(f"{code}i", first)[0] in (348, 540)), None)
    if order is None:
        raise InputError("is not a NIfTI file (.nii or .nii.gz).")
    form = _NIFTI_1 if struct.unpack(f"{order}i", first)[0] == 348 else _NIFTI_2
    old = first + stream.take(form.length - 4)
    kind: int = struct.unpack_from(f"{order}h", old, form.kind)[0]
    if kind not in _VOXEL_BYTES:
        raise InputError("does not hold grey values (its voxels are colours, complex numbers or of an unknown type).")
    begin: float = struct.unpack_from(f"{order}{form.offset_code}", old, form.offset)[0]
    if not form.length <= begin <= _LONGEST_EXTENSION:  # NaN too
        raise InputError(
            "has a damaged header: the position of the voxels (vox_offset) is invalid. Export the file again."
        )
    new = bytearray(form.length + 4)  # the last four zeros: no extension follows
    for low, high in form.kept:
        new[low:high] = old[low:high]
    struct.pack_into(f"{order}{form.offset_code}", new, form.offset, len(new))
    slope, offset = struct.unpack_from(f"{order}2{form.scale_code}", old, form.scale)
    narrows = kind == _FLOAT64 and (slope == 0 or math.isnan(slope) or (slope, offset) == (1, 0))
    if narrows:
        struct.pack_into(f"{order}2h", new, form.kind, _FLOAT32, 32)
    return _Head(bytes(new), int(begin) - form.length, _VOXEL_BYTES[kind], order if narrows else "")


def _narrow(chunks: Iterator[bytes], order: str) -> Iterator[bytes]:
    """Turn float64 into float32 of the same byte order; too large values become infinite, as in `read_volume`."""
    left = b""
    for chunk in chunks:
        content = left + chunk
        whole = len(content) // 8 * 8
        left = content[whole:]
        with np.errstate(all="ignore"):
            yield np.frombuffer(content[:whole], f"{order}f8").astype(f"{order}f4").tobytes()


def _write(target: Path, head: bytes, chunks: Iterator[bytes]) -> None:
    pack = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    with target.open("xb") as file:
        file.write(pack.compress(head))
        for chunk in chunks:
            file.write(pack.compress(chunk))
        file.write(pack.flush())


class _Stream:
    """Read given numbers of bytes from an iterator of chunks of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in pieces."""
        while size > 0:
            piece = self._left or next(self._pieces, b"")
            if not piece:
                raise InputError(
                    "is truncated: it holds fewer voxels than its header declares. Copy or export it again."
                )
            wanted, self._left = piece[:size], piece[size:]
            size -= len(wanted)
            yield wanted

    def take(self, size: int) -> bytes:
        return b"".join(self.chunks(size))

    def skip(self, size: int) -> None:
        for _ in self.chunks(size):
            pass

    def end(self, most: int) -> None:
        """Read to the end, so that a damaged stream is noticed; at most `most` bytes may follow."""
        rest = len(self._left) + sum(len(piece) for piece in _up_to(self._pieces, most))
        if rest > most:
            raise InputError("holds more data than its header declares. Export the file again.")


def _up_to(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        most -= len(piece)
        if most < 0:
            return


def _inflated(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the content of a file in pieces, decompressed if it is gzip (of one or several members)."""
    packed = read(_CHUNK)
    if packed[:2] != _GZIP:
        while packed:
            yield packed
            packed = read(_CHUNK)
        return
    member = isal_zlib.decompressobj(31)
    try:
        while packed:
            yield from filter(None, [member.decompress(packed, _CHUNK)])
            packed = member.unconsumed_tail
            if member.eof:
                packed = (member.unused_data or read(_CHUNK)).lstrip(b"\0")
                if packed:
                    member = isal_zlib.decompressobj(31)
            elif not packed:
                packed = read(_CHUNK)
        if not member.eof:
            raise InputError("has a truncated gzip stream. Copy or download the file again.")
    except _DAMAGED as error:
        raise InputError("has a damaged gzip stream. Copy or download the file again.") from error


def _unknown_kind(path: Path) -> str | None:
    """Return a message for common mistakes (empty files and DICOM), or None."""
    with path.open("rb") as file:
        head = file.read(352)
    if not head:
        return "is empty (0 bytes)."
    if head[128:132] == b"DICM":
        return "is a DICOM file. Convert the series to NIfTI first (dcm2niix does), then strip the skull."
    return None
