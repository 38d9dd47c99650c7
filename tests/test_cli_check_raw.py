"""What `check` shows of raw studies, the choice of series by the user, and what is kept of it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliomask.acquisition.find import find_studies
from gliomask.acquisition.study import name_series
from gliomask.acquisition.table import study_record, write_study_record
from gliomask.phantom.dicom import DESCRIPTIONS, SeriesHeader, write_dicom_series
from gliomask.volume import Volume, write_volume

pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")

Command = Callable[..., tuple[int, str]]
NAME = "Meier^Eva"
STUDY_UID = "1.2.276.99.1"


def image(seed: int, slices: int = 12) -> Volume:
    data = np.random.default_rng(seed).integers(1, 3000, (1, 20, 24, slices)).astype(np.int16)
    return Volume(data, np.diag([-0.9, -0.9, 5.0, 1.0]))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A DICOM study of five series, one of which is diffusion and one named after the patient."""
    headers = [*DESCRIPTIONS["GE MEDICAL SYSTEMS"].values(), SeriesHeader("T1 post Meier Eva 19600101", 12, 600)]
    for number, header in enumerate([*headers, SeriesHeader("ep2d_diff", 90, 5000)], 1):
        places = {"study_uid": STUDY_UID, "frame_uid": "1.2.4", "patient": NAME}
        write_dicom_series(tmp_path / "study" / f"S{number}", image(number), header, number=number, **places)
    return tmp_path / "study"


def test_the_table_has_every_series_and_the_reason(gliomask: Command, study: Path) -> None:
    """With number, known words of the description, sequence, voxels, and what `predict --raw` would do."""
    status, said = gliomask("check", study)
    assert status == 0, said
    rows = {row.split()[2]: row for row in said.splitlines() if row.startswith(("  -", "  t"))}
    assert set(rows) == {"1", "2", "3", "4", "5", "6"}
    assert rows["4"].split()[0] == "t2f"
    assert "ax t2 flair" in rows["4"]
    assert "20 x 24 x 12, 0.90 x 0.90 x 5.00 mm, axial" in rows["4"]
    assert rows["6"].split()[0] == "-"
    assert "diffusion, by its description" in rows["6"]
    assert "register t1n, t2w, t2f to t1c" in said
    assert f"gliomask predict --raw -i {study}" in said


def test_a_zip_file_is_shown_in_the_same_way_and_as_json(gliomask: Command, study: Path) -> None:
    """It is unpacked into a temporary folder."""
    archive = shutil.make_archive(str(study.parent / "sent"), "zip", study)
    status, said = gliomask("check", archive, "--json")
    assert status == 0, said
    (found,) = json.loads(said)["studies"]
    assert found["case"] == "sent"
    assert [row["sequence"] for row in found["series"] if row["used"]] == ["t1n", "t1c", "t2w", "t2f"]


def test_nothing_of_the_patient_is_shown(gliomask: Command, study: Path) -> None:
    """Neither name nor id nor birth date nor UID, though one description holds them."""
    said = gliomask("check", study)[1] + gliomask("check", study, "--json")[1]
    for text in ("Meier", "Eva", "meier", "1960", STUDY_UID):
        assert text not in said.replace(str(study), "")


@pytest.mark.parametrize("name", ["5", "series 5", "T1 post  meier eva 19600101", "t1 post"])
def test_the_user_may_name_a_series(study: Path, name: str) -> None:
    """By its number, its name in the table, its whole description in any case, or the words that are shown."""
    (found,) = find_studies(study, named={"t1c": name})
    assert found.problem == ""
    assert found.chosen["t1c"].name == "series 5"
    reasons = {choice.series.name: choice.reason for choice in found.choices}
    assert reasons["series 5"] == "named by you"
    assert "you named it" in reasons["series 2"]


@pytest.mark.parametrize("command", ["preprocess", "predict"])
def test_a_description_is_taken_as_it_was_written(gliomask: Command, tmp_path: Path, command: str) -> None:
    """It is no path, which would lose the stroke at its end and be turned round on Windows."""
    header = SeriesHeader("AX T1 FS W/", 12, 600)
    places = {"study_uid": STUDY_UID, "frame_uid": "1.2.4", "patient": NAME}
    write_dicom_series(tmp_path / "study", image(1, 3), header, number=1, **places)
    raw = ("--raw", "-i") if command == "predict" else ()
    words = (command, *raw, tmp_path / "study", "-o", tmp_path / "out", "--t1c", "AX T1 FS W/")
    _, said = gliomask(*words)
    assert "no series is called" not in said
    assert "series 1, named for t1c, cannot be used" in " ".join(said.split())


