"""Volumes: what is written is read, voxels keep their places, and every bad file is said to be one."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from conftest import AFFINE
from gliomask.errors import InputError
from gliomask.volume import Volume, read_grid, read_volume, write_volume

SHAPE = (6, 7, 5)


def some_volume(kind: str = "int16", channels: int = 1, seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).uniform(1, 250, (channels, *SHAPE))
    return Volume(data.astype(kind), AFFINE)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["int16", "uint8", "float32"])
def test_what_is_written_is_read(tmp_path: Path, kind: str, channels: int, ending: str) -> None:
    """Voxels and type exactly, the affine to the header's float32; nibabel sees the same."""
    path = tmp_path / f"volume{ending}"
    volume = some_volume(kind, channels)
    write_volume(path, volume)
    back = read_volume(path)
    assert back.data.dtype == kind
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
    grid, count = read_grid(path)
    assert (grid.shape, count) == (SHAPE, channels)
    assert grid.difference(back.grid) is None
    if ending.islower():
        seen = np.asarray(nib.load(path).dataobj)
        np.testing.assert_array_equal(seen, volume.data[0] if channels == 1 else np.moveaxis(volume.data, 0, -1))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_the_same_volume_gives_the_same_bytes(tmp_path: Path, ending: str) -> None:
    """No time and no name is hidden in the file, so that results can be compared by checksum."""
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    write_volume(first, some_volume())
    write_volume(second, some_volume())
    assert first.read_bytes() == second.read_bytes()
    if ending == ".nii.gz":
        assert first.read_bytes()[:8] == b"\x1f\x8b\x08\0\0\0\0\0"  # gzip, deflate, no name, no time


def test_a_volume_in_either_order_of_memory_is_written_alike(tmp_path: Path) -> None:
    """The memory order does not change the file."""
    volume = some_volume()
    write_volume(tmp_path / "c.nii", volume)
    write_volume(tmp_path / "f.nii", Volume(np.asfortranarray(volume.data), AFFINE))
    assert (tmp_path / "c.nii").read_bytes() == (tmp_path / "f.nii").read_bytes()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (2, 4), (1, 0), (0, 2), (0, 0)])
def test_the_inputs_header_is_kept(tmp_path: Path, qform: int, sform: int, kind: type[nib.Nifti1Image]) -> None:
    """Transforms, codes and units are copied, so that every viewer shows the mask where it shows the image."""
    turned = AFFINE.copy()
    turned[:3, 3] += 3
    like = kind(some_volume("float32").data[0], None)
    like.set_qform(turned, qform)
    like.set_sform(AFFINE, sform)
    like.header.set_xyzt_units("micron", "msec")
    nib.save(like, tmp_path / "image.nii.gz")
    mask = Volume(np.ones((1, *SHAPE), np.uint8), read_volume(tmp_path / "image.nii.gz").affine)
    write_volume(tmp_path / "mask.nii.gz", mask, like=tmp_path / "image.nii.gz")
    written = nib.load(tmp_path / "mask.nii.gz")
    assert (written.header["qform_code"], written.header["sform_code"]) == (qform, sform)
    assert written.header.get_xyzt_units() == ("micron", "msec")
    assert written.get_data_dtype() == np.uint8
    # NIfTI-1 holds a rotation in float32, NIfTI-2 in float64.
    np.testing.assert_allclose(written.affine, nib.load(tmp_path / "image.nii.gz").affine, atol=1e-4)
    if qform:
        np.testing.assert_allclose(written.get_qform(), like.get_qform(), atol=1e-4)
    if sform:
        np.testing.assert_allclose(written.get_sform(), AFFINE, atol=1e-5)


def test_free_text_is_not_kept(tmp_path: Path) -> None:
    """Free text may contain the name of a patient."""
    like = nib.Nifti1Image(some_volume().data[0], AFFINE)
    for field, text in (("descrip", b"Jane Roe"), ("aux_file", b"roe.dcm"), ("intent_name", b"Roe"), ("db_name", b"J")):
        like.header[field] = text
    like.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Roe"))
    nib.save(like, tmp_path / "image.nii")
    write_volume(tmp_path / "mask.nii", some_volume("uint8"), like=tmp_path / "image.nii")
    content = (tmp_path / "mask.nii").read_bytes()
    assert b"Roe" in (tmp_path / "image.nii").read_bytes()
    assert b"oe" not in content[:352]
    assert len(content) == 352 + np.prod(SHAPE)


