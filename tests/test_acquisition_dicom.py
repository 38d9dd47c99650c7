"""DICOM studies: told apart, ordered by place, classified by what the headers say, and silent about the patient."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliomask.acquisition.classify import known_words
from gliomask.acquisition.find import find_studies, opened_studies
from gliomask.acquisition.study import Study
from gliomask.acquisition.table import plane_of
from gliomask.errors import InputError
from gliomask.phantom.dicom import (
    DESCRIPTIONS,
    SeriesHeader,
    write_dicom_series,
    write_dicom_study,
    write_enhanced_series,
)
from gliomask.volume import Volume, reorient, write_volume

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

NAME = "Meier^Eva"
STUDY, PLACE = "1.2.3.4.5", "1.2.3.4.6"
# Oblique and anisotropic.
AFFINE = np.array([[-0.89, 0.1, 0.2, 60.0], [0.1, -0.9, 0.6, 50.0], [0.05, 0.15, 4.9, -40.0], [0, 0, 0, 1.0]])


def orthogonal(affine: np.ndarray) -> np.ndarray:
    """The nearest affine with axes at right angles, which is all that DICOM's slices can have here."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    straight = affine.copy()
    straight[:3, :3] = left @ right * spacing
    return straight


def image(seed: int = 0, slices: int = 12) -> Volume:
    data = np.random.default_rng(seed).integers(1, 3000, (1, 20, 24, slices)).astype(np.int16)
    return Volume(data, orthogonal(AFFINE))


def write(folder: Path, header: SeriesHeader, number: int, **more: object) -> Volume:
    volume = more.pop("volume", None) or image(number)
    options = {"study_uid": STUDY, "frame_uid": PLACE, "patient": NAME, **more}
    write_dicom_series(folder / f"S{number:03d}", volume, header, number=number, **options)
    return volume


def reasons(study: Study) -> str:
    return "\n".join(f"{c.series.name} {c.series.modality} {c.used} {c.reason}" for c in study.choices)


@pytest.mark.parametrize("manufacturer", DESCRIPTIONS)
def test_each_manufacturers_series_are_recognised_and_read_as_they_lie(tmp_path: Path, manufacturer: str) -> None:
    """Whatever the files are called: voxels and places are those that were written."""
    truth = {
        name: write(tmp_path / "study", header, number)
        for number, (name, header) in enumerate(DESCRIPTIONS[manufacturer].items(), 1)
    }
    (study,) = find_studies(tmp_path / "study")
    assert study.id == "study"
    assert list(study.chosen) == ["t1n", "t1c", "t2w", "t2f"], reasons(study)
    for name, volume in study.read().items():
        expected = truth[name]
        assert np.array_equal(volume.data, expected.data.astype(np.float32))
        assert np.allclose(volume.affine, expected.affine, atol=1e-3)


@pytest.mark.parametrize("number", range(3))
def test_a_phantoms_study_is_read_back_whoever_made_it(tmp_path: Path, number: int) -> None:
    """One of the three has an enhanced image, one lacks a slice; every sequence is found at its place."""
    truth = {name: image(seed) for seed, name in enumerate(("t1n", "t1c", "t2w", "t2f"))}
    write_dicom_study(tmp_path / "study", truth, number=number)
    (study,) = find_studies(tmp_path / "study")
    assert list(study.chosen) == list(truth), reasons(study)
    missing = "interpolated" in study.chosen["t2f"].reason
    assert missing == (number == 0)
    for name, found in study.read().items():
        kept = np.arange(12) != 6 if missing and name == "t2f" else slice(None)
        assert np.array_equal(found.data[..., kept], truth[name].data[..., kept].astype(np.float32))
        assert np.allclose(found.affine, truth[name].affine, atol=1e-3)


