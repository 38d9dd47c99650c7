"""Masks as DICOM objects: programs that are not ours read back the voxels that were written, at the same places."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomask.acquisition.find import find_studies
from gliomask.errors import InputError
from gliomask.exchange import Origin, check_outputs, write_dicom_seg, write_outputs, write_rtstruct
from gliomask.exchange.contours import outline
from gliomask.inference.record import digest_of
from gliomask.labels import get_convention, to_regions
from gliomask.phantom.dicom import DESCRIPTIONS, write_dicom_series
from gliomask.volume import Volume, match_axes, read_volume, write_volume

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
pytest.importorskip("contourpy")

NAME, MODEL = "Meier^Eva", "ab" * 32
ORIGIN = Origin("brats2023", models=(MODEL,))
STUDY, PLACE = "1.2.3.4.5", "1.2.3.4.6"
AXES = {
    "axial": np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]]),
    "sagittal": np.array([[0, 0, -1.0], [-1, 0, 0], [0, -1, 0]]),
    "oblique": np.linalg.qr(np.array([[-0.9, 0.1, 0.2], [0.1, -0.9, 0.3], [0.05, 0.3, 0.9]]))[0],
    "reversed": np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, -1]]),  # its instances are numbered from the top down
}


def tissues(seed: int = 0) -> np.ndarray:
    """A core with enhancing rings around holes, scattered oedema, and single voxels: `(23, 26, 14)`, uneven sizes."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.arange(n) for n in (23, 26, 14)), indexing="ij")
    radius = np.sqrt((x - 10) ** 2 + (y - 12) ** 2 + (1.6 * (z - 6)) ** 2)
    labels = np.zeros(x.shape, np.uint8)
    labels[radius < 9] = 2
    labels[(radius < 6) & (random.random(x.shape) < 0.7)] = 3
    labels[radius < 3] = 1
    labels[random.random(x.shape) < 0.01] = 2
    labels[0, 0, 5] = labels[-1, -1, 13] = 3  # in the corners of the image
    return labels


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., tuple[Volume, list[Path]]]:
    """Write a series with the axes of a name, and return its mask on its own grid and its files."""

    def write(axes: str = "axial", *, number: int = 4, leave_out: tuple[int, ...] = ()) -> tuple[Volume, list[Path]]:
        affine = np.eye(4)
        affine[:3, :3] = AXES[axes] * (0.9, 1.2, 5.0)
        affine[:3, 3] = (11.25, 20.5, -30)
        labels = tissues()
        image = Volume((100 + 50 * labels[None]).astype(np.int16), affine)
        header = DESCRIPTIONS["SIEMENS"]["t1c"]
        options = {"number": number, "study_uid": STUDY, "frame_uid": PLACE, "patient": NAME, "leave_out": leave_out}
        files = write_dicom_series(tmp_path / "study" / axes, image, header, **options)
        return Volume(labels[None], affine), files

    return write


def enhanced(folder: Path, files: list[Path]) -> Path:
    """The same series in one file of many frames, whose order is that of the files' names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = [pydicom.dcmread(file) for file in sorted(files)]
        frames = highdicom.legacy.LegacyConvertedEnhancedMRImage(images, "1.2.3.7", 7, "1.2.3.8", 1)
    folder.mkdir(parents=True)
    frames.save_as(folder / "frames", enforce_file_format=True)
    return folder / "frames"


def read_by_dcmqi(path: Path, folder: Path, count: int) -> list[Volume]:
    program = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent)) or shutil.which(
        "segimage2itkimage"
    )
    if program is None:
        pytest.skip("dcmqi is not installed")
    folder.mkdir()
    words = ("--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nii")
    subprocess.run([program, *map(str, words)], check=True, capture_output=True)
    return [read_volume(folder / f"{number}.nii.gz") for number in range(1, count + 1)]


def filled(path: Path, grid: Volume, name: str) -> np.ndarray:
    """The voxels within the contours of a structure, by matplotlib and the contours' places in the patient alone."""
    from matplotlib.path import Path as Line

    found = pydicom.dcmread(path)
    number = {roi.ROIName: roi.ROINumber for roi in found.StructureSetROISequence}[name]
    (item,) = (item for item in found.ROIContourSequence if item.ReferencedROINumber == number)
    to_index = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ grid.affine)
    inside = np.zeros(grid.data.shape[1:], bool)
    x, y = (axis.ravel() for axis in np.meshgrid(*(np.arange(n) for n in inside.shape[:2]), indexing="ij"))
    for contour in item.get("ContourSequence", []):
        places = np.array(contour.ContourData, float).reshape(-1, 3)
        indices = places @ to_index[:3, :3].T + to_index[:3, 3]
        (z,) = set(np.round(indices[:, 2]).astype(int))
        assert np.abs(indices[:, 2] - z).max() < 1e-3
        piece = Line(np.vstack([indices[:, :2], indices[:1, :2]])).contains_points(np.c_[x, y])
        assert not (inside[:, :, z] & piece.reshape(inside.shape[:2])).any(), "pieces do not overlap"
        inside[:, :, z] |= piece.reshape(inside.shape[:2])
    return inside


