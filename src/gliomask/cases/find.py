"""The cases of a folder as it was downloaded, and everything about the folder that does not fit."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import is_zipfile

from gliomask.cases.adoption import Files, adopt_masks
from gliomask.cases.case import MODALITIES, Case, Problem, Source
from gliomask.cases.conventions import read_labels_file
from gliomask.cases.dataset import DatasetSurvey, survey_dataset
from gliomask.cases.folders import Listing, list_folder, without_results
from gliomask.cases.identity import Key, examination_folder, identify
from gliomask.cases.layouts import layout_of
from gliomask.cases.naming import classify, fault_of_length, folded, id_of_mask, nifti_ending, read_name, stem_of
from gliomask.cases.patients import find_patient
from gliomask.cases.sequence_folders import find_sequence_folders
from gliomask.cases.staging import list_remote, staged_list
from gliomask.cases.tables import LIST_ENDINGS, WORKBOOKS, is_table, refuse_no_folder, survey_table
from gliomask.errors import InputError
from gliomask.files.remote import url_of
from gliomask.volume import read_volume

# Of the grid: a BraTS brain fills 14-20 %, the largest tumours 4 %.
_LARGEST_TUMOUR = 0.06

# Of the files in a folder without cases, that many are read to tell whether they are masks.
_SAMPLE = 3
_LARGEST_LABEL = 10
_SHOWN_IDS = 3

_RUN = re.compile(r"_run-[a-z0-9]+", re.IGNORECASE)


class NoCaseError(InputError):
    """A folder holds no prepared case; it may hold raw images."""


@dataclass(frozen=True)
class Survey:
    """What a folder holds by its files' names; voxels are read of files called `mask` only."""

    folder: Path
    layout: str
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    """What cannot be used: cases that are left out of `cases`, and folders that cannot be read."""
    notes: tuple[Problem, ...]
    """What was decided about cases that are used."""
    passed_over: tuple[Problem, ...] = ()
    """Images, masks and folders that belong to no case, and why."""


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
        return _survey_list(folder)
    if folder.is_file() and is_zipfile(folder):
        if folder.suffix.lower() in WORKBOOKS:
            refuse_no_folder(folder)
        raise InputError(f"{folder}: is a zip file. Unpack it, or give raw scans to `gliomask predict --raw`.")
    url = url_of(folder)
    if url and folder.suffix.lower() in LIST_ENDINGS:
        with staged_list(folder) as copy:
            return replace(_survey_list(copy, folder.parent), folder=folder)
    if url is None:
        refuse_no_folder(folder)
    listing = list_remote(url) if url else list_folder(folder)
    if output is not None and url is None:
        listing = without_results(listing, folder, output)
    found = _refuse_doubles(_survey_listing(folder, listing))
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
    return replace(found, cases=_with_one_spelling(_with_labels_files(found.cases, folder, listing)))


def survey_masks(path: Path) -> DatasetSurvey:
    """Return the masks in a list of cases, as cases that may have no image; a row without a mask is passed over.

    Raises:
        InputError: As for `cases.tables.survey_table`.
    """
    return survey_table(path, _look_for_mask, masks=True)


def _survey_list(path: Path, base: Path | None = None) -> Survey:
    table = survey_table(path, _look_for_case, base=base)
    cases = _with_labels_beside(base or path.parent, table.cases)
    found = Survey(path, table.layout, tuple(cases), table.problems, table.notes, table.passed_over)
    found = _refuse_doubles(found)
    return replace(found, cases=_with_one_spelling(found.cases))


def _survey_listing(folder: Path, listing: Listing) -> Survey:
    found = _survey_names(folder, listing)
    for dataset in listing.datasets:
        found = _with_dataset(found, dataset)
    return found


def _look_for_case(place: Path) -> DatasetSurvey:
    """Return the one case in a folder that a list names; none, with the reason, where it holds no case or several."""
    url = url_of(place)
    if fault := None if url else _fault_of_place(place):
        return _refused(place, fault)
    try:
        listing = list_remote(url) if url else list_folder(place)
        found = _survey_listing(place, listing)
        found = replace(found, cases=tuple(_with_labels_files(_as_one(found.cases), place, listing)))
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


