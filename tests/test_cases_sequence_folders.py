"""Laws of examinations with a folder for each sequence: they are one case each, and two patients are never merged."""

from __future__ import annotations

from pathlib import Path

import pytest

from gliomask.cases import NoCaseError, survey

EGD = {"1_T1": "t1n", "2_T1GD": "t1c", "3_T2": "t2w", "4_FLAIR": "t2f"}
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(root: Path) -> dict[str, set[str]]:
    """Return the sequences of each case."""
    return {case.id: set(case.images) for case in survey(root).cases}


@pytest.mark.parametrize("inside", ["NIFTI/", ""])
def test_numbered_folders_are_one_examination(tmp_path: Path, inside: str) -> None:
    """As in the Erasmus Glioma Database, whose mask has a folder too."""
    for patient in ("EGD-0001", "EGD-0002"):
        touch(tmp_path, *(f"{patient}/{name}/{inside}{name[2:]}.nii.gz" for name in EGD))
        touch(tmp_path, f"{patient}/5_MASK/{inside}MASK.nii.gz")
    assert found(tmp_path) == {"EGD-0001": set(SEQUENCES), "EGD-0002": set(SEQUENCES)}
    assert all(case.mask is not None and case.mask.name == "MASK.nii.gz" for case in survey(tmp_path).cases)
    alone = survey(tmp_path / "EGD-0001").cases
    assert [set(case.images) for case in alone] == [set(SEQUENCES)]
    assert alone[0].id == "EGD-0001"


def test_the_folder_tells_the_sequence_of_files_that_have_one_name(tmp_path: Path) -> None:
    """`PATIENT/FLAIR/image.nii.gz`, for every patient."""
    for patient in ("P1", "P2"):
        touch(tmp_path, *(f"{patient}/{name}/image.nii.gz" for name in ("T1", "T1ce", "T2", "FLAIR")))
    assert found(tmp_path) == {"P1": set(SEQUENCES), "P2": set(SEQUENCES)}


@pytest.mark.parametrize(
    "names",
    [
        ("1_T1/T1.nii.gz", "2_FLAIR/FLAIR.nii.gz"),  # patients 1 and 2, with a sequence each
        ("1_T1/T1.nii.gz", "2_T1/T1.nii.gz", "3_T1/T1.nii.gz"),
        ("T1/P1.nii.gz", "FLAIR/P2.nii.gz"),  # sorted by sequence, with the patients' names
        ("T1/P1.nii.gz", "T1/P2.nii.gz", "FLAIR/P1.nii.gz", "FLAIR/P2.nii.gz"),
        ("site/1_T1/a_T1.nii.gz", "site/2_T2/b_T2.nii.gz", "site/3_FLAIR/c_FLAIR.nii.gz"),
    ],
)
def test_what_may_be_several_patients_is_not_merged(tmp_path: Path, names: tuple[str, ...]) -> None:
    """No case gets images of two of these folders."""
    touch(tmp_path, *names)
    try:
        cases = survey(tmp_path).cases
    except NoCaseError:
        return
    assert all(len(case.images) == 1 for case in cases)


def test_a_folder_that_contradicts_its_file_is_not_believed(tmp_path: Path) -> None:
    """A file called T2 in a folder called FLAIR: its examination is read as before, by the files' names."""
    touch(tmp_path, "P1/FLAIR/T2.nii.gz", "P1/T1/T1.nii.gz")
    assert found(tmp_path) == {"P1": {"t2w", "t1n"}}