@pytest.mark.parametrize(
    ("description", "what"),
    [
        ("localizer_3plane", "localizer"),
        ("ep2d_diff_b1000_ADC", "diffusion"),
        ("PERF DSC Gd", "perfusion"),
        ("SWAN minIP", "susceptibility"),
        ("TOF MRA neck", "angiography"),
        ("T1 post SUBTRACTION", "subtraction"),
        ("rsfMRI bold", "functional"),
        ("T2 sag spine", "another part of the body"),
    ],
)
def test_other_series_are_left_out_with_the_reason(tmp_path: Path, description: str, what: str) -> None:
    """Beside a FLAIR, which is used."""
    write(tmp_path / "study", DESCRIPTIONS["SIEMENS"]["t2f"], 1)
    write(tmp_path / "study", SeriesHeader(description, 5, 500), 2)
    (study,) = find_studies(tmp_path / "study")
    assert list(study.chosen) == ["t2f"]
    (left,) = [choice for choice in study.choices if not choice.used]
    assert what in left.reason


@pytest.mark.parametrize(
    ("header", "modality"),
    [
        (SeriesHeader("AXIAL", 95, 5000), "t2w"),
        (SeriesHeader("AXIAL", 110, 9000, 2500), "t2f"),
        (SeriesHeader("AXIAL", 12, 600), "t1n"),
        (SeriesHeader("AXIAL", 12, 600, contrast="Gd-DTPA"), "t1c"),
        (SeriesHeader("T1 FLAIR ax", 12, 2500, 900), "t1n"),
        (SeriesHeader("T1 FLAIR ax +C", 12, 2500, 900), "t1c"),
        (SeriesHeader("T1 ohne KM", 12, 600), "t1n"),
        (SeriesHeader("t2 ax", 100, 9000, 2400), "t2f"),
        (SeriesHeader("T1 Gd preop planning", 12, 600), "t1c"),
        (SeriesHeader("T1 postop", 12, 600), "t1n"),
    ],
)
def test_without_telling_words_the_times_tell(tmp_path: Path, header: SeriesHeader, modality: str) -> None:
    """Echo, repetition and inversion time, and the contrast agent."""
    write(tmp_path / "study", header, 1)
    (study,) = find_studies(tmp_path / "study")
    assert list(study.chosen) == [modality], reasons(study)


# Description, name of the protocol, contrast agent: T1 before contrast, and after.
BEFORE = (
    *(
        ("AX T1 W/O CONTRAST", "", ""),
        ("AX T1 W/O GAD", "", ""),
        ("T1 W/O", "", "Gadovist"),
        ("t1_se_tra vor KM", "", ""),
    ),
    *(("T1 o. KM", "", ""), ("T1 SANS GADO", "", ""), ("T1 SIN CONTRASTE", "", ""), ("T1 senza mdc", "", "")),
    *(("AX T1", "BRAIN W/WO CONTRAST", ""), ("AX T1", "BRAIN W/ AND W/O GAD", ""), ("AX T1", "", "NONE")),
    *(("AX T1", "", "N/A"), ("AX T1", "", "0"), ("AX T1", "", "-"), ("AX T1 W/WO CONTRAST", "", "no")),
    *(("AX T1 PRE", "MRI BRAIN WITH CONTRAST", ""), ("AX T1 posterior fossa", "MRI WITHOUT AND WITH CONTRAST", "")),
)
AFTER = (
    *(("AX T1 W/ CONTRAST", "", ""), ("AX T1 POST", "BRAIN W/WO CONTRAST", ""), ("T1 nach KM", "", "")),
    *(("AX T1 +C", "MRI BRAIN WITHOUT AND WITH", "Gadavist"), ("AX T1 POST", "BRAIN WITHOUT CONTRAST", "")),
    *(
        ("AX T1 GAD W/O FAT SAT", "", ""),
        ("T1 POST GD PRE SURGERY", "", ""),
        ("T1 dopo", "", ""),
        ("T1 AX", "T1 KM", ""),
    ),
)


def test_words_for_contrast_are_read_in_the_description_first(tmp_path: Path) -> None:
    """Without is not with, in any of five languages; what is said of a whole examination tells nothing of a series."""
    for number, (description, protocol, agent) in enumerate((*BEFORE, *AFTER), 1):
        header = SeriesHeader(description, 12, 600, contrast=agent)
        write(tmp_path / "made", header, number, volume=image(0, 3))
        change(tmp_path / "made" / f"S{number:03d}", tmp_path / "study", ProtocolName=protocol)
    (study,) = find_studies(tmp_path / "study")
    found = {choice.series.name: (choice.series.modality, choice.series.reason) for choice in study.choices}
    for number, said in enumerate((*BEFORE, *AFTER), 1):
        assert found[f"series {number}"][0] == ("t1n" if number <= len(BEFORE) else "t1c"), (said, found)
    assert found[f"series {len(BEFORE) + len(AFTER)}"][1].endswith("by another name in its header")


