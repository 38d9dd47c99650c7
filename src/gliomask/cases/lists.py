"""The cases of a list: those of its rows, and what is in the folders that its rows name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliomask.cases.case import MODALITIES, Case, Problem
from gliomask.cases.conventions import read_labels_file
from gliomask.cases.dataset import DatasetSurvey
from gliomask.cases.folders import list_folder
from gliomask.cases.listed import Survey, survey_listing, with_labels_files, with_labels_of
from gliomask.cases.naming import classify, id_of_mask
from gliomask.cases.staging import list_remote
from gliomask.cases.tables import survey_table
from gliomask.errors import InputError
from gliomask.files.remote import url_of

_SHOWN_IDS = 3


def survey_list(path: Path, base: Path | None = None) -> Survey:
    """Return the cases of a list, and what of it cannot be used.

    A file `labels.txt` beside a mask or above it, up to the folder of the list, gives its convention.

    Args:
        path: The list.
        base: The folder from which paths in the list begin; by default the list's own.

    Raises:
        InputError: As for `cases.tables.survey_table`.
    """
    table = survey_table(path, _look_for_case, base=base)
    top = _plain(base or path.parent)

    def read(mask: Path) -> str | None:
        mask = _plain(mask)
        return read_labels_file(mask, top if mask.is_relative_to(top) else mask.parent)

    open_ones = [case for case in table.cases if not case.convention_given and not (case.mask and url_of(case.mask))]
    told = {case.id: case for case in with_labels_files(open_ones, read)}
    cases = tuple(told.get(case.id, case) for case in table.cases)
    return Survey(path, table.layout, cases, table.problems, table.notes, table.passed_over)


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def survey_masks(path: Path) -> DatasetSurvey:
    """Return the masks in a list of cases, as cases that may have no image; a row without a mask is passed over.

    Raises:
        InputError: As for `cases.tables.survey_table`.
    """
    return survey_table(path, _look_for_mask, masks=True)


def _look_for_case(place: Path) -> DatasetSurvey:
    """Return the one case in a folder that a list names; none, with the reason, where it holds no case or several."""
    url = url_of(place)
    if fault := None if url else _fault_of_place(place):
        return _refused(place, fault)
    try:
        listing = list_remote(url) if url else list_folder(place)
        found = survey_listing(place, listing)
        found = replace(found, cases=tuple(with_labels_of(_as_one(found.cases), place, listing)))
    except InputError as error:
        return _refused(place, str(error).removeprefix(f"{place}: "))
    if found.problems or len(found.cases) == 1:
        return DatasetSurvey(found.layout, found.cases, found.problems, found.passed_over, found.notes)
    if not found.cases:
        return _refused(place, "holds no image whose name tells its sequence.", found.passed_over)
    ids = sorted(case.id for case in found.cases)
    shown = ", ".join(ids[:_SHOWN_IDS]) + (", ..." if len(ids) > _SHOWN_IDS else "")
    return _refused(place, f"holds {len(ids)} cases ({shown}). Name the folder of one case in each row.")


def _look_for_mask(place: Path) -> DatasetSurvey:
    """Return the case of the one mask in a folder that a list names, which may hold no images."""
    found = _look_for_case(place)
    if found.cases or url_of(place) or _fault_of_place(place):
        return found
    masks = [path for path in list_folder(place).files if (told := classify(path)) and told[1] == "mask"]
    if len(masks) > 1:
        return _refused(place, f"holds {len(masks)} masks. Name the folder of one case in each row.")
    others = tuple(each for each in found.passed_over if each.where not in map(str, masks))
    cases = tuple(Case(id_of_mask(mask), {}, mask) for mask in masks)
    return replace(found, cases=cases, problems=(), passed_over=others)


def _fault_of_place(place: Path) -> str | None:
    try:
        if place.is_dir():
            return None
        is_file = place.is_file()
    except OSError as error:  # too long a name, or a folder around it that may not be entered
        return f"cannot be looked into: {error.strerror or error}."
    if is_file:
        return "is a file. Name the folder of the case, or give files in columns called like sequences (t1, flair)."
    windows = os.sep == "/" and "\\" in place.name
    return "no such folder." + (" Is it a path of Windows? Write it as this machine sees it." if windows else "")


def _refused(place: Path, what: str, passed_over: tuple[Problem, ...] = ()) -> DatasetSurvey:
    return DatasetSurvey("folders", (), (Problem(str(place), what, (place,)),), passed_over)


def _as_one(cases: Sequence[Case]) -> Sequence[Case]:
    """Return cases as one if their files lie in one folder and complement each other: a list says that they are one."""
    sources = [source.path for case in cases for source in case.images.values()]
    masks = [case.mask for case in cases if case.mask is not None]
    sequences = [modality for case in cases for modality in case.images]
    folders = {path.parent for path in sources}
    if len(cases) < 2 or len(folders) > 1 or len(masks) > 1 or len(set(sequences)) < len(sequences):
        return cases
    images = {modality: case.images[modality] for modality in MODALITIES for case in cases if modality in case.images}
    return [replace(cases[0], images=images, mask=masks[0] if masks else None)]