def test_a_workbook_is_no_zip_file_of_raw_scans(gliomask: Command, tmp_path: Path) -> None:
    """`check` says how to save it; the commands for raw scans say that they take no list."""
    with zipfile.ZipFile(tmp_path / "list.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    status, said = gliomask("check", tmp_path / "list.xlsx")
    assert (status, "Save the sheet with the list of cases as CSV" in " ".join(said.split())) == (2, True), said
    status, said = gliomask("preprocess", tmp_path / "list.xlsx", "-o", tmp_path / "out")
    assert (status, "lists of cases are for check" in " ".join(said.split())) == (2, True), said


def test_by_uid_and_file_name_too(study: Path, tmp_path: Path) -> None:
    """And a series that is named for one sequence is free for no other."""
    (found,) = find_studies(study)
    uid = found.chosen["t1n"].uid
    named = name_series(found, {"t1c": uid})
    assert named.chosen["t1c"].name == "series 1"
    assert "t1n" not in named.chosen
    write_volume(tmp_path / "volumes" / "scan_a.nii.gz", image(1))
    (volumes,) = find_studies(tmp_path / "volumes", named={"t2f": "scan_a.nii.gz"})
    assert list(volumes.chosen) == ["t2f"]


def test_a_name_that_fits_none_or_several_is_refused(gliomask: Command, study: Path, tmp_path: Path) -> None:
    """With the series that there are, before anything is written."""
    for words in (("predict", "--raw", "-i", study), ("preprocess", study)):
        status, said = gliomask(*words, "-o", tmp_path / "out", "--t1c", "99")
        assert status == 2
        assert "no series is called '99', named for t1c. It has series " in " ".join(said.split())
    assert not (tmp_path / "out").exists()


def test_the_choice_is_kept_and_uids_on_request_only(study: Path, tmp_path: Path) -> None:
    """In study.json, which names no patient."""
    (found,) = find_studies(study)
    write_study_record(found, tmp_path / "out", keep_uids=False)
    text = (tmp_path / "out" / "study.json").read_text()
    assert STUDY_UID not in text
    assert "Meier" not in text
    record = study_record(found, keep_uids=True)
    assert record["study_uid"] == STUDY_UID
    assert all(row["uid"] for row in record["series"])
    assert record["missing"] == []


def test_volumes_of_other_formats_are_shown_too(gliomask: Command, tmp_path: Path) -> None:
    """NRRD and MHA by their headers, and NIfTI files whose names tell no sequence: never that there is no case."""
    import SimpleITK

    for name in ("flair.nrrd", "t1.mha"):
        (tmp_path / "itk").mkdir(exist_ok=True)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image(1).data[0].T), str(tmp_path / "itk" / name))
    status, said = gliomask("check", tmp_path / "itk")
    assert status == 0, said
    assert "20 x 24 x 12" in said
    write_volume(tmp_path / "odd" / "scan7.nii", image(1))
    status, said = gliomask("check", tmp_path / "odd")
    assert status == 2
    assert "no case found" not in said
    assert "its name is that of no sequence" in said
    assert "--t1 --t1c --t2 --flair" in said


def test_unprepared_cases_are_told_all_that_is_in_the_way(gliomask: Command, tmp_path: Path) -> None:
    """Other grids and skulls at once, and the command that takes them, by `check` and by `predict`."""
    write_volume(tmp_path / "data" / "P1" / "P1_t1ce.nii.gz", image(1))
    write_volume(tmp_path / "data" / "P1" / "P1_flair.nii.gz", image(2, slices=14))
    write_volume(tmp_path / "data" / "P1" / "P1_t2.nii.gz", image(3, slices=16))
    status, said = gliomask("check", tmp_path / "data")
    assert status == 1
    predicted, more = gliomask("predict", "-i", tmp_path / "data", "-o", tmp_path / "out")
    assert predicted == 2
    for text in (said, more):
        text = " ".join(text.split())
        assert "differ in shape 20 x 24 x 12 and 20 x 24 x 14" in text
        assert "20 x 24 x 16" in text
        assert "is the skull still there?" in text
        assert "gliomask predict --raw" in text
    assert "P1_flair.nii.gz" in said
    assert "predict --raw would find the brain" in said
