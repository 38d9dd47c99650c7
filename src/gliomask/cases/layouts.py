"""How each release of BraTS and other public data sets name their cases and files, as a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gliomask.cases.case import MODALITIES, Case, Source
from gliomask.errors import unknown_name
from gliomask.labels import CONVENTIONS

_NAMES_UNTIL_2022 = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
_NAMES_SINCE_2023 = {"t1n": "t1n", "t1c": "t1c", "t2w": "t2w", "t2f": "t2f"}


@dataclass(frozen=True)
class Layout:
    """One row of the table: how ids look, where the files of a case are, what the labels of a mask mean."""

    name: str
    id_pattern: str
    """A regular expression for the whole id, upper or lower case; empty for a layout that a `dataset.json` tells.

    Its group `patient` is what all examinations of one patient share, its group `timepoint` what tells them apart.
    """
    id_format: str
    """How to write the id of case `number`."""
    image: str
    """The path of an image below the folder, with `{id}` or `{patient}` and `{timepoint}`, and `{modality}` unless one
    file holds all sequences."""
    mask: str
    """The path of the mask below the folder, with `{id}` or `{patient}` and `{timepoint}`."""
    modalities: Mapping[str, str]
    """The sequence's name in `image`; where one file holds all of them, in the order of its channels."""
    convention: str | None
    """What the labels mean; None where the layout does not settle it."""
    candidates: tuple[str, ...] = tuple(CONVENTIONS)
    """The conventions that are possible where `convention` is None."""
    dataset_json: Mapping[str, object] = field(default_factory=dict)
    """The content of `dataset.json`, for layouts that have one."""
    whole_id_in_names: bool = True
    """Whether a file's name holds the whole id, so that the same id in two folders is the same case."""
    note: str = ""
    """What a user of such a data set must know."""

    @property
    def one_file(self) -> bool:
        """Whether one 4-D file holds all sequences."""
        return "{modality}" not in self.image

    @property
    def patient_rule(self) -> str:
        """How patients are told apart in this layout, in words (see `patients.describe_patients`)."""
        return f"{self.name} ids" if self.id_pattern else ""

    def case(self, root: Path, number: int, modalities: Sequence[str] = tuple(MODALITIES)) -> Case:
        """Return the case with this number and the files that the layout gives it; they need not exist."""
        case_id = self.id_format.format(number=number)
        found = re.fullmatch(self.id_pattern, case_id, re.IGNORECASE)
        groups = found.groupdict("") if found else {}
        images = {
            modality: Source(
                root / self.image.format(id=case_id, modality=name, **groups), channel if self.one_file else None
            )
            for channel, (modality, name) in enumerate(self.modalities.items())
            if modality in modalities
        }
        told: dict[str, Any] = {**groups, "patient_rule": self.patient_rule} if found else {}
        return Case(case_id, images, root / self.mask.format(id=case_id, **groups), self.convention, **told)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            *(
                Layout(
                    f"brats20{year}",
                    rf"(?P<patient>brats{year}_\w+)_(?P<timepoint>\d+)",
                    f"{prefix}_SYN{{number:02d}}_{{number}}_1",
                    f"HGG/{{id}}/{{id}}_{{modality}}.nii{'.gz' if year != 19 else ''}",
                    f"HGG/{{id}}/{{id}}_seg.nii{'.gz' if year != 19 else ''}",
                    _NAMES_UNTIL_2022,
                    "brats2021",
                )
                for year, prefix in ((17, "Brats17"), (18, "Brats18"), (19, "BraTS19"))
            ),
            Layout(
                "brats2020",
                r"(?P<patient>brats20_(training|validation)_\d{3})",
                "BraTS20_Training_{number:03d}",
                "{id}/{id}_{modality}.nii",
                "{id}/{id}_seg.nii",
                _NAMES_UNTIL_2022,
                "brats2021",
            ),
            Layout(
                "brats2021",
                r"(?P<patient>brats2021_\d{5})",
                "BraTS2021_{number:05d}",
                "{id}/{id}_{modality}.nii.gz",
                "{id}/{id}_seg.nii.gz",
                _NAMES_UNTIL_2022,
                "brats2021",
            ),
            Layout(
                "brats2024",
                r"brats-(?P<patient>gli-\d{5}(?=-1)|met-\d{5})-(?P<timepoint>\d{3})",
                "BraTS-GLI-{number:05d}-100",
                "{id}/{id}-{modality}.nii.gz",
                "{id}/{id}-seg.nii.gz",
                _NAMES_SINCE_2023,
                "brats2024",
            ),
            Layout(
                # Two releases share these ids and differ in their labels, so the masks or the user must tell.
                "brats-ped",
                r"brats-(?P<patient>ped-\d{5})-(?P<timepoint>\d{3})",
                "BraTS-PED-{number:05d}-000",
                "{id}/{id}-{modality}.nii.gz",
                "{id}/{id}-seg.nii.gz",
                _NAMES_SINCE_2023,
                None,
                ("brats2023", "brats2024-ped"),
            ),
            Layout(
                "brats2023",
                r"brats-(?P<patient>(gli|ssa|men|goat)-\d{5})-(?P<timepoint>\d{3})",
                "BraTS-GLI-{number:05d}-000",
                "{id}/{id}-{modality}.nii.gz",
                "{id}/{id}-seg.nii.gz",
                _NAMES_SINCE_2023,
                "brats2023",
            ),
            Layout(
                "brats-men-rt",
                r"(?P<patient>brats-men-rt-\d{4})-(?P<timepoint>\d)",
                "BraTS-MEN-RT-{number:04d}-1",
                "{id}/{id}_{modality}.nii.gz",
                "{id}/{id}_gtv.nii.gz",
                {"t1c": "t1c"},
                "tc-only",
                note="has one sequence (t1c), with the skull, and masks (gtv) of the tumour core without its parts",
            ),
            Layout(
                "upenn-gbm",  # time point 11 is before treatment, 21 after
                r"(?P<patient>upenn-gbm-\d{5})_(?P<timepoint>\d+)",
                "UPENN-GBM-{number:05d}_11",
                "images_structural/{id}/{id}_{modality}.nii.gz",
                "images_segm/{id}_segm.nii.gz",
                {"t1n": "T1", "t1c": "T1GD", "t2w": "T2", "t2f": "FLAIR"},
                "brats2021",
            ),
            Layout(
                "ucsf-pdgm",
                r"(?P<patient>ucsf-pdgm-\d+)(?:_(?P<timepoint>fu\d+d?))?",
                "UCSF-PDGM-{number:04d}",
                "{id}_nifti/{id}_{modality}.nii.gz",
                "{id}_nifti/{id}_tumor_segmentation.nii.gz",
                {"t1n": "T1", "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR"},
                "brats2021",
            ),
            Layout(
                "ucsd-ptgbm",
                r"(?P<patient>ucsd-ptgbm-\d+)_(?P<timepoint>\d+)",
                "UCSD-PTGBM-{number:04d}_01",
                "{id}/{id}_{modality}.nii.gz",
                "{id}/{id}_BraTS_tumor_seg.nii.gz",
                {"t1n": "T1pre", "t1c": "T1post", "t2w": "T2", "t2f": "FLAIR"},
                "brats2024",  # part of the test data of BraTS-GLI 2024
            ),
            Layout(
                "rhuh-gbm",  # time points 0 before surgery, 1 after it, 2 recurrence
                r"(?P<patient>rhuh-\d+)_(?P<timepoint>\d+)",
                "RHUH-{number:04d}_0",
                "{patient}/{timepoint}/{id}_{modality}.nii.gz",
                "{patient}/{timepoint}/{id}_segmentations.nii.gz",
                _NAMES_UNTIL_2022,
                None,
            ),
            Layout(
                # The examination's own images have skulls and a grid each. Those that DeepBraTumIA aligned with its
                # atlas are used instead (`identity.examination_folder`).
                "lumiere",
                r"(?P<patient>patient-\d{3})_(?P<timepoint>week-\d{3}(?:-\d+)?)",
                "Patient-{number:03d}_week-000-1",
                "Imaging/{patient}/{timepoint}/DeepBraTumIA-segmentation/atlas/skull_strip/{modality}_skull_strip.nii.gz",
                "Imaging/{patient}/{timepoint}/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz",
                {"t1n": "t1", "t1c": "ct1", "t2w": "t2", "t2f": "flair"},
                None,
                whole_id_in_names=False,
            ),
            Layout(
                "bids",
                r"(?P<patient>sub-[a-z0-9]+)(?:_ses-(?P<timepoint>[a-z0-9]+))?(?:_[a-z0-9]+-[a-z0-9]+)*",
                "sub-{number:02d}_ses-1",
                "{patient}/ses-{timepoint}/anat/{id}_{modality}.nii.gz",
                "derivatives/gliomask/{patient}/ses-{timepoint}/anat/{id}_desc-tumor_dseg.nii.gz",
                {"t1n": "T1w", "t1c": "ce-gadolinium_T1w", "t2w": "T2w", "t2f": "FLAIR"},
                None,
                whole_id_in_names=False,
            ),
            Layout(
                "msd",
                "",
                "BRATS_{number:03d}",
                "imagesTr/{id}.nii.gz",
                "labelsTr/{id}.nii.gz",
                {"t2f": "FLAIR", "t1n": "T1w", "t1c": "t1gd", "t2w": "T2w"},
                "msd",
                ("msd",),
                {
                    "name": "BRATS",
                    "tensorImageSize": "4D",
                    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
                    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
                },
            ),
            Layout(
                "nnunet",
                "",
                "BRATS_{number:03d}",
                "imagesTr/{id}_{modality}.nii.gz",
                "labelsTr/{id}.nii.gz",
                {"t1n": "0000", "t1c": "0001", "t2w": "0002", "t2f": "0003"},
                "msd",
                ("msd",),
                {
                    "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"},
                    "labels": {
                        "background": 0,
                        "whole tumor": [1, 2, 3],
                        "tumor core": [2, 3],
                        "enhancing tumor": 3,
                    },
                    "regions_class_order": [1, 2, 3],
                    "file_ending": ".nii.gz",
                },
            ),
        )
    }
)

_PATTERNS = [(re.compile(layout.id_pattern, re.IGNORECASE), layout) for layout in LAYOUTS.values()]


def get_layout(name: str) -> Layout:
    """Return a layout by name.

    Raises:
        InputError: The name is not in `LAYOUTS`.
    """
    if name not in LAYOUTS:
        raise unknown_name("layout", name, LAYOUTS)
    return LAYOUTS[name]


def candidates_of(case_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the label conventions that the masks of all these cases can have in common, judged by their ids."""
    layouts = [layout for layout in map(layout_of, case_ids) if layout]
    return tuple(name for name in CONVENTIONS if all(name in layout.candidates for layout in layouts))


def layout_of(case_id: str) -> Layout | None:
    """Return the first layout whose `id_pattern` fits the whole id, or None."""
    return next((layout for pattern, layout in _PATTERNS if pattern.fullmatch(case_id)), None)
