"""The files in other formats that are kept beside a mask, and which of them are up to date."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gliomask.acquisition.headers import is_dicom
from gliomask.acquisition.places import DICOM_ENDINGS
from gliomask.acquisition.study import Study
from gliomask.cases import MODALITIES
from gliomask.errors import InputError, unknown_name
from gliomask.exchange.contours import require_contourpy
from gliomask.exchange.dicom_seg import build_seg, describe_seg, require_highdicom
from gliomask.exchange.rtstruct import build_rtstruct, describe_rtstruct
from gliomask.exchange.segments import SEGMENT_CHOICES, Origin
from gliomask.exchange.source import labels_on, make_uids, read_instance_uid, read_source, save_dataset
from gliomask.inference.record import beside, digest_of, read_facts
from gliomask.volume import read_volume

OUTPUT_TYPES = ("nifti", "dicom-seg", "rtstruct")
"""What a mask can be written as. The NIfTI file is always written, because a later run continues from it."""


def check_outputs(outputs: Sequence[str], segments: str, space: str, studies: Sequence[Study] = ()) -> None:
    """Refuse what cannot be written, before any work is done.

    Args:
        outputs: Names from `OUTPUT_TYPES`.
        segments: A name from `SEGMENT_CHOICES`.
        space: Where the masks are wanted; see `answer_request`.
        studies: Those that masks are wanted of.

    Raises:
        InputError: A name is unknown, a library is missing, the masks do not lie on the grid of an acquired series, or
            a study is not DICOM.
    """
    for name in outputs:
        if name not in OUTPUT_TYPES:
            raise unknown_name("value of --output-type", name, OUTPUT_TYPES)
    if segments not in SEGMENT_CHOICES:
        raise unknown_name("value of --segments", segments, SEGMENT_CHOICES)
    wanted = [name for name in outputs if name in DICOM_ENDINGS]
    if not wanted:
        return
    if "dicom-seg" in wanted:
        require_highdicom()
    if "rtstruct" in wanted:
        require_contourpy()
    if space != "reference" and space not in MODALITIES:
        raise InputError(
            f"--space {space} does not go with --output-type {','.join(wanted)}: a DICOM object must lie on a series "
            f"of the study. Leave out --space, or name a sequence with it ({', '.join(MODALITIES)})."
        )
    for study in studies:
        if not all(is_dicom(series.files[0]) for series in study.chosen.values()):
            raise InputError(
                f"{study.id}: its images are not DICOM, so there is no series that {', '.join(wanted)} could refer to. "
                "Name the DICOM files of the examination with -i, or leave out --output-type."
            )


def write_outputs(study: Study, mask: Path, outputs: Sequence[str], segments: str) -> list[Path]:
    """Write the DICOM files that are wanted beside a mask and are not there or not made from it; return those written.

    Args:
        study: Of DICOM images.
        mask: The file that `write_answer` wrote, with its JSON beside it. It may have been edited since.
        outputs: Names from `OUTPUT_TYPES`; `nifti` is passed over.
        segments: Of the Segmentation; see `write_dicom_seg`.

    Raises:
        InputError: See `write_dicom_seg` and `write_rtstruct`.
    """
    wanted = [name for name in outputs if name in DICOM_ENDINGS]
    if not wanted:
        return []
    facts = read_facts(beside(mask, ".json")) or {}
    space = facts.get("space")
    if space not in study.chosen:
        raise InputError(f"{study.id}: the JSON beside the mask does not say on which sequence it lies; --overwrite.")
    source = read_source(study.chosen[space].files)
    labels = labels_on(source, read_volume(mask, mask=True))
    origin = _origin(facts, edited=facts.get("mask") != digest_of(mask.read_bytes()))
    written = []
    for name in wanted:
        path = beside(mask, DICOM_ENDINGS[name])
        content = describe_seg(origin, segments) if name == "dicom-seg" else describe_rtstruct(origin)
        uids = make_uids(source, labels, *content)
        if read_instance_uid(path) == uids[1]:
            continue
        if name == "dicom-seg":
            dataset = build_seg(source, labels, origin, segments, uids)
        else:
            dataset = build_rtstruct(source, labels, origin, uids)
        save_dataset(path, dataset)
        written.append(path)
    return written


def remove_outputs(mask: Path) -> None:
    """Remove the DICOM files beside a mask that is about to be replaced, as they would show another answer."""
    for ending in DICOM_ENDINGS.values():
        with suppress(OSError):
            beside(mask, ending).unlink(missing_ok=True)


def _origin(facts: dict[str, Any], *, edited: bool) -> Origin:
    request = facts.get("request") or {}
    return Origin(
        convention=str(request.get("labels")),
        regions=tuple(facts.get("volumes_ml") or ()),
        models=tuple(map(str, request.get("models") or ())),
        edited=edited,
    )