@pytest.mark.parametrize(
    ("description", "protocol", "modality"),
    [
        ("AX FLAIR", "BRAIN T1 T2", "t2f"),
        ("AX T2", "BRAIN T1 FLAIR DWI", "t2w"),
        ("AX T1", "BRAIN FLAIR W PERFUSION", "t1n"),
        ("SAG T1 FLAIR", "BRAIN", "t1n"),
        ("AX", "T2 FLAIR", "t2f"),
        ("AX", "BRAIN PERFUSION", None),
        ("AX T2 DWI", "BRAIN T1", None),
    ],
)
def test_a_description_counts_more_than_the_protocol(
    tmp_path: Path, description: str, protocol: str, modality: str | None
) -> None:
    """The name of the protocol may be that of the whole examination; it tells where the description does not."""
    write(tmp_path / "made", SeriesHeader(description, 90, 5000), 1)
    change(tmp_path / "made" / "S001", tmp_path / "study", ProtocolName=protocol)
    (study,) = find_studies(tmp_path / "study")
    (choice,) = study.choices
    assert choice.series.modality == modality, choice.series.reason


@pytest.mark.parametrize(
    ("description", "shown"),
    [
        ("AX T1 W/O CONTRAST", "ax t1 w/o contrast"),
        ("t1_tra_o._KM Wo Sin", "t1 tra o km"),
        ("T1 sans gado", "t1 sans gado"),
        ("T1 W/ AND W/O GD", "t1 w/ and w/o gd"),
    ],
)
def test_the_table_tells_without_from_with(description: str, shown: str) -> None:
    """The little words too, where contrast follows; elsewhere they may be names."""
    assert known_words(description) == shown


def test_of_two_like_t1_series_the_later_is_after_contrast(tmp_path: Path) -> None:
    """Where neither says so; the reason is given, and it is said to be a guess, until the user names the series."""
    for number in (3, 7):
        write(tmp_path / "study", SeriesHeader("T1 AX", 12, 600), number)
    (study,) = find_studies(tmp_path / "study")
    assert study.chosen["t1n"].name == "series 3"
    assert study.chosen["t1c"].name == "series 7"
    assert "later of two like T1" in study.chosen["t1c"].reason
    (note,) = study.notes
    assert "series 7 is taken for T1 after contrast" in note
    (named,) = find_studies(tmp_path / "study", named={"t1n": "7"})
    assert (list(named.chosen), named.chosen["t1n"].name, named.notes) == (["t1n"], "series 7", ())


@pytest.mark.parametrize(
    ("description", "minutes", "times"),
    [
        ("AX T1 PRE", (3, 7), {}),
        ("t1_mp2rage", (3, 4), {"AcquisitionTime": "100300"}),
        ("t1_vibe_dixon", (3, 4), {"SeriesTime": "100300"}),
        ("AX T1", (3, 7), {"SeriesTime": ""}),
    ],
)
def test_no_contrast_is_guessed_without_a_later_acquisition(
    tmp_path: Path, description: str, minutes: tuple[int, int], times: dict[str, str]
) -> None:
    """A repeated scan before contrast, two images of one acquisition, and headers without times."""
    for number in minutes:
        write(tmp_path / "made", SeriesHeader(description, 12, 600), number)
        change(tmp_path / "made" / f"S{number:03d}", tmp_path / "study", **times)
    (study,) = find_studies(tmp_path / "study")
    assert list(study.chosen) == ["t1n"], reasons(study)


