"""Bad raw input: refused or passed over with a message, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliomask.acquisition.find import find_studies, opened_studies
from gliomask.acquisition.prepare_study import describe_series
from gliomask.acquisition.preprocess import quality_warnings
from gliomask.acquisition.study import Series
from gliomask.cases import survey
from gliomask.errors import InputError
from gliomask.phantom.dicom import DESCRIPTIONS, SeriesHeader, write_dicom_series
from gliomask.volume import Volume, read_volume, write_volume
from raw_study import write_raw_study

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

FLAIR = DESCRIPTIONS["SIEMENS"]["t2f"]
Command = Callable[..., tuple[int, str]]


def write(folder: Path, header: SeriesHeader = FLAIR, number: int = 1, slices: int = 12, **more: str) -> list[Path]:
    data = np.random.default_rng(number).integers(1, 3000, (1, 20, 24, slices)).astype(np.int16)
    volume = Volume(data, np.diag([-0.9, -0.9, 5.0, 1.0]))
    places = {"study_uid": "1.2.3", "frame_uid": "1.2.4", **more}
    return write_dicom_series(folder / f"S{number}", volume, header, number=number, **places)


def edit(paths: list[Path], **values: object) -> None:
    for path in paths:
        data = pydicom.dcmread(path)
        for name, value in values.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)
        data.save_as(path)


def no_spacing(folder: Path) -> None:
    edit(write(folder), PixelSpacing=None)


def ct(folder: Path) -> None:
    edit(write(folder), SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT")


def captures(folder: Path) -> None:
    edit(write(folder), SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT")


def states(folder: Path) -> None:
    edit(write(folder), SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1", Modality="PR")


def documents(folder: Path) -> None:
    edit(write(folder), SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", Modality="DOC")


def mosaic(folder: Path) -> None:
    edit(write(folder), ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])


def burnt_in(folder: Path) -> None:
    edit(write(folder), BurnedInAnnotation="YES")


def subtraction(folder: Path) -> None:
    edit(write(folder), ImageType=["DERIVED", "PRIMARY", "M", "SUBTRACT"])


def localizer(folder: Path) -> None:
    write(folder, SeriesHeader("AAHead_Scout", 4, 20), slices=3)


def few_slices(folder: Path) -> None:
    write(folder, slices=4)


def gaps(folder: Path) -> None:
    for path in write(folder)[4:6]:
        path.unlink()


def uneven(folder: Path) -> None:
    for index, path in enumerate(write(folder)):
        edit([path], ImagePositionPatient=[0, 0, 5 * index + (2 if index > 5 else 0)])


def cut_pixels(folder: Path) -> None:
    for path in write(folder):
        path.write_bytes(path.read_bytes()[:-100])


def encrypted(folder: Path) -> None:
    for path in write(folder):
        content = path.read_bytes()
        path.write_bytes(content[:132] + bytes(value ^ 0x5A for value in content[132:]))


BAD = {
    "no spacing": (no_spacing, "12 without pixel spacing, position or orientation"),
    "a CT": (ct, "12 images of modality CT"),
    "secondary captures": (captures, "12 secondary captures"),
    "presentation states": (states, "12 presentation states"),
    "PDF": (documents, "12 documents"),
    "mosaic": (mosaic, "12 Siemens mosaic images, which are not supported"),
    "burnt in": (burnt_in, "text or colour is burnt into its pixels"),
    "subtraction": (subtraction, "a subtraction, by its image type"),
    "localizer only": (localizer, "a localizer or calibration, by its description"),
    "few slices": (few_slices, "it has 4 slices only"),
    "missing slices": (gaps, "slices are missing or unevenly spaced"),
    "uneven slices": (uneven, "slices are missing or unevenly spaced"),
    "cut short": (cut_pixels, "12 cut short"),
    "encrypted": (encrypted, "damaged or encrypted|not images"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_study_that_fits_nothing_is_refused_by_every_command(gliomask: Command, tmp_path: Path, what: str) -> None:
    """With status 2 and the reason, and nothing is written."""
    import re

    make, reason = BAD[what]
    make(tmp_path / "study")
    for words in (
        ("check", tmp_path / "study"),
        ("predict", "--raw", "-i", tmp_path / "study", "-o", tmp_path / "out"),
    ):
        status, said = gliomask(*words)
        assert status == 2, said
        assert re.search(reason, said), said
        assert "no case found" not in said
    assert not (tmp_path / "out").exists()


def test_what_is_no_image_is_counted_beside_a_series_that_is(tmp_path: Path) -> None:
    """Each kind with its number; a file that is cut short leaves a gap of one slice, which is said."""
    (path, *_) = write(tmp_path / "study")[6:]
    path.write_bytes(path.read_bytes()[:-100])
    for number, make in enumerate((ct, states), 2):
        make(tmp_path / "other")
        for index, file in enumerate((tmp_path / "other").rglob("I*")):
            file.rename(tmp_path / "study" / f"X{number}{index}")
    (study,) = find_studies(tmp_path / "study")
    assert list(study.chosen) == ["t2f"]
    assert {note.removeprefix("DICOM files passed over: ") for note in study.notes} == {
        "12 images of modality CT",
        "12 presentation states",
        "1 cut short",
    }
    assert "one missing slice is interpolated" in study.chosen["t2f"].reason


def test_a_study_of_another_kind_beside_good_ones_is_named(gliomask: Command, tmp_path: Path) -> None:
    """The good ones are shown, the bad one is listed, and the status is 1."""
    write(tmp_path / "all" / "good")
    write(tmp_path / "all" / "good2", study_uid="1.2.9")
    edit(write(tmp_path / "all" / "scan", study_uid="1.2.10"), SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT")
    status, said = gliomask("check", tmp_path / "all")
    assert status == 1
    assert "2 can be prepared" in said
    assert "12 images of modality CT" in said


def test_an_archive_of_very_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is unpacked."""
    monkeypatch.setattr("gliomask.acquisition.find._MOST_FILES", 3)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as file:
        for number in range(4):
            file.writestr(f"{number}", b"x")
    with pytest.raises(InputError, match="holds 4 files"), opened_studies(tmp_path / "many.zip"):
        pass


