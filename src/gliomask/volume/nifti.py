"""NIfTI files: read whole, checked, and written."""

from __future__ import annotations

import math
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from isal.isal_zlib import error as IsalError
from numpy.typing import NDArray
from zlib_ng import gzip_ng

from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.volume.grid import Grid, Volume

NIFTI_ENDINGS = (".nii", ".nii.gz")

_DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, IsalError)  # type: ignore[assignment]  # its stub gives an instance

_GZIP = b"\x1f\x8b"

# What a header says of where the voxels lie, beside the voxel's size.
_PLACE_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def read_grid(path: Path) -> tuple[Grid, int]:
    """Return a NIfTI file's grid and its number of channels, reading no voxel.

    Raises:
        InputError: As for `read_volume`, save what only the voxels show.
    """
    return _grid(path, _header(path, _head(path)))


def read_volume(path: Path, *, mask: bool = False) -> Volume:
    """Return all channels of a NIfTI-1 or NIfTI-2 file, `.nii` or `.nii.gz`.

    Integers without a scale stay integers, everything else becomes float32. The last axis of a 4-D file is the channel.

    Args:
        path: The file.
        mask: It is a map of labels: may be all zero, must hold whole numbers from 0 to 255, and comes as uint8.

    Raises:
        InputError: The file is missing, cut, damaged, not a NIfTI, not 3-D or 4-D, all zero, or holds NaN or infinity.
    """
    content = _content(path)
    header = _header(path, content)
    grid, channels = _grid(path, header)
    data = np.moveaxis(_stored(path, header, content).reshape(*grid.shape, channels), -1, 0)
    data = _as_labels(path, data) if mask else _as_intensities(path, data)
    return Volume(data, grid.affine)


def write_volume(path: Path, volume: Volume, *, like: Path | None = None) -> None:
    """Write a NIfTI-1 file whole or not at all, gzipped if the name ends in .gz.

    Args:
        path: Ends in .nii or .nii.gz; an older file is replaced.
        volume: One channel is written as 3-D, several as 4-D.
        like: The input's file, whose qform, sform, their codes and units are kept as they stand. Free-text fields are
            not: they may name a patient.

    Raises:
        InputError: Another ending, or the place cannot be written to.
    """
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        raise InputError(f"{path}: a mask or volume is written as .nii or .nii.gz.")
    content = nifti_bytes(volume, like=like)
    write_bytes(path, gzip_nifti(content) if path.name.lower().endswith(".gz") else content)


def nifti_bytes(volume: Volume, *, like: Path | None = None) -> bytes:
    """Return a volume as the content of a NIfTI-1 file: voxels and place, and no text; see `write_volume`."""
    data = volume.data[0] if len(volume.data) == 1 else np.moveaxis(volume.data, 0, -1)
    header: Any = nib.Nifti1Header()
    if like is None:
        header.set_xyzt_units("mm")
        header.set_qform(volume.affine, code=1)
        header.set_sform(volume.affine, code=1)
    else:
        source = _header(like, _head(like))
        for field in _PLACE_FIELDS:
            header[field] = source[field]
        header["pixdim"][:4] = source["pixdim"][:4]  # the quaternion's handedness and the voxel's size
    return bytes(nib.Nifti1Image(data, None, header, dtype=data.dtype).to_bytes())


def gzip_nifti(content: bytes, level: int = 6) -> bytes:
    """Return the same, gzipped; the same bytes each time."""
    # Level 6 of zlib-ng: 16 ms for a BraTS mask against 72 ms with zlib, and smaller. mtime=0: same mask, same bytes.
    return bytes(gzip_ng.compress(content, level, mtime=0))


