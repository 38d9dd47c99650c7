"""The cases of a folder as it was downloaded, and everything about the folder that does not fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from zipfile import is_zipfile

from gliomask.cases.case import Case, Problem, Source
from gliomask.cases.folders import files_below, list_folder, without_results
from gliomask.cases.listed import Survey, survey_listing, with_labels_of
from gliomask.cases.lists import survey_list
from gliomask.cases.naming import classify, fault_of_length, folded, stem_of
from gliomask.cases.patients import find_patient
from gliomask.cases.staging import list_remote, staged_list
from gliomask.cases.tables import LIST_ENDINGS, WORKBOOKS, is_table, refuse_no_folder
from gliomask.errors import InputError
from gliomask.files.remote import url_of
from gliomask.volume import read_volume

# Of the files in a folder without cases, that many are read to tell whether they are masks.
_SAMPLE = 3
_LARGEST_LABEL = 10


class NoCaseError(InputError):
    """A folder holds no prepared case; it may hold raw images."""


def find_cases(folder: Path | str) -> list[Case]:
    """Return the cases of a folder in any layout of `LAYOUTS`, or with any names that tell the sequence, sorted by id.

    Nothing is renamed or copied; only `dataset.json` and files called `mask` are opened. A case may lack sequences or
    its mask.

    Raises:
        InputError: There is no such folder, no case in it, or something in it cannot be used (all of it is named);
            `survey` returns what can be used beside what cannot.
    """
    found = survey(folder)
    if found.problems:
        raise InputError("; ".join(map(str, found.problems)))
    return list(found.cases)


def survey(folder: Path | str, output: Path | None = None) -> Survey:
    """Return the cases of a folder, at any depth, and everything that is wrong with it by the files' names.

    Instead of a folder, a list of cases can be given: CSV, Parquet or MONAI's `datalist.json` (`cases.tables`). A
    `labels.txt` in the folder of a mask, or in one above it, gives the case's convention (`cases.conventions`). The
    folder may be the URL of a place in an object store, as a path (`files.remote`); data sets with a `dataset.json` and
    `labels.txt` are not read there, and the files are copied here when the case is used (`staging.staged`).

    Args:
        folder: The folder, or what stands for it.
        output: A folder that results are written to. Masks that `predict` wrote there are no part of the input.

    Raises:
        NoCaseError: Nothing in the folder looks like a case.
        InputError: There is no such folder, it holds masks only, or a `labels.txt` names no convention.
    """
    folder = Path(folder)
    if is_table(folder):
        return _finished(survey_list(folder))
    if folder.is_file() and is_zipfile(folder):
        if folder.suffix.lower() in WORKBOOKS:
            refuse_no_folder(folder)
        raise InputError(f"{folder}: is a zip file. Unpack it, or give raw scans to `gliomask predict --raw`.")
    url = url_of(folder)
    if url and folder.suffix.lower() in LIST_ENDINGS:
        with staged_list(folder) as copy:
            return _finished(replace(survey_list(copy, folder.parent), folder=folder))
    if url is None:
        refuse_no_folder(folder)
    listing = list_remote(url) if url else list_folder(folder)
    if output is not None and url is None:
        listing = without_results(listing, folder, output)
    found = _refuse_doubles(survey_listing(folder, listing))
    if not found.cases and not found.problems:
        if url is None and (kind := _raw_images(folder)):
            raise NoCaseError(
                f"{folder}: holds {kind}, not prepared cases. `gliomask predict --raw -i {folder} -o masks` takes them "
                "as they are; `gliomask preprocess` makes cases of them."
            )
        if listing.files and all(_holds_labels(path) for path in listing.files[:_SAMPLE]):
            raise InputError(
                f"{folder}: no case found: its NIfTI files seem to be masks (small whole numbers only), not "
                "examinations. Give the folder of the examinations; `gliomask evaluate MASKS TRUTH` scores masks."
            )
        passed_over = f" {len(found.passed_over)} files or folders were passed over." if found.passed_over else ""
        raise NoCaseError(
            f"{folder}: no case found. Looked in it and below for NIfTI files whose names end in a sequence, such as "
            "ID_t1ce.nii.gz or ID-t2f.nii (t1, t1ce, t2, flair and their synonyms), and for imagesTr/ with a "
            f"dataset.json (MSD, nnU-Net).{passed_over}"
        )
    return replace(found, cases=_with_one_spelling(with_labels_of(found.cases, folder, listing)))


def _finished(found: Survey) -> Survey:
    found = _refuse_doubles(found)
    return replace(found, cases=_with_one_spelling(found.cases))


def _with_one_spelling(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Return the cases with one spelling for each patient, so that `sub-A` and `SUB-a` are not split apart."""
    spellings: dict[str, str] = {}
    return tuple(replace(case, patient=spellings.setdefault(folded(case.patient), case.patient)) for case in cases)


def case_of_files(files: Mapping[str, Path]) -> Case:
    """Return a case of these files, given by sequence; its id is read in the first file's name, or is that name."""
    first = next(iter(files.values()))
    told = classify(first)
    found = find_patient(told[0] if told else stem_of(first))
    return Case(
        told[0] if told else stem_of(first),
        {modality: Source(path) for modality, path in files.items()},
        patient=found.patient,
        timepoint=found.timepoint,
        patient_rule=found.rule,
    )


def _holds_labels(path: Path) -> bool:
    """Tell whether a file can be a mask: three dimensions, and no voxels but the whole numbers of a few labels."""
    try:
        data = read_volume(path, mask=True).data
    except InputError:
        return False
    return len(data) == 1 and int(data.max(initial=0)) <= _LARGEST_LABEL


def _raw_images(folder: Path) -> str | None:
    """Return what kind of images below a folder `--raw` takes, in words; None if there is none."""
    for path in files_below(folder):
        if path.name.lower().endswith((".mha", ".mhd", ".nrrd", ".nhdr")):
            return "MetaImage or NRRD volumes"
        try:
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    return "DICOM files"
        except OSError:  # it may not be read
            continue
    return None


def _refuse_doubles(found: Survey) -> Survey:
    """Move cases that share an id, or whose id is too long, to the problems, and sort the others by id."""
    by_id: dict[str, list[Case]] = defaultdict(list)
    for case in found.cases:
        by_id[folded(case.id)].append(case)
    refused = []
    for same in by_id.values():
        folders = _folders_of(same)
        if len(same) > 1:
            what = f"the same id twice: {', '.join(map(str, folders))}. Remove or rename one."
            refused.append(Problem(same[0].id, what, tuple(folders)))
        elif fault := fault_of_length(same[0].id):
            refused.append(Problem(same[0].id, f"{folders[0]}: {fault}", tuple(folders)))
    left_out = {folded(problem.where) for problem in refused}
    unique = sorted((case for case in found.cases if folded(case.id) not in left_out), key=lambda case: case.id)
    return replace(found, layout=found.layout or "folders", cases=tuple(unique), problems=(*found.problems, *refused))


def _folders_of(cases: Sequence[Case]) -> list[Path]:
    sources: Iterable[Source] = (source for case in cases for source in case.images.values())
    return sorted({source.path.parent for source in sources}, key=str)