@pytest.mark.parametrize("axes", AXES)
def test_dcmqi_reads_the_voxels_of_a_segmentation_back(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path, axes: str
) -> None:
    """Of tissues and of regions, which overlap."""
    mask, files = series(axes)
    expected = {
        "tissues": [mask.data[0] == value for value in (1, 2, 3)],
        "regions": list(to_regions(mask.data[0], get_convention("brats2023"))),
    }
    for segments, truth in expected.items():
        path = tmp_path / f"{segments}.dcm"
        write_dicom_seg(path, mask, files, ORIGIN, segments=segments)
        for found, one in zip(read_by_dcmqi(path, tmp_path / segments, 3), truth, strict=True):
            assert mask.grid.difference(match_axes(found, mask.grid).grid) is None
            assert np.array_equal(match_axes(found, mask.grid).data[0] > 0, one)


@pytest.mark.parametrize("axes", AXES)
def test_filling_the_contours_gives_the_voxels_back(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path, axes: str
) -> None:
    """Also rings with holes, in every region and direction of the slices."""
    mask, files = series(axes)
    write_rtstruct(tmp_path / "rt.dcm", mask, files, ORIGIN)
    truth = to_regions(mask.data[0], get_convention("brats2023"))
    for region, one in zip(("WT", "TC", "ET"), truth, strict=True):
        assert np.array_equal(filled(tmp_path / "rt.dcm", mask, f"gliomask_{region}"), one)
    found = pydicom.dcmread(tmp_path / "rt.dcm")
    images = {pydicom.dcmread(file).SOPInstanceUID: pydicom.dcmread(file) for file in files}
    for contour in found.ROIContourSequence[0].ContourSequence:
        image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        normal = np.cross(image.ImageOrientationPatient[:3], image.ImageOrientationPatient[3:])
        places = np.array(contour.ContourData, float).reshape(-1, 3)
        assert np.abs((places - image.ImagePositionPatient) @ normal).max() < 2e-3


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian's package dicom3tools)")
@pytest.mark.parametrize("kind", ["single frames", "many frames", "no tumour"])
def test_dciodvfy_finds_no_error(series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path, kind: str) -> None:
    """In segmentations and structure sets; of the phantom's name it warns."""
    mask, files = series("oblique")
    if kind == "many frames":
        files = [enhanced(tmp_path / "enhanced", files)]
    if kind == "no tumour":
        mask = Volume(np.zeros_like(mask.data), mask.affine)
    write_dicom_seg(tmp_path / "seg.dcm", mask, files, ORIGIN, segments="regions")
    write_rtstruct(tmp_path / "rt.dcm", mask, files, ORIGIN)
    for name, what in (("seg.dcm", "Segmentation"), ("rt.dcm", "RTStructureSet")):
        said = subprocess.run(["dciodvfy", str(tmp_path / name)], capture_output=True, text=True).stderr
        assert what in said.splitlines()
        assert not [line for line in said.splitlines() if line.startswith("Error")], said


def test_contours_enclose_their_voxels_with_one_line_for_each_piece() -> None:
    """In random slices: a piece with several holes, holes within holes, and holes at one height."""
    from matplotlib.path import Path as Line

    random = np.random.default_rng(5)
    places = np.argwhere(np.ones((9, 8), bool))
    for _ in range(300):
        mask = random.random((9, 8)) < random.uniform(0.2, 0.95)
        total = np.zeros(mask.shape, int)
        area = 0.0
        for ring in outline(mask):
            x, y = ring.T
            area += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
            total += Line(np.vstack([ring, ring[:1]])).contains_points(places).reshape(mask.shape)
        assert np.array_equal(total, mask)
        assert abs(area - mask.sum()) <= 0.04 * 8 * mask.sum()
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    (line,) = outline(ring)
    assert len(np.unique(line, axis=0)) == 17  # eight corners each are cut, and the channel reaches the outer line


