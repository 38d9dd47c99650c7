"""NIfTI headers: where the voxels begin, what they are and where they lie, with everything odd about that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.files import is_pointer, is_web_page
from gliomask.volume.grid import Grid, corner_indices

Affine = NDArray[np.float64]

# Files with more voxels, in all channels together, are refused: 512 x 512 x 512, which is 1 GiB in float64.
_MOST_VOXELS = 2**27
_WIDEST_BYTES = 8

# Voxel sizes and fields of view outside these limits come from a wrong header. The limit of positions allows for
# origins that are given relative to a scanner's table.
_SPACING_MM = (0.01, 100.0)
_FIELD_MM = 3000.0
_FARTHEST_MM = 1e5
# If only one reading of the unit gives a field of view within these limits, that reading is used.
_PLAUSIBLE_FIELD_MM = (5.0, 2000.0)

# The columns of an affine are usable as axes if they span at least this share of the product of their lengths.
_LEAST_VOLUME = 0.05
# Affines with larger numbers cannot be computed with.
_LARGEST = 1e100
# Two voxel sizes of one file that differ by more than this share contradict each other.
_OTHER_SPACING = 5e-3

_UNITS_MM = {1: (1000.0, "metres"), 3: (0.001, "micrometres")}
_TEMPLATE_SPACE = 3  # the code of Talairach space; MNI and other templates follow


@dataclass(frozen=True)
class Header:
    """What a NIfTI header says, checked."""

    raw: Any
    """nibabel's header."""
    shape: tuple[int, ...]
    """As stored, without trailing axes of one."""
    grid: Grid
    channels: int
    dtype: np.dtype[Any]
    """Of the stored voxels."""
    offset: int
    """The byte at which the voxels begin."""
    notes: tuple[str, ...]
    """What is odd and was decided, a sentence each."""

    @property
    def voxel_bytes(self) -> int:
        """How many bytes the voxels take in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: Path, content: bytes) -> Header:
    """Return what the first bytes of a file say.

    Args:
        path: The file, for messages.
        content: At least the header: 352 bytes of NIfTI-1, 544 of NIfTI-2.

    Raises:
        InputError: Not a NIfTI file; not 3-D or 4-D; larger than is read; no usable orientation; a voxel size, a field
            of view or an origin that is impossible for a head.
    """
    raw, length = _raw_header(path, content)
    shape = _shape(path, raw)
    affine, notes = _affine(path, raw, shape[:3])
    offset, about_offset = _offset(path, raw, length)
    try:
        dtype = raw.get_data_dtype()
    except Exception as error:  # nibabel raises several kinds of its own, of no common ancestor
        raise _damaged(path, error) from error
    x, y, z = shape[:3]
    channels = shape[3] if len(shape) == 4 else 1
    return Header(raw, shape, Grid((x, y, z), affine), channels, dtype, offset, (*notes, *about_offset))


def check_size(path: Path, header: Header) -> None:
    """Refuse more voxels than are read at once, before any memory is taken for them.

    Raises:
        InputError: As said.
    """
    voxels = math.prod(header.shape)
    if voxels > _MOST_VOXELS or header.dtype.itemsize > _WIDEST_BYTES:
        raise InputError(
            f"{path}: {_by(header.shape)} voxels of type {header.dtype}; at most {_MOST_VOXELS:,} voxels of "
            f"{_WIDEST_BYTES} bytes are read. Resample the image to voxels of about 1 mm first."
        )


def _raw_header(path: Path, content: bytes) -> tuple[Any, int]:
    """Return nibabel's header and how many bytes it takes, with the four that tell whether extensions follow."""
    # Either kind is told by its first number, the length of the header, in either byte order.
    first = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
    kind: Any
    kind, length = (nib.Nifti2Header, 540) if 540 in first else (nib.Nifti1Header, 348)
    try:
        raw = kind(content[:length])
    except Exception as error:  # as in read_header
        raise InputError(f"{path}: {_no_nifti(content)}") from error
    if not bytes(raw["magic"]).startswith(b"n+"):
        raise InputError(f"{path}: not a single-file NIfTI (.nii or .nii.gz).")
    return raw, length + 4


def _no_nifti(content: bytes) -> str:
    """Return what the beginning of a file shows that is no image, as a sentence part."""
    if not content:
        return "not a NIfTI file: it is empty (0 bytes). Copy or download it again."
    if is_pointer(content):
        return "not a NIfTI file, but a pointer to one. Get it first (datalad get, git lfs pull)."
    if is_web_page(content):
        return "not a NIfTI file, but a web page or other text. Download it again."
    return "not a NIfTI file (.nii or .nii.gz), or its header is damaged."


def _shape(path: Path, raw: Any) -> tuple[int, ...]:
    try:
        shape = tuple(int(n) for n in raw.get_data_shape())
    except Exception as error:  # as in read_header; a number of axes that is none
        raise _damaged(path, error) from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape[:3]) < 2 or min(shape) < 1:
        raise InputError(f"{path}: a 3-D volume is needed; this one is {_by(shape)}.")
    return shape


def _offset(path: Path, raw: Any, least: int) -> tuple[int, list[str]]:
    value = float(raw["vox_offset"])
    if not (0 <= value < 2**53 and value == int(value)):  # NaN and infinity are not
        raise _damaged(path, f"its voxels cannot begin at byte {value}")
    if value >= least:
        return int(value), []
    return least, [f"its vox_offset is {value:.0f}, inside the header; voxels are read from byte {least}."]