def test_midnight_may_lie_between_two_t1_series(tmp_path: Path) -> None:
    """The later by date and time is taken, not by time alone."""
    for number, day, time in ((3, "20260101", "235500"), (7, "20260102", "000500.25")):
        write(tmp_path / "made", SeriesHeader("T1 AX", 12, 600), number)
        times = {"AcquisitionDate": day, "AcquisitionTime": time}
        change(tmp_path / "made" / f"S{number:03d}", tmp_path / "study", **times)
    (study,) = find_studies(tmp_path / "study")
    assert study.chosen["t1c"].name == "series 7", reasons(study)
    change(tmp_path / "made" / "S003", tmp_path / "other", AcquisitionDate="20260230", AcquisitionTime="")
    (study,) = find_studies(tmp_path / "other")
    assert list(study.chosen) == ["t1n"]


def test_slices_that_are_tilted_by_nothing_are_one_series(tmp_path: Path) -> None:
    """Their direction is 0.000001 in one and -0.000001 in the next."""
    volume = write(tmp_path / "study", SeriesHeader("T1 AX", 12, 600), 1, volume=in_plane("axial", 1))
    for number, path in enumerate(sorted((tmp_path / "study").rglob("I*"))):
        data = pydicom.dcmread(path)
        data.ImageOrientationPatient = [1, 0, (-1) ** number * 1e-6, 0, 1, 0]
        data.save_as(path)
    (study,) = find_studies(tmp_path / "study")
    assert [choice.series.name for choice in study.choices] == ["series 1"], reasons(study)
    assert study.read()["t1n"].data.shape == volume.data.shape


def test_the_best_of_several_is_taken(tmp_path: Path) -> None:
    """3-D before thick slices, original before derived; each with its reason."""
    fine = Volume(image(5, 60).data, orthogonal(AFFINE @ np.diag([1, 1, 0.2, 1])))
    write(tmp_path / "study", SeriesHeader("FLAIR", 100, 9000, 2500), 1)
    write(tmp_path / "study", SeriesHeader("FLAIR 3D", 300, 5000, 1800, three_d=True), 2, volume=fine)
    write(tmp_path / "study", SeriesHeader("FLAIR mpr", 300, 5000, 1800, image_type=("DERIVED", "SECONDARY", "MPR")), 3)
    (study,) = find_studies(tmp_path / "study")
    assert study.chosen["t2f"].name == "series 2"
    said = reasons(study)
    assert "series 1 t2f False series 2 is better: it is a 3-D acquisition" in said
    assert "series 3 t2f False series 2 is better: it is original, this one is derived" in said


def test_one_missing_slice_is_interpolated_and_more_are_refused(tmp_path: Path) -> None:
    """The lost slice is the mean of its neighbours; a larger gap leaves the series out, with the distances."""
    volume = write(tmp_path / "one", DESCRIPTIONS["SIEMENS"]["t2f"], 1, leave_out=[5])
    (study,) = find_studies(tmp_path / "one")
    found = study.read()["t2f"]
    assert found.data.shape == volume.data.shape
    middle = (volume.data[0, :, :, 4].astype(float) + volume.data[0, :, :, 6]) / 2
    assert np.allclose(found.data[0, :, :, 5], middle)
    assert "one missing slice is interpolated" in study.chosen["t2f"].reason
    write(tmp_path / "two", DESCRIPTIONS["SIEMENS"]["t2f"], 1, leave_out=[5, 6])
    (study,) = find_studies(tmp_path / "two")
    with pytest.raises(InputError, match="slices are missing or unevenly spaced"):
        study.read()


def compress(path: Path, how: str) -> None:
    """Store the pixels of a file in a compressed transfer syntax."""
    import SimpleITK

    data = pydicom.dcmread(path)
    if how == "RLE":
        data.compress(pydicom.uid.RLELossless)
    else:
        packed = path.with_suffix(".packed.dcm")
        writer = SimpleITK.ImageFileWriter()
        writer.SetFileName(str(packed))
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(how)
        writer.Execute(SimpleITK.GetImageFromArray(data.pixel_array[None].astype(np.uint16)))
        other = pydicom.dcmread(packed)
        packed.unlink()
        data.file_meta.TransferSyntaxUID, data.PixelData = other.file_meta.TransferSyntaxUID, other.PixelData
        data["PixelData"].is_undefined_length = True
    data.save_as(path)