def test_a_series_of_many_frames_in_one_file_is_referred_to_by_frame(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path
) -> None:
    """Whatever the order of its frames is."""
    mask, files = series("oblique")
    file = enhanced(tmp_path / "enhanced", files)
    write_dicom_seg(tmp_path / "seg.dcm", mask, [file], ORIGIN)
    write_rtstruct(tmp_path / "rt.dcm", mask, [file], ORIGIN)
    for value, found in enumerate(read_by_dcmqi(tmp_path / "seg.dcm", tmp_path / "out", 3), 1):
        assert np.array_equal(match_axes(found, mask.grid).data[0] > 0, mask.data[0] == value)
    assert np.array_equal(filled(tmp_path / "rt.dcm", mask, "gliomask_ET"), mask.data[0] == 3)
    source, seg = pydicom.dcmread(file), pydicom.dcmread(tmp_path / "seg.dcm")
    for group in seg.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        there = source.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        here = group.PlanePositionSequence[0]
        assert here.ImagePositionPatient == there.ImagePositionPatient


def test_a_segmentation_says_what_it_belongs_to_and_what_made_it(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path
) -> None:
    """Series, every image, frame of reference, codes, model; and every slice has a frame for each segment."""
    mask, files = series()
    mask.data[mask.data == 3] = 0
    write_dicom_seg(tmp_path / "seg.dcm", mask, files, ORIGIN)
    seg, images = pydicom.dcmread(tmp_path / "seg.dcm"), [pydicom.dcmread(file) for file in files]
    uids = {image.SOPInstanceUID for image in images}
    (referred,) = seg.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == uids
    assert (seg.FrameOfReferenceUID, seg.StudyInstanceUID) == (PLACE, STUDY)
    assert (seg.PatientName, seg.PatientID) == (NAME, NAME)
    assert seg.NumberOfFrames == 3 * len(files)
    for group in seg.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID in uids
    assert "research use" in seg.SeriesDescription
    assert [item.SegmentLabel.split()[0] for item in seg.SegmentSequence] == ["NCR", "ED", "ET"]
    for item, code in zip(seg.SegmentSequence, ("6574001", "79654002", "C113842"), strict=True):
        assert item.SegmentedPropertyTypeCodeSequence[0].CodeValue == code
        assert item.AnatomicRegionSequence[0].CodeValue == "12738006"
        assert MODEL in item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
        assert item.SegmentAlgorithmType == "AUTOMATIC"


def test_regions_are_shown_where_tissues_were_not_told_apart(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path
) -> None:
    """Of a model of the whole tumour alone; a mask that was edited by hand is not called automatic."""
    mask, files = series()
    origin = replace(ORIGIN, regions=("WT",), edited=True)
    write_dicom_seg(tmp_path / "seg.dcm", mask, files, origin)
    (item,) = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert (item.SegmentLabel, item.SegmentAlgorithmType) == ("WT whole tumour", "SEMIAUTOMATIC")


def test_a_mask_without_tumour_is_written_with_empty_segments(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path
) -> None:
    """Which is a finding, and not the same as no segmentation."""
    mask, files = series()
    write_dicom_seg(tmp_path / "seg.dcm", Volume(mask.data * 0, mask.affine), files, ORIGIN)
    write_rtstruct(tmp_path / "rt.dcm", Volume(mask.data * 0, mask.affine), files, ORIGIN)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.NumberOfFrames, seg.pixel_array.any()) == (3 * len(files), False)
    assert not filled(tmp_path / "rt.dcm", mask, "gliomask_WT").any()


def test_a_slice_that_is_missing_in_the_series_is_missing_in_the_objects(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path
) -> None:
    """All others are at their places."""
    mask, files = series(leave_out=(6,))
    write_dicom_seg(tmp_path / "seg.dcm", mask, files, ORIGIN)
    write_rtstruct(tmp_path / "rt.dcm", mask, files, ORIGIN)
    expected = mask.data[0] == 3
    expected[:, :, 6] = False
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.NumberOfFrames == 3 * len(files)
    assert np.count_nonzero(seg.pixel_array[2 * len(files) :]) == expected.sum()
    assert np.array_equal(filled(tmp_path / "rt.dcm", mask, "gliomask_ET"), expected)