def _affine(path: Path, raw: Any, shape: tuple[int, ...]) -> tuple[Affine, list[str]]:
    """Return the affine to millimetres by the sform, or by the qform where there is no usable sform."""
    sform, qform = _form(raw, "s"), _form(raw, "q")
    notes = []
    if sform is not None:
        affine = sform
        notes += _contradictions(raw, sform, qform, shape)
    elif qform is not None:
        affine = qform
        if int(raw["sform_code"]) > 0:
            notes.append("its sform cannot be used (its axes do not span a volume); the qform is read.")
    else:
        stored = int(raw["sform_code"]) > 0 or int(raw["qform_code"]) > 0
        plain = _usable(_silently(raw.get_base_affine))
        if stored or plain is None:
            raise InputError(
                f"{path}: its header has no usable orientation (singular affine). Convert it again from DICOM."
            )
        affine = plain
        notes.append(
            "its header says nothing about orientation (qform and sform codes are 0); left and right are a guess."
        )
    affine, about_units = _in_mm(raw, affine, shape)
    _check_place(path, Grid((shape[0], shape[1], shape[2]), affine))
    return affine, [*notes, *about_units]


def _form(raw: Any, which: str) -> Affine | None:
    """Return the sform or the qform in the file's unit; None where its code is 0 or it cannot be used."""
    if int(raw[f"{which}form_code"]) <= 0:
        return None
    return _usable(_silently(raw.get_sform if which == "s" else raw.get_qform))


def _silently(compute: Any) -> Any:
    try:
        with np.errstate(all="ignore"):  # NaN and infinity are looked for by the caller
            return compute()
    except Exception:  # as in read_header; a quaternion that is none
        return None


def _usable(found: Any) -> Affine | None:
    if found is None:
        return None
    affine = np.asarray(found, dtype=np.float64)
    if not (np.abs(affine) < _LARGEST).all():  # nor NaN
        return None
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < _LEAST_VOLUME:
        return None
    return affine


def _contradictions(raw: Any, sform: Affine, qform: Affine | None, shape: tuple[int, ...]) -> list[str]:
    """Return what qform or pixdim say otherwise than the sform."""
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    pixdim = np.abs(np.asarray(raw["pixdim"][1:4], dtype=np.float64))
    if not np.allclose(pixdim, sizes, rtol=_OTHER_SPACING, atol=0):
        return [f"its pixdim says voxels of {_by(pixdim)}, its sform {_by(sizes)}; the sform is read."]
    if qform is None:
        return []
    axes, others = ("".join(orientations.aff2axcodes(form)) for form in (sform, qform))
    if axes != others:
        return [f"its qform says that the axes are {others}, its sform {axes}; the sform is read."]
    nearest = nib.Nifti1Header()  # a qform has no shear, so one that was made from a sheared sform differs from it
    nearest.set_qform(sform, code=1)
    apart = np.linalg.norm((nearest.get_qform() - qform) @ corner_indices(shape), axis=0).max()
    if apart > sizes.max() and int(raw["sform_code"]) < _TEMPLATE_SPACE:
        return [f"its qform and its sform lie {apart:.3g} voxel units apart; the sform is read."]
    return []


def _in_mm(raw: Any, affine: Affine, shape: tuple[int, ...]) -> tuple[Affine, list[str]]:
    """Return the affine in mm by the header's unit, unless that is impossible and mm are not."""
    factor, unit = _UNITS_MM.get(int(raw["xyzt_units"]) & 7, (1.0, ""))
    if not unit:
        return affine, []
    low, high = _PLAUSIBLE_FIELD_MM
    as_stored = np.linalg.norm(affine[:3, :3], axis=0) * shape
    converted = as_stored * factor
    if not ((low <= converted) & (converted <= high)).all() and ((low <= as_stored) & (as_stored <= high)).all():
        return affine, [f"its header says {unit}, which is impossible for a head; its numbers are read as mm."]
    # Rounded to 10 nm, as headers hold float32: 0.003 m becomes 3 mm and not 3.0000001 mm.
    return np.round(np.diag([factor, factor, factor, 1.0]) @ affine, 5), [
        f"its header gives lengths in {unit}; they are converted to mm."
    ]


def _check_place(path: Path, grid: Grid) -> None:
    spacing = grid.spacing_mm
    extent = [n * mm for n, mm in zip(grid.shape, spacing, strict=True)]
    wrong = None
    if not all(_SPACING_MM[0] <= mm <= _SPACING_MM[1] for mm in spacing):
        wrong = f"voxels of {_by(spacing)} mm"
    elif max(extent) > _FIELD_MM:
        wrong = f"a field of view of {_by(extent)} mm"
    elif np.abs(grid.affine @ corner_indices(grid.shape)).max() > _FARTHEST_MM:
        wrong = f"an origin at {_by(grid.affine[:3, 3])} mm"
    if wrong:
        raise InputError(
            f"{path}: its header gives {wrong}, which is impossible for a head. Repair it, or convert the images again."
        )


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(f"{path}: its header is damaged: {reason}. Copy or export the file again.")


def _by(values: Any) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
