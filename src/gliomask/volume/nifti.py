"""NIfTI files: read whole and checked, and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray
from zlib_ng import gzip_ng

from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.volume.grid import Grid, Volume, match_axes
from gliomask.volume.header import Header, check_size, read_header
from gliomask.volume.inflate import longest_content, read_content, read_head

NIFTI_ENDINGS = (".nii", ".nii.gz")

# The longest header, NIfTI-2's, and the four bytes after it.
_HEADER_BYTES = 544

# How far a label may be off by rounding: 3.0000001. In integers that are stored with a scale, as nibabel stores floats,
# it is off by up to half the scale, which is small where the numbers are those of a label map.
_ROUNDING = 1e-3
_LARGEST_SCALE = 0.05

# An intensity beyond this is damage; the squares of smaller ones can be added up in float32.
_LARGEST = 1e15

_NO_LABELS = "{}: a mask holds whole numbers from 0 to 255. Is this a tumour mask?"

# The header's fields that say where the voxels lie, beside the voxel size.
_PLACE_FIELDS = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def read_grid(path: Path) -> tuple[Grid, int]:
    """Return a NIfTI file's grid and its number of channels; no voxel is read.

    Raises:
        InputError: As for `read_volume`, except for what only the voxels show.
    """
    header = read_header(path, read_head(path, _HEADER_BYTES))
    return header.grid, header.channels


def read_volume(path: Path, *, mask: bool = False) -> Volume:
    """Return all channels of a NIfTI-1 or NIfTI-2 file, `.nii` or `.nii.gz`.

    Integers without a scale stay integers, everything else becomes float32. The last axis of a 4-D file is the channel.
    No more is inflated or read than the header promises, and the volume's `notes` say what is odd about the header.

    Args:
        path: The file.
        mask: It is a label map: it may be all zero, must hold whole numbers from 0 to 255, up to the rounding of some
            writers, and is returned as uint8.

    Raises:
        InputError: The file is missing, cut, damaged, not a NIfTI, not 3-D or 4-D, larger than 512 x 512 x 512 voxels,
            has no usable orientation or an impossible voxel size, is all zero, or holds NaN, infinity or values beyond
            1e15.
    """
    header = read_header(path, read_head(path, _HEADER_BYTES))
    stored = _read_voxels(path, header, mask)
    data = np.moveaxis(stored.reshape(*header.grid.shape, header.channels), -1, 0)
    data = _as_labels(path, data, _rounding(header)) if mask else _as_intensities(path, data)
    return Volume(data, header.grid.affine, header.notes)


def write_volume(path: Path, volume: Volume, *, like: Path | None = None) -> None:
    """Write a NIfTI-1 file whole or not at all, gzipped if the name ends in .gz.

    Args:
        path: Ends in .nii or .nii.gz; an older file is replaced.
        volume: One channel is written as 3-D, several as 4-D.
        like: A file of the same grid whose qform, sform, their codes and units are kept as they stand. If its axes are
            stored in another order, the volume is written in that order. Free-text fields are not kept: they may name
            a patient.

    Raises:
        InputError: Another ending, the place cannot be written to, or `like` lies on another grid.
    """
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        raise InputError(f"{path}: a mask or volume is written as .nii or .nii.gz.")
    content = nifti_bytes(volume, like=like)
    write_bytes(path, gzip_nifti(content) if path.name.lower().endswith(".gz") else content)


def nifti_bytes(volume: Volume, *, like: Path | None = None) -> bytes:
    """Return a volume as the content of a NIfTI-1 file: voxels and place, and no text; see `write_volume`."""
    header: Any = nib.Nifti1Header()
    if like is None:
        header.set_xyzt_units("mm")
        header.set_qform(volume.affine, code=1)
        header.set_sform(volume.affine, code=1)
    else:
        source = read_header(like, read_head(like, _HEADER_BYTES))
        volume = match_axes(volume, source.grid)
        if difference := source.grid.difference(volume.grid):
            raise InputError(f"{like}: what is written as on its grid differs from it in {difference}.")
        for field in _PLACE_FIELDS:
            header[field] = source.raw[field]
        header["pixdim"][:4] = source.raw["pixdim"][:4]  # the quaternion's handedness and the voxel size
    data = volume.data[0] if len(volume.data) == 1 else np.moveaxis(volume.data, 0, -1)
    return bytes(nib.Nifti1Image(data, None, header, dtype=data.dtype).to_bytes())


def gzip_nifti(content: bytes, level: int = 6) -> bytes:
    """Return the same, gzipped; equal content gives equal bytes."""
    # Level 6 of zlib-ng: 16 ms for a BraTS mask against 72 ms with zlib, and smaller. mtime=0: same mask, same bytes.
    return bytes(gzip_ng.compress(content, level, mtime=0))


def _read_voxels(path: Path, header: Header, mask: bool) -> NDArray[Any]:
    """Return the voxels as they are stored, scaled where the header has a scale, in native byte order."""
    if header.dtype.kind not in "iuf":
        raise InputError(
            _NO_LABELS.format(path)
            if mask
            else f"{path}: voxels of type {header.dtype} (colour or complex); grey values are needed."
        )
    try:
        slope, intercept = header.raw.get_slope_inter()
    except Exception as error:  # nibabel raises several kinds of its own, of no common ancestor
        raise InputError(f"{path}: its header is damaged: {error}. Copy or export the file again.") from error
    needed = header.offset + header.voxel_bytes
    cut_short = InputError(f"{path}: cut short: fewer voxels than its header promises. Copy it again.")
    if needed > longest_content(path):
        raise cut_short
    check_size(path, header)
    content = read_content(path, needed)
    if len(content) < needed:
        raise cut_short
    count = header.voxel_bytes // header.dtype.itemsize
    stored = np.frombuffer(content, header.dtype, count, header.offset).reshape(header.shape, order="F")
    if slope is not None:
        with np.errstate(all="ignore"):  # what becomes infinite is refused by the caller
            return np.asarray(apply_read_scaling(stored, slope, intercept))
    native = stored.dtype.newbyteorder("=")
    return stored.astype(native, order="F", copy=native.kind != "f")  # floats are copied by the caller


def _as_intensities(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(all="ignore"):  # NaN and infinity are looked for
        if data.dtype.kind == "f":
            data = data.astype(np.float32)
        lowest, highest = data.min(), data.max()
        if not (lowest >= -_LARGEST and highest <= _LARGEST):
            bad = data.size - np.count_nonzero((data >= -_LARGEST) & (data <= _LARGEST))
            raise InputError(f"{path}: {bad} voxels are NaN or infinite, or beyond {_LARGEST:g}. Export it again.")
    if lowest == highest == 0:
        raise InputError(f"{path}: every voxel is zero. Was the export cut short?")
    return data


def _rounding(header: Header) -> float:
    """Return by how much a number in a label map may differ from a whole one."""
    slope = abs(header.raw.get_slope_inter()[0] or 0.0)
    scaled = header.dtype.kind in "iu" and slope <= _LARGEST_SCALE
    return max(_ROUNDING, 0.501 * slope) if scaled else _ROUNDING


def _as_labels(path: Path, data: NDArray[Any], rounding: float) -> NDArray[np.uint8]:
    if len(data) > 1:
        raise InputError(f"{path}: a mask has one channel; this one has {len(data)}.")
    if data.dtype == np.uint8:
        return data
    with np.errstate(all="ignore"):  # NaN and what is too large differ from what they become
        whole = np.rint(data) if data.dtype.kind == "f" else data
        labels = whole.astype(np.uint8, casting="unsafe")
        fits = np.array_equal(labels, whole) and (whole is data or bool(np.abs(data - whole).max() <= rounding))
    if not fits:  # fractions, NaN, below 0 or above 255
        raise InputError(_NO_LABELS.format(path))
    return labels