@pytest.mark.parametrize("how", ["JPEG", "JPEG2000", "RLE"])
def test_compressed_pixels_are_read(tmp_path: Path, how: str) -> None:
    """Lossless JPEG, JPEG 2000 and run lengths, by SimpleITK's own decoders: no further library is needed."""
    volume = write(tmp_path / "study", DESCRIPTIONS["SIEMENS"]["t2f"], 1)
    for path in (tmp_path / "study").rglob("I*"):
        compress(path, how)
    (study,) = find_studies(tmp_path / "study")
    assert np.array_equal(study.read()["t2f"].data, volume.data.astype(np.float32))


def test_an_enhanced_image_of_many_frames_is_one_volume(tmp_path: Path) -> None:
    """Its frames are put in the order of their places; times and spacing are in its functional groups."""
    volume = image(3)
    header = SeriesHeader("AXIAL", 100, 5000)
    write_enhanced_series(tmp_path / "study", volume, header, number=4, study_uid=STUDY, frame_uid=PLACE)
    (study,) = find_studies(tmp_path / "study")
    assert list(study.chosen) == ["t2w"], reasons(study)
    found = study.read()["t2w"]
    assert np.array_equal(found.data, volume.data.astype(np.float32))
    assert np.allclose(found.affine, volume.affine, atol=1e-3)


# Columns: along a row, along a column, from slice to slice; RAS.
PLANES = {
    "axial": np.array([[-0.9, 0, 0], [0, -0.9, 0], [0, 0, 5.0]]),
    "sagittal": np.array([[0, 0, -5.0], [-0.9, 0, 0], [0, -0.9, 0]]),
    "coronal": np.array([[-0.9, 0, 0], [0, 0, 5.0], [0, -0.9, 0]]),
}


def in_plane(plane: str, seed: int, slice_mm: float = 5.0) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = PLANES[plane] @ np.diag([1, 1, slice_mm / 5])
    return Volume(image(seed).data, affine)


@pytest.mark.parametrize("plane", PLANES)
def test_axial_sagittal_and_coronal_slices_lie_where_they_were(tmp_path: Path, plane: str) -> None:
    """Rows, columns and slices along any of the body's axes."""
    volume = in_plane(plane, 2)
    write(tmp_path / "study", DESCRIPTIONS["SIEMENS"]["t2f"], 1, volume=volume)
    (study,) = find_studies(tmp_path / "study")
    found = study.read()["t2f"]
    turned = reorient(found, volume.grid.axes)
    assert np.array_equal(turned.data, volume.data.astype(np.float32))
    assert np.allclose(turned.affine, volume.affine, atol=1e-3)
    assert plane_of(found.grid) == plane


def test_of_equally_thick_series_the_axial_one_is_taken(tmp_path: Path) -> None:
    """But a coronal one of thinner slices before it."""
    for number, (plane, thick) in enumerate((("coronal", 5.0), ("axial", 5.0), ("coronal", 4.5)), 1):
        write(tmp_path / "study", SeriesHeader("FLAIR", 100, 9000, 2500), number, volume=in_plane(plane, number, thick))
    (study,) = find_studies(tmp_path / "study")
    assert study.chosen["t2f"].name == "series 3", reasons(study)
    shutil.rmtree(tmp_path / "study" / "S003")
    (study,) = find_studies(tmp_path / "study")
    assert study.chosen["t2f"].name == "series 2", reasons(study)
    assert "it is axial" in reasons(study)


