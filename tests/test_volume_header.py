"""Headers: units, contradictions and impossible places are read for what they mean, and said or refused."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from conftest import AFFINE
from gliomask.errors import InputError
from gliomask.volume import Volume, read_grid, read_volume, reorient, write_volume

SHAPE = (12, 14, 10)
STRAIGHT = np.array([[-2.0, 0, 0, 20], [0, -1.5, 0, 25], [0, 0, 3, -30], [0, 0, 0, 1]])


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 250, SHAPE).astype(np.int16)


def patched(path: Path, offset: int, form: str, *values: float, affine: np.ndarray = STRAIGHT) -> Path:
    """A good file in which some bytes of the header are others."""
    content = bytearray(nib.Nifti1Image(voxels(), affine).to_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(content)
    return path


def with_forms(path: Path, sform: np.ndarray | None, qform: np.ndarray | None, codes: tuple[int, int] = (1, 1)) -> Path:
    image = nib.Nifti1Image(voxels(), None)
    if qform is not None:
        image.set_qform(qform, codes[1])
    if sform is not None:
        image.header.set_sform(sform, codes[0])
    image.header["vox_offset"] = 352
    path.write_bytes(image.header.binaryblock + b"\0" * 4 + voxels().tobytes(order="F"))
    return path


def scaled(factor: float) -> np.ndarray:
    return np.diag([factor, factor, factor, 1]) @ STRAIGHT


@pytest.mark.parametrize(("unit", "factor", "name"), [(1, 0.001, "metres"), (3, 1000.0, "micrometres")])
def test_units_are_converted_to_millimetres_and_said(tmp_path: Path, unit: int, factor: float, name: str) -> None:
    """An affine in metres or micrometres is that in mm; what is written for such a file keeps its unit."""
    path = patched(tmp_path / "a.nii", 123, "<B", unit, affine=scaled(factor))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine, STRAIGHT, rtol=1e-6)
    assert volume.notes == (f"its header gives lengths in {name}; they are converted to mm.",)
    write_volume(tmp_path / "mask.nii", Volume((volume.data > 9).astype(np.uint8), volume.affine), like=path)
    np.testing.assert_allclose(read_grid(tmp_path / "mask.nii")[0].affine, STRAIGHT, rtol=1e-6)


@pytest.mark.parametrize("unit", [1, 3])
def test_a_unit_that_cannot_be_is_not_believed(tmp_path: Path, unit: int) -> None:
    """Some writers set a wrong unit: a field of view of 24 metres or micrometres is read as 24 mm."""
    volume = read_volume(patched(tmp_path / "a.nii", 123, "<B", unit))
    np.testing.assert_allclose(volume.affine, STRAIGHT)
    (note,) = volume.notes
    assert "its numbers are read as mm" in note


@pytest.mark.parametrize("unit", [0, 2, 10])
def test_millimetres_and_no_unit_are_not_worth_a_note(tmp_path: Path, unit: int) -> None:
    """The code 10 means mm and seconds."""
    assert read_volume(patched(tmp_path / "a.nii", 123, "<B", unit)).notes == ()


def turned(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ STRAIGHT


@pytest.mark.parametrize(
    ("sform", "qform", "codes", "note"),
    [
        (STRAIGHT, STRAIGHT, (1, 1), None),
        (AFFINE, AFFINE, (1, 1), None),
        (STRAIGHT, np.diag([-1.0, 1, 1, 1]) @ STRAIGHT, (1, 1), "its qform says that the axes are RPS, its sform LPS"),
        (
            STRAIGHT,
            STRAIGHT @ np.diag([1.1, 1, 1, 1]),
            (1, 1),
            "its pixdim says voxels of 2.2 x 1.5 x 3, its sform",
        ),
        (turned(0.3), STRAIGHT, (1, 1), "voxel units apart"),
        (turned(0.3), STRAIGHT, (4, 1), None),
        (scaled(1.1), STRAIGHT, (4, 1), "its pixdim says"),
        (np.zeros((4, 4)), STRAIGHT, (1, 1), "its sform cannot be used"),
        (None, None, (0, 0), "its header says nothing about orientation"),
    ],
)
def test_contradictions_of_a_header_are_said(
    tmp_path: Path, sform: np.ndarray | None, qform: np.ndarray | None, codes: tuple[int, int], note: str | None
) -> None:
    """A qform made from a sheared sform is no contradiction, nor is a sform in a template's space."""
    volume = read_volume(with_forms(tmp_path / "a.nii", sform, qform, codes))
    assert len(volume.notes) == (note is not None)
    assert note is None or note in volume.notes[0]
    if sform is not None:
        read = qform if not sform.any() else sform
        np.testing.assert_allclose(volume.affine, read, atol=1e-4)


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (scaled(100), r"voxels of 200 x 150 x 300 mm, which is impossible for a head"),
        (scaled(0.001), r"voxels of 0\.002 x 0\.0015 x 0\.003 mm"),
        (np.diag([-90.0, -90, 90, 1]), None),
        (np.diag([-60.0, -60, 400, 1]), r"voxels of 60 x 60 x 400 mm"),
        (STRAIGHT + np.array([[0, 0, 0, 1e38], *[[0] * 4] * 3]), r"an origin at 1e\+38 x 25 x -30 mm"),
        (STRAIGHT @ np.diag([1e38, 1, 1, 1]), r"voxels of 2e\+38"),
        (np.array([[1.0, 1, 0, 0], [0, 0.01, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular affine"),
    ],
)
def test_a_place_that_no_head_has_is_refused(tmp_path: Path, affine: np.ndarray, message: str | None) -> None:
    """It is refused by its header alone."""
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(voxels(), None)
    image.header.set_sform(affine, 1)
    path.write_bytes(image.header.binaryblock + b"\0" * 4 + voxels().tobytes(order="F"))
    if message is None:
        assert read_grid(path)[0].shape == SHAPE
        return
    for read in (read_grid, read_volume):
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_voxels_never_begin_inside_the_header(tmp_path: Path, ending: str) -> None:
    """A vox_offset of 0, as some writers leave it, is the first byte after the header."""
    path = patched(tmp_path / "a.nii", 108, "<f", 0.0)
    if ending == ".nii.gz":
        path = path.rename(tmp_path / "a.nii.gz")
        path.write_bytes(gzip.compress(path.read_bytes()))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data[0], voxels())
    assert volume.notes == ("its vox_offset is 0, inside the header; voxels are read from byte 352.",)


@pytest.mark.parametrize("offset", [-8.0, 352.5, float("nan"), float("inf"), 1e30])
def test_an_offset_that_is_none_is_refused(tmp_path: Path, offset: float) -> None:
    """It is refused as damaged or as cut short."""
    with pytest.raises(InputError, match=r"damaged|cut short"):
        read_volume(patched(tmp_path / "a.nii", 108, "<f", offset))


@pytest.mark.parametrize("mask", [False, True])
def test_no_more_is_inflated_than_the_header_promises(tmp_path: Path, mask: bool) -> None:
    """A hundred megabytes of zeros behind a small image take no memory; the image is read."""
    content = nib.Nifti1Image(voxels().astype(np.uint8), STRAIGHT).to_bytes()
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(content + bytes(100_000_000), 1))
    tracemalloc.start()
    read = read_volume(path, mask=mask).data[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(read, voxels())
    assert peak < 10_000_000


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_more_voxels_than_are_read_are_refused_before_memory_is_taken(tmp_path: Path, ending: str) -> None:
    """A header that promises what a bomb would hold, and a plain file that is all hole."""
    header = nib.Nifti1Header()
    header.set_data_shape((800, 800, 800))
    header.set_sform(np.diag([-0.3, -0.3, 0.3, 1]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = tmp_path / f"a{ending}"
    content = header.binaryblock + bytes(4)
    path.write_bytes(gzip.compress(content) + bytes(3_000_000) if ending == ".nii.gz" else content)
    if ending == ".nii":
        with path.open("r+b") as file:
            file.truncate(352 + 4 * 800**3)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"800 x 800 x 800 voxels of type float32; at most 134,217,728 voxels"):
        read_volume(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("noise", [1e-6, 9e-4])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_labels_may_be_off_by_rounding(tmp_path: Path, noise: float, kind: str) -> None:
    """3.0000001 is a 3, and so is 2.9995; 3.002 is no label."""
    labels = np.random.default_rng(0).integers(0, 5, SHAPE)
    signs = np.random.default_rng(1).choice([-1, 1], SHAPE)
    path = tmp_path / "mask.nii"
    path.write_bytes(nib.Nifti1Image((labels + signs * noise).astype(kind), STRAIGHT).to_bytes())
    np.testing.assert_array_equal(read_volume(path, mask=True).data[0], labels)
    path.write_bytes(nib.Nifti1Image((labels + 0.002).astype(kind), STRAIGHT).to_bytes())
    with pytest.raises(InputError, match="a mask holds whole numbers"):
        read_volume(path, mask=True)


@pytest.mark.parametrize("most", [1, 3, 4, 5])
def test_labels_that_nibabel_scaled_are_labels(tmp_path: Path, most: int) -> None:
    """It stores floats as uint8 with a slope when asked for that type: a 2 may become 2.0078. Fractions stay none."""
    labels = np.random.default_rng(0).integers(0, most + 1, SHAPE)
    image = nib.Nifti1Image(labels.astype(np.float32), STRAIGHT)
    image.header.set_data_dtype(np.uint8)
    nib.save(image, tmp_path / "mask.nii.gz")
    assert nib.load(tmp_path / "mask.nii.gz").dataobj.slope != 1
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.nii.gz", mask=True).data[0], labels)
    image = nib.Nifti1Image(labels.astype(np.float32) / 3, STRAIGHT)
    image.header.set_data_dtype(np.uint8)
    nib.save(image, tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match="a mask holds whole numbers"):
        read_volume(tmp_path / "mask.nii.gz", mask=True)


def test_what_is_written_as_on_a_files_grid_lies_on_it(tmp_path: Path) -> None:
    """It is written in the file's order of axes; on another grid it is refused, as the header would be wrong."""
    path = tmp_path / "image.nii"
    write_volume(path, Volume(voxels()[None], STRAIGHT))
    image = read_volume(path)
    other = reorient(Volume((image.data > 99).astype(np.uint8), image.affine), "RAS")
    write_volume(tmp_path / "mask.nii", other, like=path)
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.nii").data, image.data > 99)
    moved = image.affine.copy()
    moved[2, 3] += 1
    with pytest.raises(InputError, match=r"image\.nii: what is written as on its grid differs from it in origin"):
        write_volume(tmp_path / "mask.nii", Volume(image.data, moved), like=path)