def test_odd_headers_are_filed_as_they_are_and_nothing_is_said_of_them(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Values that DICOM forbids, missing ones, a name in Japanese, and slices whose directions differ slightly."""
    mask, files = series()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, file in enumerate(files):
            header = pydicom.dcmread(file)
            header.SpecificCharacterSet = "ISO_IR 192"
            header.PatientName, header.PatientBirthDate = "山田^太郎", "19991399"
            header.StudyID, header.PatientAge = "Meiers study of the head", "about 50"
            header.ImageOrientationPatient[0] -= 1e-7 * number
            for name in ("AccessionNumber", "PatientSex", "SliceThickness", "PositionReferenceIndicator", "StudyTime"):
                del header[name]
            header.save_as(file)
    write_dicom_seg(tmp_path / "seg.dcm", mask, files, ORIGIN)
    write_rtstruct(tmp_path / "rt.dcm", mask, files, ORIGIN)
    assert capfd.readouterr() == ("", "")
    for name in ("seg.dcm", "rt.dcm"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pydicom.dcmread(tmp_path / name)
            assert (found.PatientName, found.AccessionNumber) == ("山田^太郎", "")
            assert found.StudyID == "Meiers study of the head"
    assert np.array_equal(filled(tmp_path / "rt.dcm", mask, "gliomask_ET"), mask.data[0] == 3)


def test_what_no_object_can_be_made_of_is_refused(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path
) -> None:
    """With the reason, and no file is left."""
    mask, files = series()
    path = tmp_path / "seg.dcm"
    shifted = Volume(mask.data, mask.affine + np.outer([1, 0, 0, 0], [0, 0, 0, 3.0]))
    with pytest.raises(InputError, match="does not lie on the grid of the DICOM series"):
        write_dicom_seg(path, shifted, files, ORIGIN)
    with pytest.raises(InputError, match="are not in brats2021"):
        write_dicom_seg(path, mask, files, Origin("brats2021"))
    with pytest.raises(InputError, match="choice of segments"):
        write_dicom_seg(path, mask, files, ORIGIN, segments="lesions")
    _, others = series("sagittal", number=5)
    with pytest.raises(InputError, match="belongs to another series"):
        write_dicom_seg(path, mask, [*files, *others], ORIGIN)
    with pytest.raises(InputError, match="form no volume"):
        write_rtstruct(path, mask, files[:3], ORIGIN)
    header = pydicom.dcmread(files[3])
    del header.FrameOfReferenceUID
    header.save_as(files[3])
    with pytest.raises(InputError, match="FrameOfReferenceUID"):
        write_rtstruct(path, mask, files, ORIGIN)
    files[3].write_bytes(b"no image")
    with pytest.raises(InputError, match="is no DICOM image"):
        write_rtstruct(path, mask, files, ORIGIN)
    assert not path.exists()


def test_outputs_are_kept_as_long_as_they_show_the_mask_that_is_there(
    series: Callable[..., tuple[Volume, list[Path]]], tmp_path: Path
) -> None:
    """The one that is missing is made, and both are made again after the mask was edited."""
    mask, _ = series()
    (study,) = find_studies(tmp_path / "study")
    path = tmp_path / "study.nii.gz"
    write_volume(path, mask)
    facts = {
        "space": "t1c",
        "mask": digest_of(path.read_bytes()),
        "volumes_ml": {"WT": 1, "TC": 1, "ET": 1},
        "request": {"labels": "brats2023", "models": [MODEL]},
    }
    (tmp_path / "study.json").write_text(json.dumps(facts))
    both = ("nifti", "dicom-seg", "rtstruct")
    seg, rt = tmp_path / "study_seg.dcm", tmp_path / "study_rtstruct.dcm"
    assert write_outputs(study, path, ("nifti",), "tissues") == []
    assert write_outputs(study, path, both[:2], "tissues") == [seg]
    assert write_outputs(study, path, both, "tissues") == [rt]
    assert write_outputs(study, path, both, "tissues") == []
    assert write_outputs(study, path, both, "regions") == [seg]
    seg.write_bytes(seg.read_bytes()[:5000])  # cut short
    assert write_outputs(study, path, both, "regions") == [seg]
    mask.data[0, 3, 3, 3] = 2
    write_volume(path, mask)
    assert write_outputs(study, path, both, "regions") == [seg, rt]
    assert pydicom.dcmread(seg).SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"


def test_wishes_that_cannot_be_met_are_refused_first(
    series: Callable[..., tuple[Volume, list[Path]]],
    gliomask: Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before anything is computed: unknown names, images that are not DICOM, the atlas, and missing libraries."""
    mask, _ = series()
    write_volume(tmp_path / "raw" / "t1c.nii.gz", mask)
    raw = ("predict", "--raw", "-i", tmp_path / "raw", "-o", tmp_path / "out", "--output-type")
    cases = {
        ("dicom-seg",): "its images are not DICOM",
        ("nifti,dicomseg",): "did you mean 'dicom-seg'",
        ("rtstruct", "--space", "prepared"): "must lie on a series",
        ("rtstruct", "--space", "atlas"): "must lie on a series",
        ("dicom-seg", "--segments", "lesions"): "unknown value of --segments",
    }
    for words, what in cases.items():
        status, said = gliomask(*raw, *words)
        assert (status, what in said) == (2, True), said
    status, said = gliomask("predict", "-i", tmp_path, "-o", tmp_path / "out", "--output-type", "dicom-seg")
    assert (status, "--output-type needs --raw" in said) == (2, True)
    assert not (tmp_path / "out").exists()
    for library, output in (("highdicom", "dicom-seg"), ("contourpy", "rtstruct")):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(InputError, match="the extra dicom"):
            check_outputs((output,), "tissues", "reference")
