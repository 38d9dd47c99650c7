"""Options of the commands that take raw studies."""

from __future__ import annotations

from typing import Annotated

import typer

PANEL = "Raw studies"

Atlas = Annotated[
    str,
    typer.Option(
        "--atlas",
        help="The space of the prepared images: sri24 (BraTS until 2023), mni (BraTS 2024 and later), none (the "
        "patient's own, at 1 mm).",
        rich_help_panel=PANEL,
    ),
]
SkullStrip = Annotated[
    str,
    typer.Option(
        "--skull-strip",
        help="deepbet: its networks find the brain; synthstrip or hd-bet, where these programs are installed; none: "
        "the images have no skull; or a brain mask on the reference's grid.",
        rich_help_panel=PANEL,
    ),
]
Register = Annotated[
    str,
    typer.Option(
        "--register",
        help="greedy: register every sequence to the reference; ants: with ANTs, where antspyx is installed; none: "
        "they are aligned already.",
        rich_help_panel=PANEL,
    ),
]
ByPatient = Annotated[
    bool,
    typer.Option(
        "--by-patient",
        help="Separate the DICOM images of several patients in one folder, instead of refusing them.",
        rich_help_panel=PANEL,
    ),
]
N4 = Annotated[
    bool,
    typer.Option(
        "--n4",
        help="Remove shading from the images (N4) for the registration only; the prepared images keep it.",
        rich_help_panel=PANEL,
    ),
]
KeepUids = Annotated[
    bool,
    typer.Option(
        "--keep-uids",
        help="Keep the DICOM UIDs of the study and its series in study.json; they can identify the patient.",
        rich_help_panel=PANEL,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Exit with status 1 if the preparation has a warning, such as a poor alignment or brain mask.",
        rich_help_panel=PANEL,
    ),
]
OutputType = Annotated[
    str,
    typer.Option(
        "--output-type",
        help="What to write, separated by commas: nifti (always written), dicom-seg (a DICOM Segmentation), rtstruct "
        "(a DICOM RT Structure Set). The DICOM files are stored with the examination and therefore hold the "
        "identifiers of patient and study, as its images do; NIfTI and JSON hold none. The images must be DICOM.",
        rich_help_panel=PANEL,
    ),
]
Segments = Annotated[
    str,
    typer.Option(
        "--segments",
        help="What a DICOM Segmentation shows: tissues (NCR, ED, ET), or regions (WT, TC, ET), which overlap and which "
        "some viewers refuse.",
        rich_help_panel=PANEL,
    ),
]
