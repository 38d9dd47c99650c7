"""Patients: all examinations of one patient are recognised as such, so that a split can keep them together."""

from __future__ import annotations

from pathlib import Path

import pytest

from gliomask.cases import Case, describe_patients, find_cases, find_patient


@pytest.mark.parametrize(
    ("case_id", "patient", "timepoint"),
    [
        ("Brats17_TCIA_151_1", "Brats17_TCIA_151", "1"),
        ("Brats18_2013_2_1", "Brats18_2013_2", "1"),
        ("BraTS19_CBICA_ASK_1", "BraTS19_CBICA_ASK", "1"),
        ("BraTS20_Training_355", "BraTS20_Training_355", ""),
        ("BraTS2021_01666", "BraTS2021_01666", ""),
        ("BraTS-GLI-00005-001", "GLI-00005", "001"),
        ("brats-goat-00001-000", "goat-00001", "000"),
        ("BraTS-GLI-02060-101", "GLI-02060", "101"),
        ("BraTS-MET-00086-000", "MET-00086", "000"),
        ("BraTS-PED-00002-000", "PED-00002", "000"),
        ("BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001", "1"),
        ("BRATS_001", "BRATS_001", ""),
        ("UPENN-GBM-00055_11", "UPENN-GBM-00055", "11"),
        ("UPENN-GBM-00055_21", "UPENN-GBM-00055", "21"),
        ("UCSF-PDGM-0004", "UCSF-PDGM-0004", ""),
        ("UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0429", "FU003d"),
        ("RHUH-0001_2", "RHUH-0001", "2"),
        ("PatientID_0003_Timepoint_1", "PatientID_0003", "Timepoint_1"),
        ("Patient-001_week-000-1", "Patient-001", "week-000-1"),
        ("TCGA-02-0006_1996.08.23", "TCGA-02-0006", "1996.08.23"),
        ("UCSD-PTGBM-0001_01", "UCSD-PTGBM-0001", "01"),
        ("ucsd-ptgbm-0001-02", "ucsd-ptgbm-0001", "02"),
        ("RHUH-0001-2", "RHUH-0001", "2"),
        ("BraTS-GLI-00005_001", "GLI-00005", "001"),
        ("ReMIND-001_intraop", "ReMIND-001", "intraop"),
        ("P001_04-03-2019", "P001", "04-03-2019"),
        ("100001_time1", "100001", "time1"),
        ("sub-01", "sub-01", ""),
        ("sub-01_ses-02", "sub-01", "02"),
        ("sub-01_ses-02_space-MNI", "sub-01", "02"),
        ("anna_2019-01-31", "anna", "2019-01-31"),
        ("anna-20190131", "anna", "20190131"),
        ("anna_follow-up_2", "anna", "follow-up_2"),
        ("P1_T0", "P1", "T0"),
        ("P1_postop", "P1", "postop"),
        ("GBM_T12", "GBM_T12", ""),
        ("glioma_scan_12", "glioma_scan_12", ""),
        ("patient_7", "patient_7", ""),
        ("site1_07", "site1_07", ""),
    ],
)
def test_an_id_tells_the_patient_and_the_time_point(case_id: str, patient: str, timepoint: str) -> None:
    """For the ids of public data sets and for ids that end in a time point; other ids are patients themselves."""
    found = find_patient(case_id)
    assert (found.patient, found.timepoint) == (patient, timepoint)


def touch(root: Path, *folders: str, names: tuple[str, ...] = ("t1", "flair")) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / f"{name}.nii.gz").touch()