def test_poor_alignment_and_an_implausible_brain_are_warned_of() -> None:
    """By the overlap of each brain with the common one, with the atlas, and by the volume."""
    good = {"overlap_t1c": 0.96, "overlap_t2f": 0.95, "overlap_atlas": 0.9, "brain_ml": 1400.0}
    assert quality_warnings(good) == []
    assert "the brain of t2f overlaps" in quality_warnings({**good, "overlap_t2f": 0.7})[0]
    assert "the brain of the atlas overlaps" in quality_warnings({**good, "overlap_atlas": 0.6})[0]
    assert "the brain mask holds 300 mL" in quality_warnings({**good, "brain_ml": 300.0})[0]


def test_with_strict_a_poor_preparation_ends_with_status_1(gliomask: Command, tmp_path: Path) -> None:
    """The case is written all the same, and its JSON has the warning."""
    brain = np.zeros((1, 24, 24, 24), np.int16)
    brain[0, 6:18, 6:18, 6:18] = 500  # 12 mL of brain
    write_volume(tmp_path / "study" / "t2f.nii.gz", Volume(brain, np.diag([2.0, 2.0, 2.0, 1.0])))
    options = ("--skull-strip", "none", "--atlas", "none")
    status, said = gliomask("preprocess", tmp_path / "study", "-o", tmp_path / "cases", *options, "--strict")
    assert status == 1, said
    assert "looks poor: the brain mask holds 12 mL" in said
    record = json.loads((tmp_path / "cases" / "study" / "preprocess.json").read_text())
    assert any("the brain mask holds" in text for text in record["warnings"])
    assert (tmp_path / "cases" / "study" / "study_flair.nii.gz").is_file()