def _head(path: Path) -> bytes:
    """The first bytes of a file, inflated: enough for a header."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise _unreadable(path, error) from error
    if head[:2] != _GZIP:
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 1024)
    except zlib.error as error:
        raise InputError(f"{path}: the gzip stream is damaged. Copy or download the file again.") from error


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if content[:2] != _GZIP:
        return content
    try:
        return bytes(igzip.decompress(content))
    except _DAMAGED as error:
        raise InputError(f"{path}: the gzip stream is cut or damaged. Copy or download the file again.") from error


def _unreadable(path: Path, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return InputError(f"{path}: a link to {path.readlink()}, which is not there. Get it first (datalad get).")
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file.")
    return InputError(f"{path}: cannot be read: {error.strerror}.")


def _header(path: Path, content: bytes) -> Any:
    # Both are told by their first number, the length of the header, in either order of bytes.
    kind: Any
    kind, length = (nib.Nifti2Header, 540) if 540 in _first_numbers(content) else (nib.Nifti1Header, 348)
    try:
        header = kind(content[:length])
    except Exception as error:  # nibabel raises several kinds of its own, of no common ancestor
        raise InputError(f"{path}: not a NIfTI file (.nii or .nii.gz).") from error
    if not bytes(header["magic"]).startswith(b"n+"):
        raise InputError(f"{path}: not a single-file NIfTI (.nii or .nii.gz).")
    return header


def _first_numbers(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")


def _grid(path: Path, header: Any) -> tuple[Grid, int]:
    try:
        shape = tuple(int(n) for n in header.get_data_shape())
    except Exception as error:  # as in _header; a number of axes that is none
        raise InputError(f"{path}: its header is damaged: {error}. Copy or export the file again.") from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape[:3]) < 2:
        raise InputError(f"{path}: a 3-D volume is needed; this one is {_by(shape)}.")
    affine = _affine(header)
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            f"{path}: its header has no usable orientation (singular affine). Convert it again from DICOM."
        )
    x, y, z = shape[:3]
    return Grid((x, y, z), affine), shape[3] if len(shape) == 4 else 1


def _affine(header: Any) -> NDArray[np.float64] | None:
    try:
        with np.errstate(all="ignore"):  # a NaN is said by the caller
            return np.asarray(header.get_best_affine(), dtype=np.float64)
    except Exception:  # as in _header; a quaternion that is none
        return None


def _stored(path: Path, header: Any, content: bytes) -> NDArray[Any]:
    try:
        shape, kind = header.get_data_shape(), header.get_data_dtype()
        # Asked first: for a damaged header's billions of voxels nibabel would take the memory before it reads.
        whole = header.get_data_offset() + math.prod(shape) * kind.itemsize <= len(content)
        stored: NDArray[Any] | None = header.data_from_fileobj(BytesIO(content)) if whole else None
    except Exception as error:  # as in _header; where the voxels begin or how they are scaled makes no sense
        raise InputError(f"{path}: its header is damaged: {error}. Copy or export the file again.") from error
    if stored is None:
        raise InputError(f"{path}: cut short: fewer voxels than its header promises. Copy it again.")
    return stored


def _as_intensities(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    if not np.issubdtype(data.dtype, np.integer):
        if not np.issubdtype(data.dtype, np.floating):
            raise InputError(f"{path}: voxels of type {data.dtype} (colour or complex); grey values are needed.")
        with np.errstate(over="ignore"):  # too large for float32 is infinite, and said below
            data = data.astype(np.float32)
        bad = int(np.size(data) - np.count_nonzero(np.isfinite(data)))
        if bad:
            raise InputError(f"{path}: {bad} voxels are NaN or infinite. Repair or export the volume again.")
    if not data.any():
        raise InputError(f"{path}: every voxel is zero. Was the export cut short?")
    return data


def _as_labels(path: Path, data: NDArray[Any]) -> NDArray[np.uint8]:
    if len(data) > 1:
        raise InputError(f"{path}: a mask has one channel; this one has {len(data)}.")
    if data.dtype == np.uint8:
        return data
    with np.errstate(invalid="ignore"):  # what does not fit is seen by the comparison
        labels = data.astype(np.uint8, casting="unsafe") if data.dtype.kind in "iuf" else np.zeros_like(data, np.uint8)
    if data.dtype.kind not in "iuf" or (labels != data).any():  # fractions, NaN, below 0 or above 255
        raise InputError(f"{path}: a mask holds whole numbers from 0 to 255. Is this a tumour mask?")
    return labels


def _by(values: Any) -> str:
    return " x ".join(f"{value:g}" for value in values)