def test_without_an_input_the_affine_is_the_header(tmp_path: Path) -> None:
    """Both transforms are scanner space, in millimetres."""
    write_volume(tmp_path / "a.nii", some_volume())
    header = nib.load(tmp_path / "a.nii").header
    assert (header["qform_code"], header["sform_code"]) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"


def test_nifti_2_is_read(tmp_path: Path) -> None:
    """NIfTI-2 differs from NIfTI-1 only in its header."""
    volume = some_volume()
    nib.save(nib.Nifti2Image(volume.data[0], AFFINE), tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "two.nii.gz").data, volume.data)
    assert read_grid(tmp_path / "two.nii.gz")[0].difference(volume.grid) is None


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("voxels", ["int16", "float32"])
def test_big_endian_files_are_read(tmp_path: Path, kind: type[nib.Nifti1Image], voxels: str) -> None:
    """Some old scanners wrote such files."""
    volume = some_volume(voxels)
    header = kind.header_class(endianness=">")
    header.set_data_dtype(np.dtype(voxels).newbyteorder(">"))
    nib.save(kind(volume.data[0], AFFINE, header), tmp_path / "big.nii")
    back = read_volume(tmp_path / "big.nii")
    np.testing.assert_array_equal(back.data, volume.data)
    assert back.grid.difference(volume.grid) is None


def test_a_scaled_file_is_read_as_what_it_means(tmp_path: Path) -> None:
    """Slope and intercept are applied, as float32."""
    volume = some_volume()
    image = nib.Nifti1Image(volume.data[0], AFFINE)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    header["scl_slope"], header["scl_inter"] = 0.5, -3
    content[:348] = header.binaryblock
    (tmp_path / "scaled.nii").write_bytes(content)
    back = read_volume(tmp_path / "scaled.nii")
    assert back.data.dtype == np.float32
    np.testing.assert_array_equal(back.data, volume.data * np.float32(0.5) - 3)


@pytest.mark.parametrize(("stored", "read"), [("float64", "float32"), ("int32", "int32"), ("uint16", "uint16")])
def test_integers_stay_and_floats_become_float32(tmp_path: Path, stored: str, read: str) -> None:
    """A mask becomes uint8 from any type."""
    data = np.random.default_rng(0).integers(0, 5, SHAPE).astype(stored)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii.gz")
    assert read_volume(tmp_path / "a.nii.gz").data.dtype == read
    mask = read_volume(tmp_path / "a.nii.gz", mask=True).data
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask[0], data)


def test_trailing_axes_of_one_are_no_axes(tmp_path: Path) -> None:
    """Some exports write X x Y x Z x 1 x 1."""
    volume = some_volume()
    nib.save(nib.Nifti1Image(volume.data[0][..., None, None], AFFINE), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, volume.data)


def test_a_gzip_in_pieces_is_read_whole(tmp_path: Path) -> None:
    """Parallel packers write several members one after the other."""
    write_volume(tmp_path / "a.nii", some_volume())
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").data, some_volume().data)


@pytest.mark.parametrize("name", ["zipped.nii", "plain.nii.gz"])
def test_the_content_counts_not_the_ending(tmp_path: Path, name: str) -> None:
    """Some browsers unpack a download and keep its name."""
    write_volume(tmp_path / "a.nii", some_volume())
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name == "zipped.nii" else content)
    np.testing.assert_array_equal(read_volume(tmp_path / name).data, some_volume().data)
    assert read_grid(tmp_path / name)[0].shape == SHAPE


def test_an_empty_mask_is_a_mask(tmp_path: Path) -> None:
    """A mask may be empty; an image may not."""
    write_volume(tmp_path / "mask.nii", Volume(np.zeros((1, *SHAPE), np.uint8), AFFINE))
    assert not read_volume(tmp_path / "mask.nii", mask=True).data.any()


def write_image(path: Path, data: np.ndarray) -> Path:
    path.write_bytes(nib.Nifti1Image(data, AFFINE, dtype=data.dtype).to_bytes())
    return path