def _with_labels_beside(top: Path, cases: Iterable[Case]) -> list[Case]:
    """Return the cases of a list with the conventions that files beside their masks, or above them, give.

    Folders above are looked into up to that of the list, if the mask lies below it.
    """
    told: dict[tuple[Path, bool], str | None] = {}
    found = []
    top = Path(os.path.normpath(top.absolute()))
    for case in cases:
        if case.mask is not None and not case.convention_given and url_of(case.mask) is None:
            mask = Path(os.path.normpath(case.mask.absolute()))
            key = mask.parent, stem_of(mask).endswith("_dseg")
            if key not in told:
                told[key] = read_labels_file(mask, top if mask.is_relative_to(top) else mask.parent)
            if given := told[key]:
                case = replace(case, convention=given, convention_given=True)
        found.append(case)
    return found


def _with_one_spelling(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Return the cases with one spelling for each patient, so that `sub-A` and `SUB-a` are not split apart."""
    spellings: dict[str, str] = {}
    return tuple(replace(case, patient=spellings.setdefault(folded(case.patient), case.patient)) for case in cases)


def _with_labels_files(cases: Sequence[Case], folder: Path, listing: Listing) -> list[Case]:
    """Return the cases with the conventions that files in the folders of their masks, or above them, give."""
    if not listing.described and not listing.datasets:
        return list(cases)
    told: dict[tuple[Path, bool], str | None] = {}
    found = []
    for case in cases:
        if case.mask is not None:
            key = case.mask.parent, stem_of(case.mask).endswith("_dseg")
            if key not in told:
                # A data set's own folders are not in the listing.
                in_dataset = any(case.mask.is_relative_to(dataset) for dataset in listing.datasets)
                told[key] = read_labels_file(case.mask, folder, None if in_dataset else listing.described)
            if given := told[key]:
                case = replace(case, convention=given, convention_given=True)
        found.append(case)
    return found


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
    for path in sorted(folder.rglob("*")):
        if path.name.lower().endswith((".mha", ".mhd", ".nrrd", ".nhdr")):
            return "MetaImage or NRRD volumes"
        try:
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    return "DICOM files"
        except OSError:  # a folder, or a file that may not be read
            continue
    return None


def _survey_names(folder: Path, listing: Listing) -> Survey:
    groups: dict[Key, Files] = defaultdict(lambda: defaultdict(list))
    passed_over = list(listing.passed_over)
    spellings: dict[Key, str] = {}
    by_sequence = find_sequence_folders(folder, listing.by_folder)
    for parent, paths in listing.by_folder.items():
        # Kaggle: ID_flair.nii/00000057_brain_flair.nii
        above = parent if parent != folder and nifti_ending(parent) else None
        around = _place(folder, above.parent if above else parent)
        for path in paths:
            place, told = by_sequence.get(path) or (around, read_name(above or path))
            if told is None:
                passed_over.append(Problem(str(path), "its name is that of no sequence and no tumour mask"))
            elif told.role == "mask" and _holds_brain(path):
                passed_over.append(Problem(str(path), "a brain mask: one value over a whole brain"))
            else:
                name = spellings.setdefault((place, folded(told.case_id)), told.case_id)
                groups[place, name][told.role].append((told.rank, path))
    _join_runs(groups)
    notes = adopt_masks(folder, groups)
    notes += _notes_on_links(groups, listing.broken_links) + _notes_on_halves(groups)
    identities = identify(folder, groups)
    cases: list[Case] = []
    problems = list(listing.problems)
    for key, files in groups.items():
        if set(files) == {"mask"}:
            passed_over += [Problem(str(path), "a mask without images beside it") for _, path in files["mask"]]
            continue
        chosen, doubles = _choose(files, passed_over)
        who = identities[key]
        problems += [
            Problem(
                who.case_id,
                f"{len(paths)} files for {role}: {', '.join(map(str, paths))}. Keep one of them.",
                tuple(paths),
            )
            for role, paths in doubles.items()
        ]
        if not doubles:
            layout = layout_of(who.case_id)
            images = {modality: Source(chosen[modality]) for modality in MODALITIES if modality in chosen}
            convention = layout.convention if layout else None
            cases.append(
                Case(who.case_id, images, chosen.get("mask"), convention, who.patient, who.timepoint, who.patient_rule)
            )
    layouts = {layout.name: layout for case in cases if (layout := layout_of(case.id))}
    notes += [Problem(name, layout.note) for name, layout in sorted(layouts.items()) if layout.note]
    names = {layout.name if (layout := layout_of(case.id)) else "folders" for case in cases}
    return Survey(folder, " + ".join(sorted(names)), tuple(cases), tuple(problems), tuple(notes), tuple(passed_over))


def _place(root: Path, folder: Path) -> Path:
    """Return the folder whose name tells cases apart; a folder for each sequence (`P1/T1/t1.nii`) counts as P1."""
    folder = examination_folder(root, folder)
    named = read_name(folder) if folder != root else None
    return folder.parent if named and not named.case_id else folder


def _join_runs(groups: dict[Key, Files]) -> None:
    """Take the runs of a BIDS session for one case, unless each of them holds several sequences of an examination."""
    by_session: dict[Key, list[Key]] = defaultdict(list)
    for folder, name in groups:
        if name.lower().startswith("sub-"):
            by_session[folder, _RUN.sub("", name)].append((folder, name))
    for session, keys in by_session.items():
        if len(keys) > 1 and any(len(groups[key].keys() - {"mask"}) < 2 for key in keys):
            joined: Files = defaultdict(list)
            for key in keys:
                for role, files in groups.pop(key).items():
                    joined[role] += files
            groups[session] = joined


def _holds_brain(path: Path) -> bool:
    """Tell whether a file called just `mask` is a brain's: binary, over more of the grid than any tumour fills."""
    stem = stem_of(path).lower()
    if not stem.endswith("mask") or any(word in stem for word in ("tumor", "tumour", "lesion", "glioma")):
        return False
    try:
        data = read_volume(path, mask=True).data
    except InputError:
        return False  # said when the case is read
    return bool(data.max() == 1) and float(data.mean()) > _LARGEST_TUMOUR


def _choose(files: Files, passed_over: list[Problem]) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Return the file of the highest rank for each role, and the roles for which several files have that rank."""
    chosen: dict[str, Path] = {}
    doubles: dict[str, list[Path]] = {}
    for role, ranked in files.items():
        highest = max(rank for rank, _ in ranked)
        best = [path for rank, path in ranked if rank == highest]
        others = [path for rank, path in ranked if rank < highest]
        passed_over += [Problem(str(path), f"{best[0].name} beside it is used as {role}") for path in others]
        chosen[role] = best[0]
        if len(best) > 1:
            doubles[role] = best
    return chosen, doubles


def _notes_on_links(groups: Mapping[Key, Files], broken: Collection[Path]) -> list[Problem]:
    used = {path for files in groups.values() for ranked in files.values() for _, path in ranked} if broken else set()
    return [Problem(str(path), f"a link to {path.readlink()}, which is not there") for path in broken if path in used]


def _notes_on_halves(groups: Mapping[Key, Files]) -> list[Problem]:
    """Say where the cases of one folder complement each other, as one examination under several names would."""
    by_folder: dict[Path, list[tuple[str, set[str]]]] = defaultdict(list)
    for (folder, name), files in groups.items():
        if images := set(files) - {"mask"}:
            by_folder[folder].append((name, images))
    notes = []
    for folder, named in by_folder.items():
        sequences = [modality for _, images in named for modality in images]
        if len(named) > 1 and len(sequences) == len(set(sequences)):
            names = ", ".join(name or "(no id)" for name, _ in named)
            notes.append(
                Problem(
                    str(folder),
                    f"{len(named)} cases ({names}) with different sequences each: is it one examination, "
                    "whose files should begin with the same id?",
                )
            )
    return notes


def _with_dataset(found: Survey, folder: Path) -> Survey:
    try:
        dataset = survey_dataset(folder)
    except InputError as error:
        if folder == found.folder:
            raise
        file = folder / "dataset.json"
        text = str(error).removeprefix(f"{file}: ")
        return replace(found, problems=(*found.problems, Problem(str(file), text, (file,))))
    return replace(
        found,
        layout=" + ".join(sorted({*filter(None, found.layout.split(" + ")), dataset.layout})),
        cases=(*found.cases, *dataset.cases),
        problems=(*found.problems, *dataset.problems),
        passed_over=(*found.passed_over, *dataset.passed_over),
    )


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