def test_files_without_preamble_and_a_directory_beside_them_are_read(tmp_path: Path) -> None:
    """As old archives and CDs hold them; the DICOMDIR may be named instead of its folder."""
    volume = write(tmp_path / "cd", DESCRIPTIONS["SIEMENS"]["t2f"], 1)
    for path in (tmp_path / "cd").rglob("I*"):
        bare = pydicom.Dataset()
        bare.update(pydicom.dcmread(path))
        bare.save_as(path, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    index = pydicom.Dataset()
    index.file_meta = pydicom.dataset.FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = index.SOPClassUID = "1.2.840.10008.1.3.10"
    index.file_meta.MediaStorageSOPInstanceUID = index.SOPInstanceUID = pydicom.uid.generate_uid()
    index.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    index.save_as(tmp_path / "cd" / "DICOMDIR", enforce_file_format=True)
    with opened_studies(tmp_path / "cd" / "DICOMDIR") as (study,):
        assert np.array_equal(study.read()["t2f"].data, volume.data.astype(np.float32))
        assert any("DICOMDIR" in note for note in study.notes)


def change(source: Path, into: Path, **values: object) -> None:
    """Copy the files of a series with other values in their headers, each with an image UID of its own."""
    into.mkdir(exist_ok=True, parents=True)
    for path in source.rglob("I*"):
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = pydicom.uid.generate_uid()
        for name, value in values.items():
            setattr(data, name, value)
        data.save_as(into / f"{source.name}{path.name}")


def test_echoes_of_one_series_are_told_apart(tmp_path: Path) -> None:
    """Of a double echo the second is T2 and the first is none of the four."""
    for number, echo in ((1, 12), (2, 95)):
        volume = write(tmp_path / str(number), SeriesHeader("t2 double echo", echo, 3000), 3, volume=image(number))
        change(tmp_path / str(number), tmp_path / "study", EchoNumbers=number, SeriesInstanceUID="1.2.3.77")
    (study,) = find_studies(tmp_path / "study")
    assert study.chosen["t2w"].name == "series 3.2", reasons(study)
    assert "echo time of 12 ms" in reasons(study)
    assert np.array_equal(study.read()["t2w"].data, volume.data.astype(np.float32))


@pytest.mark.parametrize("count", [2, 6])
def test_time_points_without_numbers_are_told_apart_by_their_order(tmp_path: Path, count: int) -> None:
    """The k-th image of a place belongs to the k-th volume; more than four volumes are a dynamic series."""
    for number in range(count):
        write(tmp_path / str(number), DESCRIPTIONS["SIEMENS"]["t2f"], 3, volume=image(number))
        change(tmp_path / str(number), tmp_path / "study", InstanceNumber=100 * number)
    (study,) = find_studies(tmp_path / "study")
    if count == 2:
        assert np.array_equal(study.read()["t2f"].data, image(0).data.astype(np.float32))
    else:
        assert not study.chosen
        assert "6 volumes of the same place" in study.choices[0].reason


def test_copies_of_a_file_count_once(tmp_path: Path) -> None:
    """As exports hold them that were made twice into one folder."""
    volume = write(tmp_path / "study", DESCRIPTIONS["SIEMENS"]["t2f"], 1)
    shutil.copytree(tmp_path / "study" / "S001", tmp_path / "study" / "again")
    (study,) = find_studies(tmp_path / "study")
    assert np.array_equal(study.read()["t2f"].data, volume.data.astype(np.float32))
    assert "12 copies of the same images passed over" in study.notes


def test_two_acquisitions_in_one_series_are_taken_apart(tmp_path: Path) -> None:
    """Slices that lie at one place twice belong to two volumes."""
    first = write(tmp_path / "study", DESCRIPTIONS["SIEMENS"]["t2f"], 1)
    again = image(9)
    for path in write_dicom_series(
        tmp_path / "more",
        again,
        DESCRIPTIONS["SIEMENS"]["t2f"],
        number=1,
        study_uid=STUDY,
        frame_uid=PLACE,
        patient=NAME,
    ):
        data = pydicom.dcmread(path)
        data.AcquisitionNumber, data.SOPInstanceUID = 2, pydicom.uid.generate_uid()
        data.save_as(tmp_path / "study" / f"again{path.name}")
    (study,) = find_studies(tmp_path / "study")
    assert {choice.series.name for choice in study.choices} == {"series 1.1", "series 1.2"}
    assert np.array_equal(study.read()["t2f"].data, first.data.astype(np.float32))


def test_studies_and_patients_are_kept_apart(tmp_path: Path) -> None:
    """A folder a study; two studies of one folder are numbered; two patients in one are refused unless asked for."""
    header = DESCRIPTIONS["SIEMENS"]["t2f"]
    write(tmp_path / "all" / "a", header, 1)
    write(tmp_path / "all" / "b", header, 2, study_uid="1.2.9")
    write(tmp_path / "all" / "b", header, 4, study_uid="1.2.10")
    assert [study.id for study in find_studies(tmp_path / "all")] == ["a", "b_1", "b_2"]
    write(tmp_path / "all" / "b", header, 5, study_uid="1.2.11", patient="Other")
    a, b = find_studies(tmp_path / "all")  # one bad folder does not stop the others
    assert (a.problem, "2 patients" in b.problem) == ("", True)
    (tmp_path / "flat").mkdir()
    for path in (tmp_path / "all" / "b").rglob("I*"):
        shutil.copy(path, tmp_path / "flat" / f"{path.parent.name}{path.name}")
    with pytest.raises(InputError, match="2 patients") as caught:
        find_studies(tmp_path / "flat")
    assert "Other" not in str(caught.value) + b.problem
    assert NAME not in str(caught.value) + b.problem
    assert len(find_studies(tmp_path / "all", by_patient=True)) == 4


def test_two_patients_under_one_study_uid_are_two(tmp_path: Path) -> None:
    """Refused as two patients in one folder are, also where they have subfolders; apart with `by_patient`."""
    header = DESCRIPTIONS["SIEMENS"]["t2f"]
    write(tmp_path / "all", header, 1)
    write(tmp_path / "all", header, 2, patient="Other")
    (tmp_path / "flat").mkdir()
    for path in (tmp_path / "all").rglob("I*"):
        shutil.copy(path, tmp_path / "flat" / f"{path.parent.name}{path.name}")
    with pytest.raises(InputError, match="2 patients"):
        find_studies(tmp_path / "flat")
    assert [len(study.choices) for study in find_studies(tmp_path / "flat", by_patient=True)] == [1, 1]


def test_a_name_that_two_studies_have_stops_no_other(gliomask: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """P1 holds two examinations, and there is a folder P1_2: neither is prepared, and the rest is."""
    for number, (folder, uid) in enumerate((("P1", "1.2.1"), ("P1", "1.2.2"), ("P1_2", "1.2.3")), 1):
        write(tmp_path / "all" / folder, DESCRIPTIONS["SIEMENS"]["t2f"], number, study_uid=uid, volume=image(0, 3))
    brain = np.zeros((1, 24, 24, 24), np.int16)
    brain[0, 6:18, 6:18, 6:18] = 500
    write_volume(tmp_path / "all" / "P3" / "flair.nii.gz", Volume(brain, np.diag([2.0, 2.0, 2.0, 1.0])))
    problems = [(study.id, study.problem) for study in find_studies(tmp_path / "all")]
    assert [name for name, problem in problems if "of the folders P1 and P1_2" in problem] == ["P1_2", "P1_2"]
    options = ("-o", tmp_path / "out", "--skull-strip", "none", "--atlas", "none")
    status, said = gliomask("preprocess", tmp_path / "all", *options)
    assert (status, "2 studies have this name" in said) == (1, True), said
    assert (tmp_path / "out" / "P3" / "P3_flair.nii.gz").is_file()
    assert not (tmp_path / "out" / "P1_2").exists()


@pytest.mark.parametrize("names", [("Anna", "Bert"), ("", "")])
def test_without_ids_each_folder_is_a_study(tmp_path: Path, names: tuple[str, str]) -> None:
    """Neither study UID nor patient's id are there, as after some anonymisations: two folders are not joined."""
    for number, (name, what) in enumerate(zip(names, ("t1n", "t2f"), strict=True), 1):
        write(tmp_path / "made", DESCRIPTIONS["SIEMENS"][what], number)
        ids = {"StudyInstanceUID": "", "PatientID": "", "PatientName": name}
        change(tmp_path / "made" / f"S{number:03d}", tmp_path / "all" / f"P{number}", **ids)
    assert [(study.id, list(study.chosen)) for study in find_studies(tmp_path / "all")] == [
        ("P1", ["t1n"]),
        ("P2", ["t2f"]),
    ]


def test_two_names_without_ids_under_one_study_uid_are_two_patients(tmp_path: Path) -> None:
    """Refused, also where the folder holds nothing else; a name that is only written in another way is the same."""
    for number, (name, what) in enumerate((("Anna", "t1n"), ("ANNA^^^", "t2w"), ("Bert", "t2f")), 1):
        write(tmp_path / "made", DESCRIPTIONS["SIEMENS"][what], number)
        change(tmp_path / "made" / f"S{number:03d}", tmp_path / "flat", PatientID="", PatientName=name)
        if number == 2:
            (study,) = find_studies(tmp_path / "flat")
            assert list(study.chosen) == ["t1n", "t2w"]
    with pytest.raises(InputError, match="holds images of 2 patients") as caught:
        find_studies(tmp_path / "flat")
    assert "Bert" not in str(caught.value)
    assert [len(study.choices) for study in find_studies(tmp_path / "flat", by_patient=True)] == [2, 1]
    for path in (tmp_path / "flat").rglob("*I*"):
        data = pydicom.dcmread(path)
        data.PatientID = "1"
        data.save_as(path)
    with pytest.raises(InputError, match="holds images of 2 patients"):
        find_studies(tmp_path / "flat")


def test_other_files_are_counted_and_damaged_ones_stop_nothing(tmp_path: Path) -> None:
    """Reports and cut headers beside a series; a folder of nothing else is refused and says what it holds."""
    write(tmp_path / "study", DESCRIPTIONS["SIEMENS"]["t2f"], 1)
    (path, *_) = sorted((tmp_path / "study").rglob("I*"))
    report = pydicom.dcmread(path)
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "SR"
    (tmp_path / "rest").mkdir()
    report.save_as(tmp_path / "study" / "report")
    (tmp_path / "study" / "cut").write_bytes(path.read_bytes()[:200])
    (study,) = find_studies(tmp_path / "study")
    assert list(study.chosen) == ["t2f"]
    assert any("DICOM files passed over: 1 structured reports" in note for note in study.notes)
    shutil.copy(tmp_path / "study" / "report", tmp_path / "rest" / "report")
    with pytest.raises(InputError, match=r"none is a usable magnetic resonance image \(1 structured reports\)"):
        find_studies(tmp_path / "rest")


def test_headers_without_spacing_form_no_volume(tmp_path: Path) -> None:
    """They are counted as such."""
    write(tmp_path / "study", DESCRIPTIONS["SIEMENS"]["t2f"], 1)
    for path in (tmp_path / "study").rglob("I*"):
        data = pydicom.dcmread(path)
        del data.PixelSpacing
        data.save_as(path)
    with pytest.raises(InputError, match="without pixel spacing"):
        find_studies(tmp_path / "study")


def test_a_zip_file_is_a_folder_and_a_bomb_is_none(tmp_path: Path) -> None:
    """Unpacked for as long as it is used; a path out of it, a bomb and a cut file are refused."""
    write(tmp_path / "study", DESCRIPTIONS["SIEMENS"]["t2f"], 1)
    archive = Path(shutil.make_archive(str(tmp_path / "case7"), "zip", tmp_path / "study"))
    with opened_studies(archive) as (study,):
        assert study.id == "case7"
        assert study.read()["t2f"].data.any()
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as file:
        file.writestr("../evil", b"x")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(50_000_000))
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:-200])
    for name, what in (
        ("out.zip", "leads out of it"),
        ("bomb.zip", "more than is taken"),
        ("cut.zip", "cannot be unpacked|no such folder"),
    ):
        with pytest.raises(InputError, match=what), opened_studies(tmp_path / name):
            pass
    assert not (tmp_path.parent / "evil").exists()


def test_nothing_of_the_patient_is_said(tmp_path: Path) -> None:
    """Neither names nor descriptions of the headers are in a study's texts."""
    write(tmp_path / "study", SeriesHeader("FLAIR for Meier Eva", 100, 9000, 2500), 1)
    (study,) = find_studies(tmp_path / "study")
    text = repr(study) + reasons(study)
    assert "Meier" not in text.replace(str(tmp_path), "")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    """And one that is not there."""
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="of 1 files none is DICOM"):
        find_studies(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_studies(tmp_path / "none")