def with_voxel(value: float, kind: str = "float32") -> np.ndarray:
    data = np.ones(SHAPE, kind)
    data[2, 3, 1] = value
    return data


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((6, 7), np.int16), "3-D volume is needed; this one is 6 x 7"),
        (np.ones((6, 7, 1), np.int16), "3-D volume is needed; this one is 6 x 7 x 1"),
        (np.ones((6, 7, 5, 2, 3), np.int16), "3-D volume is needed; this one is 6 x 7 x 5 x 2 x 3"),
        (with_voxel(np.nan), "1 voxels are NaN or infinite"),
        (with_voxel(-np.inf), "1 voxels are NaN or infinite"),
        (with_voxel(1e300, "float64"), "1 voxels are NaN or infinite"),
        (np.zeros(SHAPE, np.int16), "every voxel is zero"),
        (np.zeros(SHAPE, np.float32), "every voxel is zero"),
        (np.ones(SHAPE, RGB), "colour or complex"),
        (np.ones(SHAPE, np.complex64), "colour or complex"),
    ],
)
def test_an_image_of_a_wrong_kind_is_refused(tmp_path: Path, data: np.ndarray, message: str) -> None:
    """The message names the file and what is wrong with it."""
    path = write_image(tmp_path / "bad.nii", data)
    with pytest.raises(InputError, match=message) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "data",
    [
        *(with_voxel(value) for value in (0.5, -1, 256, 300, np.nan, np.inf)),
        with_voxel(1e300, "float64"),
        with_voxel(-1, "int16"),
        with_voxel(300, "int16"),
        with_voxel(256 * 256, "int32"),
        np.ones(SHAPE, RGB),
        np.ones(SHAPE, np.complex64),
    ],
    ids=lambda data: f"{data.dtype.kind}{data.ravel()[data.size // 2]}",
)
def test_a_mask_that_holds_no_labels_is_refused(tmp_path: Path, data: np.ndarray) -> None:
    """Fractions, negative numbers and numbers above 255 are those of probabilities or of an image."""
    path = write_image(tmp_path / "bad.nii", data)
    with pytest.raises(InputError, match="a mask holds whole numbers from 0 to 255") as caught:
        read_volume(path, mask=True)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_mask_has_one_channel(tmp_path: Path) -> None:
    """A file with a channel for each region is not a label map."""
    write_volume(tmp_path / "mask.nii", some_volume("uint8", 3))
    with pytest.raises(InputError, match=r"mask\.nii: a mask has one channel; this one has 3"):
        read_volume(tmp_path / "mask.nii", mask=True)


def no_file(path: Path, good: bytes) -> None:
    pass


def a_folder(path: Path, good: bytes) -> None:
    path.mkdir()


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path, bytes], None]:
    return lambda path, good: path.write_bytes(change(good)) and None


def noise(good: bytes) -> bytes:
    return np.random.default_rng(0).bytes(len(good))


def damaged(good: bytes) -> bytes:
    middle = len(good) // 2
    return good[:middle] + bytes(byte ^ 0xFF for byte in good[middle : middle + 8]) + good[middle + 8 :]


BAD_BYTES: dict[str, tuple[Callable[[Path, bytes], object], str]] = {
    "missing": (no_file, "no such file"),
    "folder": (a_folder, "cannot be read: Is a directory"),
    "empty": (with_bytes(lambda good: b""), "not a NIfTI file"),
    "noise": (with_bytes(noise), "not a NIfTI file"),
    "text": (with_bytes(lambda good: b"<!DOCTYPE html><html>404</html>" * 40), "not a NIfTI file"),
    "gzipped noise": (with_bytes(lambda good: gzip.compress(noise(good))), "not a NIfTI file"),
    "damaged": (with_bytes(damaged), "cut or damaged"),
    "half a header": (with_bytes(lambda good: gzip.decompress(good)[:200]), "not a NIfTI file"),
    "header alone": (with_bytes(lambda good: gzip.decompress(good)[:352]), "cut short"),
    "one byte short": (with_bytes(lambda good: gzip.decompress(good)[:-1]), "cut short"),
    "packed one byte short": (with_bytes(lambda good: gzip.compress(gzip.decompress(good)[:-1])), "cut short"),
}