def test_an_image_that_disappears_fails_its_study_only(
    gliomask: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of one study is deleted after its header was read: the other study is predicted."""
    brain = np.zeros((1, 24, 24, 24), np.int16)
    brain[0, 6:18, 6:18, 6:18] = 500
    for name in ("a", "b"):
        write_volume(tmp_path / "studies" / name / "t2f.nii.gz", Volume(brain, np.diag([2.0, 2.0, 2.0, 1.0])))

    def describe(series: Series) -> str:
        if series.files[0].parent.name == "a":
            series.files[0].unlink(missing_ok=True)
        return describe_series(series)

    monkeypatch.setattr("gliomask.acquisition.prepare_study.describe_series", describe)
    options = ("--skull-strip", "none", "--atlas", "none")
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", "-o", tmp_path / "out", *options)
    assert status == 1, said
    assert "t2f.nii.gz: no such file" in said
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["b.nii.gz"]
    assert "a," in (tmp_path / "out" / "failed.csv").read_text()


def test_a_corrected_mask_is_neither_kept_nor_lost_for_other_images(gliomask: Command, tmp_path: Path) -> None:
    """As after the numbers of a patient's examinations shifted: the study fails, and the others are done."""
    brain = np.zeros((1, 24, 24, 24), np.int16)
    brain[0, 6:18, 6:18, 6:18] = 500
    for name in ("a", "b"):
        write_volume(tmp_path / "studies" / name / "t2f.nii.gz", Volume(brain, np.diag([2.0, 2.0, 2.0, 1.0])))
    options = ("-o", tmp_path / "out", "--skull-strip", "none", "--atlas", "none")
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", *options)
    assert status == 0, said
    mask = tmp_path / "out" / "a.nii.gz"
    found = read_volume(mask, mask=True)
    corrected = found.data.copy()
    corrected[0, 8, 8, 8] = 2
    write_volume(mask, Volume(corrected, found.affine))
    content = mask.read_bytes()
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", *options)
    assert (status, "the mask was changed after it was written; it is kept" in said) == (0, True)
    write_volume(tmp_path / "studies" / "a" / "t2f.nii.gz", Volume(brain + 1, np.diag([2.0, 2.0, 2.0, 1.0])))
    (tmp_path / "out" / "b.nii.gz").unlink()
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", *options)
    assert (status, "made for other images than those of this study now" in " ".join(said.split())) == (1, True), said
    assert mask.read_bytes() == content
    assert (tmp_path / "out" / "b.nii.gz").is_file()
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", *options, "--overwrite")
    assert (status, mask.read_bytes() == content) == (0, False), said


@pytest.mark.parametrize("place", ["studies/out", "studies/RAW", "studies"])
def test_what_was_written_into_the_studies_is_no_study(tmp_path: Path, place: str) -> None:
    """Masks and prepared images in the output are not taken for raw images; other files there are."""
    raw = write_raw_study(tmp_path)
    studies = raw.images.parent
    before = [study.id for study in find_studies(studies)]
    output = tmp_path / place
    shutil.copytree(raw.output, output, dirs_exist_ok=True)
    shutil.copy(next(raw.images.glob("*.nii.gz")), output / "RAW_seg.dcm")  # of which only the name is looked at
    assert [study.id for study in find_studies(studies, output=output)] == before == ["RAW"]
    (study,) = find_studies(studies, output=output)
    assert {series.files[0].parent for series in study.chosen.values()} == {raw.images}
    assert len(study.choices) == 2
    assert len(find_studies(studies)) > 1 or len(find_studies(studies)[0].choices) > 2


def write_sequences(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        data = np.random.default_rng(number).integers(1, 99, (1, 8, 8, 8)).astype(np.int16)
        write_volume(folder / f"{name}.nii.gz", Volume(data, np.diag([8.0, 8.0, 8.0, 1.0])))


def chosen(folder: Path) -> dict[str, dict[str, str]]:
    """Return the names of the chosen series of each study."""
    return {study.id: {name: one.name for name, one in study.chosen.items()} for study in find_studies(folder)}


def test_two_patients_in_one_folder_of_volumes_are_two_studies(tmp_path: Path) -> None:
    """They are told apart by the ids in the names, as `check` does, with a note; other files go with their id."""
    for patient in ("ANNA", "BERT"):
        write_sequences(tmp_path / "flat", *(f"{patient}_{name}" for name in ("t1", "t1ce", "flair", "seg", "adc")))
    anna, bert = find_studies(tmp_path / "flat")
    for study, patient in ((anna, "ANNA"), (bert, "BERT")):
        assert study.id == patient
        assert len(study.choices) == 5
        assert all(choice.series.name.startswith(patient) for choice in study.choices)
        assert "the 2 ids in the names (ANNA, BERT)" in study.notes[0]
    assert {case.id for case in survey(tmp_path / "flat").cases} == {"ANNA", "BERT"}


def test_ids_that_may_be_two_patients_are_not_joined(tmp_path: Path) -> None:
    """Where no sequence is there twice, nothing tells; the orientation of slices and a missing id are no patients."""
    write_sequences(tmp_path / "flat", "ANNA_t1", "BERT_flair")
    (study,) = find_studies(tmp_path / "flat")
    assert "2 ids (ANNA, BERT)" in study.problem
    with pytest.raises(InputError, match="same id"):
        study.read()
    write_sequences(tmp_path / "one" / "P1", "AX_t1", "SAG_T1", "ax-3D_flair", "P1_t2")
    assert [(study.id, study.problem, study.notes) for study in find_studies(tmp_path / "one")] == [("P1", "", ())]
    write_sequences(tmp_path / "numbered", "3_ax_t1", "11_ax_flair")  # numbers of series
    (study,) = find_studies(tmp_path / "numbered")
    assert (study.id, study.problem, set(study.chosen)) == ("numbered", "", {"t1n", "t2f"})
    (note,) = study.notes
    assert "begin (11, 3) are taken for those of series" in note
    write_sequences(tmp_path / "padded", "001_t1", "002_flair")  # may be two patients
    assert "2 ids (001, 002)" in find_studies(tmp_path / "padded")[0].problem


def test_initials_and_registered_images_take_no_other_images_place(tmp_path: Path) -> None:
    """As in the names of prepared cases."""
    write_sequences(tmp_path / "P012", *(f"P012_KM_{name}" for name in ("t1", "t1ce", "flair")))
    write_sequences(tmp_path / "A", "FLAIR", "A_T1_to_FLAIR")
    found = chosen(tmp_path)
    assert {name: one.removesuffix(".nii.gz") for name, one in found["P012"].items()} == {
        "t1n": "P012_KM_t1",
        "t1c": "P012_KM_t1ce",
        "t2f": "P012_KM_flair",
    }
    assert found["A"] == {"t2f": "FLAIR.nii.gz"}


def test_a_folder_for_each_sequence_is_one_raw_study(tmp_path: Path) -> None:
    """As for prepared cases; folders T1 and T2 that hold other sequences are time points."""
    for name in ("t1", "t1ce", "flair"):
        write_sequences(tmp_path / "P1" / name.upper(), name)
        write_sequences(tmp_path / "P2" / name.upper() / "NIFTI", "image")
        write_sequences(tmp_path / "P4" / name.upper(), f"P4_{name}", "other")
    for time in ("T1", "T2"):
        write_sequences(tmp_path / "P3" / time, "t1", "flair")
    found = chosen(tmp_path)
    three = {"t1n", "t1c", "t2f"}
    assert {name: set(one) for name, one in found.items()} == {
        "P1": three,
        "P2": three,
        "P4": three,
        "P3_T1": {"t1n", "t2f"},
        "P3_T2": {"t1n", "t2f"},
    }
    assert found["P2"]["t1c"] == "T1CE/NIFTI/image.nii.gz"
    study = next(study for study in find_studies(tmp_path, named={}) if study.id == "P1")
    assert study.chosen["t1c"].is_called("t1ce.nii.gz")
    assert set(chosen(tmp_path / "P1")) == {"P1"}


def test_a_zip_file_of_older_tools_of_windows_has_its_folders(tmp_path: Path) -> None:
    """They separate folders by backslashes, and a path out of it is refused all the same."""
    write_sequences(tmp_path / "S", "t1", "flair")
    for name, folders in (("good.zip", ("P1\\", "P2\\")), ("evil.zip", ("..\\",))):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for folder in folders:
                for image in (tmp_path / "S").iterdir():
                    member = zipfile.ZipInfo("x")
                    member.filename = f"{folder}{image.name}"
                    file.writestr(member, image.read_bytes())
    with opened_studies(tmp_path / "good.zip") as studies:
        assert [(study.id, set(study.chosen)) for study in studies] == [("P1", {"t1n", "t2f"}), ("P2", {"t1n", "t2f"})]
    with pytest.raises(InputError, match="leads out"), opened_studies(tmp_path / "evil.zip"):
        pass


def test_linked_folders_hold_raw_studies(tmp_path: Path) -> None:
    """Volumes and DICOM files, as for prepared cases; a circle of links ends."""
    write_sequences(tmp_path / "all" / "P1", "t1")
    write_sequences(tmp_path / "store" / "x", "t1")
    write(tmp_path / "store" / "y")
    try:
        (tmp_path / "all" / "P2").symlink_to(tmp_path / "store" / "x")
        (tmp_path / "all" / "P3").symlink_to(tmp_path / "store" / "y")
        (tmp_path / "all" / "P1" / "up").symlink_to(tmp_path / "all")
    except OSError:
        pytest.skip("links cannot be made here")
    assert {name: set(one) for name, one in chosen(tmp_path / "all").items()} == {
        "P1": {"t1n"},
        "P2": {"t1n"},
        "P3": {"t2f"},
    }


def test_damaged_volumes_beside_dicom_studies_are_a_study_that_fails(tmp_path: Path) -> None:
    """They are named like sequences; masks beside DICOM are none."""
    for number, name in enumerate(("P1", "P3")):
        write(tmp_path / name, study_uid=f"1.2.{number}")
    write_sequences(tmp_path / "masks", "P1_seg")
    (tmp_path / "P2").mkdir()
    for name in ("t1", "flair"):
        (tmp_path / "P2" / f"{name}.nii.gz").write_bytes(b"broken")
    found = chosen(tmp_path)
    assert {name: set(one) for name, one in found.items()} == {"P1": {"t2f"}, "P2": set(), "P3": {"t2f"}}
    with pytest.raises(InputError, match="P2: none of its 2 images is a usable"):
        find_studies(tmp_path)[1].check()


def test_the_only_good_study_keeps_the_name_of_its_folder(tmp_path: Path) -> None:
    """The others fail by name; series in folders of their own are one study with what is unusable in it."""
    write(tmp_path / "all" / "P1")
    ct_of = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}
    edit(write(tmp_path / "all" / "P2", study_uid="1.2.9", patient="BERT"), **ct_of)
    write(tmp_path / "all" / "P3", study_uid="1.2.10")
    for path in (tmp_path / "all" / "P3").rglob("I*"):
        path.write_bytes(path.read_bytes()[:200])
    good, *bad = find_studies(tmp_path / "all")
    assert (good.id, list(good.chosen), good.notes) == ("P1", ["t2f"], ())
    assert [(study.id, "none of its DICOM files is a usable" in study.problem) for study in bad] == [
        ("P2", True),
        ("P3", True),
    ]
    shutil.rmtree(tmp_path / "all" / "P3")
    shutil.rmtree(tmp_path / "all" / "P2")
    write_sequences(tmp_path / "all" / "P2", "t1")
    assert [study.id for study in find_studies(tmp_path / "all")] == ["P1", "P2"]
    write(tmp_path / "one", number=1)
    edit(write(tmp_path / "one", number=2), SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT")
    (study,) = find_studies(tmp_path / "one")
    assert (study.id, study.notes) == ("one", ("DICOM files passed over: 12 images of modality CT",))
    write(tmp_path / "anna" / "MR")
    edit(write(tmp_path / "anna" / "CT", study_uid="1.2.9"), **ct_of)  # of the same patient
    (study,) = find_studies(tmp_path / "anna")
    assert (study.id, study.notes) == ("anna", ("DICOM files passed over: 12 images of modality CT",))
