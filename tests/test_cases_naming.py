"""Names of files: each sequence and each mask is recognised as its owner meant it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliomask.cases import MODALITIES, classify, get_modality
from gliomask.cases.naming import read_name
from gliomask.errors import InputError


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("separator", ["_", "-", "."])
@pytest.mark.parametrize("modality", MODALITIES)
def test_every_spelling_of_a_sequence_is_read_in_a_files_name(modality: str, separator: str, ending: str) -> None:
    """It is read in upper and lower case, after any separator, or alone in the patient's folder."""
    for spelling in MODALITIES[modality]:
        for written in (spelling, spelling.upper(), spelling.capitalize()):
            assert classify(Path(f"data/patient.7{separator}{written}{ending}")) == ("patient.7", modality)
            assert classify(Path(f"data/patient.7/{written}{ending}")) == ("patient.7", modality)
            assert get_modality(written) == modality


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("BraTS20_Training_001_t1.nii.gz", ("BraTS20_Training_001", "t1n")),
        ("BraTS20_Training_001_t1ce.nii.gz", ("BraTS20_Training_001", "t1c")),
        ("sub-01_ses-1_ce-gad_T1w.nii.gz", ("sub-01_ses-1", "t1c")),
        ("sub-01_ses-1_T1w.nii.gz", ("sub-01_ses-1", "t1n")),
        ("UPENN-GBM-00001_11_T1GD.nii.gz", ("UPENN-GBM-00001_11", "t1c")),
        ("UPENN-GBM-00001_11_segm.nii.gz", ("UPENN-GBM-00001_11", "mask")),
        ("UCSF-PDGM-0004_T1.nii.gz", ("UCSF-PDGM-0004", "t1n")),
        ("UCSF-PDGM-0004_T1c.nii.gz", ("UCSF-PDGM-0004", "t1c")),
        ("UCSF-PDGM-0004_tumor_segmentation.nii.gz", ("UCSF-PDGM-0004", "mask")),
        ("UCSF-PDGM-0004_brain_segmentation.nii.gz", None),
        ("UCSF-PDGM-0004_brain_parenchyma_segmentation.nii.gz", None),
        ("UCSF-PDGM-0004_T1c_bias.nii.gz", None),
        ("sub-01_skull-stripped_T1.nii.gz", ("sub-01_skull-stripped", "t1n")),
        ("brainmask_flair.nii.gz", None),
        ("P1_brain_mask.nii.gz", None),
        ("P1_t1_BrainMask.nii.gz", None),
        ("P1_t1_brain.nii.gz", ("P1", "t1n")),
        ("P1_T1_bet.nii.gz", ("P1", "t1n")),
        ("P1_CT1_bet.nii.gz", ("P1", "t1c")),
        ("P1_FLAIR_skull_stripped.nii.gz", ("P1", "t2f")),
        ("P1_t1_bet_mask.nii.gz", None),
        ("P1_brain.nii.gz", None),
        ("sub-01_ce-gd_T1w.nii.gz", ("sub-01", "t1c")),
        ("sub-01_ses-2_ce-dotarem_run-1_T1w.nii.gz", ("sub-01_ses-2_run-1", "t1c")),
        ("sub-01_acq-postcontrast_T1w.nii.gz", ("sub-01", "t1c")),
        ("sub-01_acq-mprage_T1w.nii.gz", ("sub-01", "t1n")),
        ("sub-01_ce-none_T1w.nii.gz", ("sub-01", "t1n")),
        ("sub-01_ce-gd_FLAIR.nii.gz", ("sub-01", "t2f")),
        ("sub-01_ses-1_dseg.nii.gz", ("sub-01_ses-1", "mask")),
        ("sub-01_ses-1_label-tumor_mask.nii.gz", ("sub-01_ses-1", "mask")),
        ("sub-01_desc-brain_mask.nii.gz", None),
        ("TCGA-02-0006_1996.08.23_t1Gd.nii.gz", ("TCGA-02-0006_1996.08.23", "t1c")),
        ("TCGA-02-0006_1996.08.23_GlistrBoost.nii.gz", ("TCGA-02-0006_1996.08.23", "mask")),
        ("TCGA-02-0006_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz", ("TCGA-02-0006_1996.08.23", "mask")),
        ("RHUH-0001_0_segmentations.nii.gz", ("RHUH-0001_0", "mask")),
        ("PatientID_0003_Timepoint_1_brain_t1c.nii.gz", ("PatientID_0003_Timepoint_1", "t1c")),
        ("PatientID_0003_Timepoint_1_tumorMask.nii.gz", ("PatientID_0003_Timepoint_1", "mask")),
        ("P1_brain_tumor_seg.nii.gz", ("P1", "mask")),
        ("P1_skull.nii.gz", None),
        ("P1_CE_T1.nii.gz", ("P1", "t1c")),
        ("P1_ce-T1w.nii.gz", ("P1", "t1c")),
        ("P1_post-Gd_T1.nii.gz", ("P1", "t1c")),
        ("CE-T1.nii.gz", ("data", "t1c")),
        ("ce-gd_T1w.nii.gz", ("data", "t1c")),
        ("P1_no_ce_T1.nii.gz", ("P1", "t1n")),
        ("P1_preGd_T1.nii.gz", ("P1", "t1n")),
        ("P1_ce_FLAIR.nii.gz", ("P1", "t2f")),
        ("CE-01_T1.nii.gz", ("CE-01", "t1n")),  # the initials of a patient
        ("CE-01_2_T1.nii.gz", ("CE-01_2", "t1n")),
        ("P1_FLAIR_T2.nii.gz", ("P1", "t2f")),
        ("P1_T1+C.nii.gz", ("P1", "t1c")),
        ("P1_T1_to_FLAIR.nii.gz", None),  # the T1 on the grid of the FLAIR
        ("P1_T1ce-reg-T1_brain.nii.gz", None),
        ("T2_registered_to_FLAIR.nii.gz", None),
        ("P1_t1-ce_brain_to_FLAIR.nii.gz", None),
        ("P1_T2_2_FLAIR.nii.gz", None),
        ("P1_T1_FLAIR.nii.gz", ("P1_T1", "t2f")),  # a time point
        ("P1_scan_2_FLAIR.nii.gz", ("P1_scan_2", "t2f")),
        ("moved_to_FLAIR.nii.gz", ("moved_to", "t2f")),
        ("two\nlines_T1.nii.gz", ("two\nlines", "t1n")),
        ("P1_adc.nii.gz", None),
        ("patientt1.nii.gz", None),
        ("BraTS-MEN-RT-0001-1_gtv.nii.gz", ("BraTS-MEN-RT-0001-1", "mask")),
    ],
)
def test_a_name_means_what_its_owner_meant(name: str, told: tuple[str, str] | None) -> None:
    """T1 is never read as T1 with contrast, and a brain mask is never used."""
    assert classify(Path("data") / name) == told