def patients(root: Path) -> dict[str, str]:
    return {case.id: case.patient for case in find_cases(root)}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("P1/ses1", "P1/ses2", "P2/ses1"), {"P1_ses1": "P1", "P1_ses2": "P1", "P2_ses1": "P2"}),
        (("P1/ses-1/anat", "P2/ses-1/anat"), {"P1_ses-1": "P1", "P2_ses-1": "P2"}),
        (("sub-01/ses-01/anat", "sub-01/ses-02/anat"), {"sub-01_ses-01": "sub-01", "sub-01_ses-02": "sub-01"}),
        (
            ("Patient-001/week-000-1", "Patient-001/week-044", "Patient-002/week-000-1"),
            {
                "Patient-001_week-000-1": "Patient-001",
                "Patient-001_week-044": "Patient-001",
                "Patient-002_week-000-1": "Patient-002",
            },
        ),
        (("anna/2019-01-31", "bert/2020-02-28"), {"anna_2019-01-31": "anna", "bert_2020-02-28": "bert"}),
        (("P1/a", "P1/b", "P2/a", "P3/a"), {"P1_a": "P1", "P1_b": "P1", "P2_a": "P2", "P3_a": "P3"}),
        (
            tuple(f"{site}/{number}" for site in "AB" for number in (1, 2, 3)),
            {f"{site}_{number}": f"{site}_{number}" for site in "AB" for number in (1, 2, 3)},
        ),
        (("HGG/anna", "LGG/bert"), {"anna": "anna", "bert": "bert"}),
    ],
)
def test_folders_tell_the_patient_and_the_examination(
    tmp_path: Path, folders: tuple[str, ...], expected: dict[str, str]
) -> None:
    """Equal names of sessions are not the same id, and folders of sites are not patients."""
    touch(tmp_path, *folders)
    assert patients(tmp_path) == expected


def test_files_named_alike_in_every_examination_are_told_by_their_folders(tmp_path: Path) -> None:
    """This is also true if the files are named after the patient."""
    for session in ("ses-01", "ses-02"):
        touch(tmp_path, f"sub-01/{session}/anat", names=("sub-01_T1w", "sub-01_FLAIR"))
    assert patients(tmp_path) == {"sub-01_ses-01": "sub-01", "sub-01_ses-02": "sub-01"}


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("P1/2019-03-04", "P1/2020-01-01", "P2/2019-05-06"), ("t1", "flair")),
        (("sub-01/ses-1", "sub-01/ses-2", "sub-02/ses-1"), ("t1", "flair")),
        (("anna/week-000", "anna/week-044"), ("t1", "flair")),
        (("HGG/2019-03-04/x", "HGG/y"), ("t1", "flair")),
        (("2019-03-04", "2020-01-01"), ("t1", "flair")),
    ],
)
def test_folders_in_a_list_have_the_patients_that_they_have_by_themselves(
    tmp_path: Path, folders: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """So that a list splits no patient; the folder of the list itself is none."""
    touch(tmp_path, *folders, names=names)
    listed = tmp_path / "list.csv"
    listed.write_text("\n".join(["folder", *folders]) + "\n", "utf-8")
    by_folder = {(case.id, case.patient, case.timepoint) for case in find_cases(tmp_path)}
    assert {(case.id, case.patient, case.timepoint) for case in find_cases(listed)} == by_folder
    # With ids that tell nothing, the patient is that of the folder; what the row names goes first.
    rows = [f"{letter},{folder}" for letter, folder in zip("abc", folders, strict=False)]
    listed.write_text("\n".join(["id,folder", *rows]) + "\n", "utf-8")
    named = [patient for _, patient, timepoint in sorted(by_folder) if timepoint]
    assert sorted(case.patient for case in find_cases(listed) if case.timepoint) == named
    listed.write_text(f"id,patient,folder\na,anna,{folders[0]}\n", "utf-8")
    assert [case.patient for case in find_cases(listed)] == ["anna"]


def test_the_names_in_a_listed_folder_tell_the_patient(tmp_path: Path) -> None:
    """Where neither the row nor the folder does."""
    for folder in ("x", "y"):
        touch(tmp_path, folder, names=(f"BraTS-GLI-00005-10{'xy'.index(folder)}-t1n",))
    (tmp_path / "list.csv").write_text("folder\nx\ny\n", "utf-8")
    assert {case.patient for case in find_cases(tmp_path / "list.csv")} == {"GLI-00005"}


def test_the_patients_are_counted_with_the_rules_that_told_them_apart(tmp_path: Path) -> None:
    """One rule is named alone, several with the number of examinations of each."""
    touch(tmp_path, "sub-01/ses-01", "sub-01/ses-02", "sub-02/ses-01")
    assert describe_patients(find_cases(tmp_path)) == "3 examinations of 2 patients, told apart by bids ids"
    touch(tmp_path, "carl")
    assert describe_patients(find_cases(tmp_path)) == (
        "4 examinations of 3 patients, told apart by bids ids (3), case ids, each a patient of its own (1)"
    )
    assert describe_patients([Case("x", {})]).startswith("1 examination of 1 patient, told apart by case ids")
