"""The cases of a folder, by the names of the files in its listing and by the data sets that describe themselves."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gliomask.cases.adoption import Files, adopt_masks
from gliomask.cases.case import MODALITIES, Case, Problem, Source
from gliomask.cases.conventions import read_labels_file
from gliomask.cases.dataset import survey_dataset
from gliomask.cases.folders import Listing
from gliomask.cases.identity import Key, examination_folder, identify
from gliomask.cases.layouts import layout_of
from gliomask.cases.naming import folded, is_registered, names_beside, nifti_ending, read_name, stem_of
from gliomask.cases.sequence_folders import find_sequence_folders
from gliomask.errors import InputError
from gliomask.volume import read_volume

# Of the grid: a BraTS brain fills 14-20 %, the largest tumours 4 %.
_LARGEST_TUMOUR = 0.06
_RUN = re.compile(r"_run-[a-z0-9]+", re.IGNORECASE)


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


def survey_listing(folder: Path, listing: Listing) -> Survey:
    """Return the cases of a listed folder, and what is wrong with it by the files' names."""
    found = _survey_names(folder, listing)
    for dataset in listing.datasets:
        found = _with_dataset(found, dataset)
    return found


def with_labels_files(cases: Iterable[Case], read: Callable[[Path], str | None]) -> list[Case]:
    """Return the cases with the conventions that files in the folders of their masks, or above them, give.

    Args:
        cases: The cases.
        read: Returns the convention of a mask by such files, or None; called once for all masks of a folder and kind.
    """
    told: dict[tuple[Path, bool], str | None] = {}
    found = []
    for case in cases:
        if case.mask is not None:
            key = case.mask.parent, stem_of(case.mask).endswith("_dseg")
            if key not in told:
                told[key] = read(case.mask)
            if given := told[key]:
                case = replace(case, convention=given, convention_given=True)
        found.append(case)
    return found


def with_labels_of(cases: Sequence[Case], folder: Path, listing: Listing) -> list[Case]:
    """Return the cases of a folder with the conventions that files in it give (see `with_labels_files`)."""
    if not listing.described and not listing.datasets:
        return list(cases)

    def read(mask: Path) -> str | None:
        # A data set's own folders are not in the listing.
        in_dataset = any(mask.is_relative_to(dataset) for dataset in listing.datasets)
        return read_labels_file(mask, folder, None if in_dataset else listing.described)

    return with_labels_files(cases, read)


def _survey_names(folder: Path, listing: Listing) -> Survey:
    groups: dict[Key, Files] = defaultdict(lambda: defaultdict(list))
    passed_over = list(listing.passed_over)
    spellings: dict[Key, str] = {}
    by_sequence = find_sequence_folders(folder, listing.by_folder)
    beside = _names_by_place(folder, listing.by_folder)
    registered: list[Path] = []
    for parent, paths in listing.by_folder.items():
        # Kaggle: ID_flair.nii/00000057_brain_flair.nii
        above = parent if parent != folder and nifti_ending(parent) else None
        around = _place(folder, above.parent if above else parent)
        for path in paths:
            told_by = above or path
            place, told = by_sequence.get(path) or (around, read_name(told_by, beside[around]))
            if told is None and is_registered(told_by, beside[around]):
                registered.append(path)
                passed_over.append(Problem(str(path), "an image of one sequence that was registered to another"))
            elif told is None:
                passed_over.append(Problem(str(path), "its name is that of no sequence and no tumour mask"))
            elif told.role == "mask" and _holds_brain(path):
                passed_over.append(Problem(str(path), "a brain mask: one value over a whole brain"))
            else:
                name = spellings.setdefault((place, folded(told.case_id)), told.case_id)
                groups[place, name][told.role].append((told.rank, path))
    _join_runs(groups)
    notes = adopt_masks(folder, groups) + _notes_on_registered(folder, registered)
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


def _names_by_place(root: Path, by_folder: Mapping[Path, Sequence[Path]]) -> dict[Path, dict[str, set[str]]]:
    """Return what `names_beside` says of the files of each place."""
    places: dict[Path, list[Path]] = defaultdict(list)
    for parent, paths in by_folder.items():
        if parent != root and nifti_ending(parent):
            places[_place(root, parent.parent)].append(parent)
        else:
            places[_place(root, parent)] += paths
    return {place: names_beside(paths) for place, paths in places.items()}


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


def _notes_on_registered(root: Path, registered: Sequence[Path]) -> list[Problem]:
    """Say that images whose names tell two sequences are not used, as they would be missing without a word."""
    if not registered:
        return []
    names = registered[0].name + (", ..." if len(registered) > 1 else "")
    what = (
        f"images that were registered from one sequence to another are not used ({len(registered)}: {names}). Let the "
        "names of those that are wanted end in their own sequence"
    )
    return [Problem(str(root), what)]


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