def test_an_unknown_sequence_gets_a_hint() -> None:
    """The list contains both common namings."""
    with pytest.raises(InputError, match=r"unknown modality 'flar'; did you mean 'flair'\? \(known: flair, t1, t1c"):
        get_modality("flar")


_PLAIN = [one for spellings in MODALITIES.values() for one in spellings if not one.startswith("ce-")]


@settings(max_examples=200, deadline=None)
@given(st.text("X7 _-.\u0130\u0131\u017f\u212a\n", max_size=8), st.sampled_from(_PLAIN), st.booleans())
def test_the_longest_spelling_at_the_end_of_a_name_is_read(start: str, spelling: str, upper: bool) -> None:
    """What stands before it is the id, without the separators; this is said here by a regular expression."""
    stem = start + (spelling.upper() if upper else spelling).replace("i", "\u0131")
    known = {one: modality for modality, spellings in MODALITIES.items() for one in spellings}
    expected = None
    for one in sorted(known, key=len, reverse=True):
        if found := re.fullmatch(rf"(?:(.*?)[ _.-]+)?{re.escape(one)}", stem, re.IGNORECASE | re.DOTALL):
            expected = (found.group(1) or "", known[one])
            break
    told = read_name(Path("folder") / f"{stem}.nii")
    assert (told and (told.case_id, told.role)) == expected