@pytest.mark.parametrize("kind", BAD_BYTES)
def test_a_file_that_is_no_volume_is_said_to_be_none(tmp_path: Path, kind: str) -> None:
    """The message names the file and the reason, also when only the header is read."""
    make, message = BAD_BYTES[kind]
    write_volume(tmp_path / "good.nii.gz", some_volume("float32"))
    path = tmp_path / "bad.nii.gz"
    make(path, (tmp_path / "good.nii.gz").read_bytes())
    with pytest.raises(InputError, match=message) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: ")
    if message in ("no such file", "not a NIfTI file") or kind == "folder":
        with pytest.raises(InputError, match=message):
            read_grid(path)


def test_a_gzip_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """The copy may have stopped at any byte."""
    write_volume(tmp_path / "good.nii.gz", some_volume("float32"))
    content = (tmp_path / "good.nii.gz").read_bytes()
    path = tmp_path / "cut.nii.gz"
    for length in (1, 2, 3, 9, 10, 17, 40, 100, len(content) // 2, len(content) - 8, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.nii\.gz: ") as caught:
            read_volume(path)
        assert length < 2 or "cut or damaged" in str(caught.value)


def with_header(path: Path, **fields: object) -> Path:
    """Write a good file with some changed fields of the header."""
    content = bytearray(nib.Nifti1Image(some_volume().data[0], AFFINE).to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"srow_x": [0, 0, 0, 0]}, "singular affine"),
        ({"srow_y": [np.nan, 0, 0, 0]}, "singular affine"),
        ({"dim": [3, 6, -7, 5, 1, 1, 1, 1]}, "3-D volume is needed"),
        ({"dim": [4, 6, 7, 5, 0, 1, 1, 1]}, "this one is 6 x 7 x 5 x 0"),
        ({"dim": [3, 32000, 32000, 32000, 1, 1, 1, 1]}, "a field of view of .* mm, which is impossible for a head"),
        ({"dim": [3, 1000, 1000, 900, 1, 1, 1, 1]}, "cut short"),
        ({"vox_offset": np.inf}, "header is damaged"),
        ({"vox_offset": 1e9}, "cut short"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "header is damaged"),
        ({"datatype": 0}, "not a NIfTI file"),
        ({"magic": b"ni1"}, "not a single-file NIfTI"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    """It is refused before memory is taken for what it promises."""
    path = with_header(tmp_path / "bad.nii", **fields)
    with pytest.raises(InputError, match=message) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_no_damaged_header_ends_in_another_error(tmp_path: Path) -> None:
    """With bytes changed at random it is read or refused by an InputError; so is writing a mask like it."""
    generator = np.random.default_rng(0)
    good = nib.Nifti1Image(some_volume().data[0], AFFINE).to_bytes()
    path = tmp_path / "bad.nii"
    refused = 0
    for _ in range(100):
        content = np.frombuffer(good, np.uint8).copy()
        places = generator.integers(4, 348, generator.integers(1, 12))
        content[places] = generator.integers(0, 256, len(places))
        path.write_bytes(content.tobytes())
        for attempt in (
            lambda: read_volume(path),
            lambda: read_volume(path, mask=True),
            lambda: read_grid(path),
            lambda: write_volume(tmp_path / "mask.nii", some_volume("uint8"), like=path),
        ):
            try:
                attempt()
            except InputError as error:
                assert str(path) in str(error)  # noqa: PT017 # only a refusal has a message to look at
                refused += 1
    assert 0 < refused < 400


@pytest.mark.parametrize("name", ["mask.mha", "mask", "mask.nii.zip", "mask.gz"])
def test_another_ending_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    """Nothing would read such a file."""
    with pytest.raises(InputError, match=r"mask.*written as \.nii or \.nii\.gz"):
        write_volume(tmp_path / name, some_volume())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_full_disk_leaves_the_old_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """No half-written file is left beside it."""
    path = tmp_path / f"mask{ending}"
    write_volume(path, some_volume())

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(InputError, match=r"cannot write .*mask\.nii.*No space left"):
        write_volume(path, some_volume(seed=1))
    np.testing.assert_array_equal(read_volume(path).data, some_volume().data)
    assert list(tmp_path.iterdir()) == [path]
