"""De-identification keeps the voxels and the grid and drops all text; other files are refused."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from conftest import AFFINE
from serving import nifti

pytest.importorskip("fastapi", reason="needs the extra serve")

from gliomask.errors import InputError
from gliomask.service.deidentify import deidentify
from gliomask.volume import read_volume

NAME = "DOE^JANE 1970-01-01"
MOST = {"most_voxels": 10**6, "most_bytes": 10**8}


def refused(tmp_path: Path, content: bytes, **limits: int) -> str:
    """Return the message for a file that must be refused."""
    (tmp_path / "upload").write_bytes(content)
    (tmp_path / "out.nii.gz").unlink(missing_ok=True)
    with pytest.raises(InputError) as error:
        deidentify(tmp_path / "upload", tmp_path / "out.nii.gz", **{**MOST, **limits})
    assert str(tmp_path) not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f4", "f8"])
def test_voxels_and_grid_are_kept_and_text_is_dropped(
    tmp_path: Path, dtype: str, order: str, kind: Any, packed: bool
) -> None:
    """For both NIfTI versions and byte orders, and with scaled voxels."""
    data = (np.arange(6 * 7 * 5).reshape(6, 7, 5) % 200 + 1).astype(order + dtype)
    image = kind(data, AFFINE, kind.header_class(endianness=order))
    image.set_data_dtype(data.dtype)
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = NAME, NAME, NAME[:15]
    if kind is nib.Nifti1Image:
        image.header["db_name"] = NAME[:17]
    image.header.set_slope_inter(1.5, 0.25)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAME.encode() * 5))
    content = image.to_bytes()
    assert content.count(b"DOE") >= 8
    path = tmp_path / "upload.nii.gz"
    path.write_bytes(gzip.compress(content) if packed else content)
    grid, size = deidentify(path, tmp_path / "out.nii.gz", **MOST)
    before, after = read_volume(path), read_volume(tmp_path / "out.nii.gz")
    assert before.data.dtype == after.data.dtype
    assert np.array_equal(before.data, after.data)
    assert np.array_equal(before.affine, after.affine)
    assert np.array_equal(grid.affine, after.affine)
    assert size == data.nbytes
    assert b"DOE" not in gzip.decompress((tmp_path / "out.nii.gz").read_bytes())


def test_a_gzip_file_of_several_members_is_read_as_one(tmp_path: Path) -> None:
    """Parallel compressors write such files; zeros at the end are padding."""
    content = nifti()
    (tmp_path / "upload").write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]) + bytes(512))
    deidentify(tmp_path / "upload", tmp_path / "out.nii.gz", **MOST)
    (tmp_path / "whole.nii").write_bytes(content)
    assert np.array_equal(read_volume(tmp_path / "out.nii.gz").data, read_volume(tmp_path / "whole.nii").data)


def test_truncated_and_damaged_files_are_refused(tmp_path: Path) -> None:
    """Truncated voxels, a truncated gzip stream, and a wrong checksum."""
    content = nifti()
    packed = gzip.compress(content)
    assert "fewer voxels" in refused(tmp_path, content[:-1])
    assert "truncated gzip" in refused(tmp_path, packed[:-200])
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # of the checksum
    assert "damaged" in refused(tmp_path, bytes(flipped))


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Empty files, DICOM, text, 4-D files, colours, unusable affines."""
    assert "empty" in refused(tmp_path, b"")
    assert "DICOM" in refused(tmp_path, bytes(128) + b"DICM" + bytes(500))
    assert "not a NIfTI" in refused(tmp_path, b"patient,age\n1,50\n" * 40)
    four = nib.Nifti1Image(np.ones((4, 4, 4, 3), np.int16), AFFINE).to_bytes()
    assert "4-D file of 3 volumes" in refused(tmp_path, four)
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "does not hold grey values" in refused(tmp_path, nib.Nifti1Image(colours, AFFINE).to_bytes())
    lost = bytearray(nifti())
    lost[280:292] = struct.pack("<3f", float("nan"), 0, 0)
    assert "affine" in refused(tmp_path, bytes(lost))
    lost[252:256] = struct.pack("<2h", 1, 0)  # the qform, with an invalid quaternion
    lost[256:268] = struct.pack("<3f", 9, 9, 9)
    assert "affine" in refused(tmp_path, bytes(lost))


def test_decompression_stops_at_the_size_that_the_header_declares(tmp_path: Path) -> None:
    """Gzip bombs, too many voxels, and invalid positions of the voxels are refused."""
    content = nifti()
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = pack.compress(content) + b"".join(pack.compress(bytes(1 << 20)) for _ in range(64)) + pack.flush()
    assert len(bomb) < 200_000
    assert "more data than its header declares" in refused(tmp_path, bomb)
    huge = bytearray(content)
    huge[42:48] = struct.pack("<3h", 900, 900, 900)
    assert "voxels, more than this server accepts" in refused(tmp_path, bytes(huge))
    assert "MB of voxels, more than" in refused(tmp_path, content, most_bytes=1000)
    far = bytearray(content)
    far[108:112] = struct.pack("<f", 3e9)
    assert "is invalid" in refused(tmp_path, bytes(far))
    far[108:112] = struct.pack("<f", float("nan"))
    assert "its header is damaged" in refused(tmp_path, bytes(far))
