"""Match predicted masks with true ones by case id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gliomask.cases import Problem, classify, is_table, layout_of, survey, survey_masks
from gliomask.cases.folders import list_folder, place_within
from gliomask.errors import InputError
from gliomask.files import place_of
from gliomask.files.remote import url_of

# The number by which the challenge identifies a case in a submission, whatever precedes it: BraTS-GLI-00001-000 is
# 00001-000.nii.gz; in 2026 also 0001-1.nii.gz.
EDITED = "_edited"
"""The end of the names of corrected masks: `ID_edited.nii.gz`, as `gliomask view --edit` writes them."""

_SHOWN = 3
"""Of the reasons why no mask of a list can be used, how many are shown."""
_NUMBER = re.compile(r"(?<!\d)(\d{5}(?:-\d{3})?|\d{4}-\d{1,3})$")


@dataclass(frozen=True)
class MaskPair:
    """The files of a predicted mask and its truth."""

    id: str
    prediction: Path
    truth: Path


@dataclass(frozen=True)
class MatchedMasks:
    """The masks of two places, matched by case id."""

    pairs: tuple[MaskPair, ...]
    missing: Mapping[str, Path] = field(default_factory=dict)
    """True masks without a prediction."""
    extra: Mapping[str, Path] = field(default_factory=dict)
    """Predictions without a truth."""
    passed_over: tuple[Problem, ...] = ()
    """Files and folders that are no mask, and why."""
    problems: tuple[Problem, ...] = ()
    """Folders that cannot be read. The cases that are called like them are neither missing nor extra."""
    notes: tuple[Problem, ...] = ()
    """Which masks are used where there are corrected ones."""


def find_pairs(prediction: Path, truth: Path, *, edited: bool = False) -> MatchedMasks:
    """Return the masks that two places have in common, and those that only one of them has.

    A place is a mask, a folder, or a list of cases with a column of masks or of folders (`cases.tables`). A folder may
    hold cases as downloaded (their masks are used), masks named `ID.nii.gz` or `ID_seg.nii.gz`, masks in `labelsTr`, or
    a submission to the challenge, whose file names end in the number of the case (`00001-000.nii.gz`). Two files form a
    pair whatever their names are. Given a file and a folder, only the case that the file belongs to is matched: other
    cases are neither missing nor extra.

    Of a prediction and its correction by hand (`ID_edited.nii.gz`) in one folder, one is used, and `notes` says which.
    A correction whose prediction is not there is used for its case.

    Args:
        prediction: A mask, a folder or a list of cases.
        truth: Likewise.
        edited: Use the corrections in place of the predictions that they belong to.

    Raises:
        InputError: With `edited`, there is no correction. A place does not exist or holds no mask, two masks have the
            same id, a number fits several cases, or no id is in both places.
    """
    if _is_mask(prediction) and _is_mask(truth):
        return MatchedMasks((MaskPair(_id(truth), prediction, truth),))
    places = _look_into(prediction, truth), _look_into(truth, prediction)
    _adopt_unnamed(*places)
    notes = (*_settle_edited(prediction, places[0], edited), *_settle_edited(truth, places[1], False))
    notes += tuple(note for place in places for note in place.notes)
    predicted, true = (place.masks for place in places)
    names = _matches(predicted, true)
    if not names:
        raise InputError(
            f"no mask in {prediction} has the same id as a mask in {truth} "
            f"(ids such as {', '.join(sorted(predicted)[:2])} and {', '.join(sorted(true)[:2])})."
        )
    pairs = tuple(MaskPair(case, predicted[name], true[case]) for case, name in sorted(names.items()))
    notes += tuple(_note_on_same_files(pairs))
    if by_number := [(name, case) for case, name in sorted(names.items()) if name != case]:
        some = ", ".join(f"{name} with {case}" for name, case in by_number[:_SHOWN])
        rest = f" and {len(by_number) - _SHOWN} more" if len(by_number) > _SHOWN else ""
        notes += (Problem(str(prediction), f"matched by the number at the end of the name: {some}{rest}"),)
    missing = {case: path for case, path in sorted(true.items()) if case not in names}
    extra = {name: path for name, path in sorted(predicted.items()) if name not in names.values()}
    problems = tuple(dict.fromkeys(each for place in places for each in place.problems))
    unread = {problem.name for problem in problems}
    return MatchedMasks(
        pairs,
        {} if _is_mask(prediction) else {case: path for case, path in missing.items() if case not in unread},
        {} if _is_mask(truth) else {name: path for name, path in extra.items() if name not in unread},
        tuple(dict.fromkeys(each for place in places for each in place.passed_over)),
        problems,
        notes,
    )


def _note_on_same_files(pairs: Sequence[MaskPair]) -> list[Problem]:
    """Return a note if masks are compared with themselves."""
    same = [pair for pair in pairs if place_of(pair.prediction) == place_of(pair.truth)]
    if not same:
        return []
    count = f"in {len(same)} of {len(pairs)} cases" if len(pairs) > 1 else "in this case"
    return [Problem("truth", f"is the same file as the prediction {count} ({same[0].truth})")]


def mask_stem(path: Path) -> str:
    """Return the name of a NIfTI file without its ending."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _matches(predicted: Mapping[str, Path], true: Mapping[str, Path]) -> dict[str, str]:
    """Return the predicted mask's name for each case: the case id, or else a name that ends in the case's number.

    A name that is itself the id of a case of a known layout is that case and no other, whatever its number is.
    """
    same = {case: case for case in true.keys() & predicted.keys()}
    numbers = _by_number(case for case in true if case not in same)
    for name in sorted(name for name in predicted.keys() - same.keys() if layout_of(name) is None):
        cases = numbers.get(_number(name), [])
        if len(cases) > 1 or any(case in same for case in cases):
            known = f" ({predicted[same[cases[0]]]})" if cases[0] in same else ""
            raise InputError(
                f"{predicted[name]}: may belong to {', '.join(cases)}{known}. Rename it to the case id, or remove one."
            )
        same |= dict.fromkeys(cases, name)
    return same


def _settle_edited(where: Path, place: _Place, edited: bool) -> list[Problem]:
    """Keep one mask of each case: the prediction, or its correction; return what is used if there are corrections."""
    known = {**place.unnamed, **place.masks}
    found = {
        name.removesuffix(EDITED): path for name, path in known.items() if name.endswith(EDITED) and name != EDITED
    }
    if edited and not found:
        raise InputError(
            f"{where}: no corrected mask (ID{EDITED}.nii.gz). Leave out --edited to score the predictions."
        )
    for case, path in found.items():
        place.masks.pop(f"{case}{EDITED}", None)
        place.passed_over = [problem for problem in place.passed_over if problem.where != str(path)]
    beside = sorted(found.keys() & place.masks.keys())
    alone = sorted(found.keys() - place.masks.keys())
    place.masks |= {case: path for case, path in found.items() if edited or case in alone}
    if edited:
        others = len(place.masks) - len(found)
        rest = f"; of {others} other case(s) there is none, and the prediction is scored" if others else ""
        return [Problem(str(where), f"the corrected masks are scored: {_some(sorted(found))}{rest}")]
    notes = []
    if beside:
        text = f"the corrected masks of {_some(beside)} are not scored, but the masks that were corrected"
        notes.append(Problem(str(where), f"{text}; --edited scores the corrections of predictions"))
    if alone:
        notes.append(Problem(str(where), f"only the corrected masks are there, and are scored, of {_some(alone)}"))
    return notes


def _some(cases: Sequence[str]) -> str:
    return ", ".join(cases[:5]) + (f" and {len(cases) - 5} more" if len(cases) > 5 else "")


def _by_number(cases: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case in sorted(cases):
        if number := _number(case):
            found.setdefault(number, []).append(case)
    return found


def _number(name: str) -> str:
    found = _NUMBER.search(name)
    return found.group(1) if found else ""


@dataclass
class _Place:
    """The masks of a place by id, and what of it is not used."""

    masks: dict[str, Path] = field(default_factory=dict)
    unnamed: dict[str, Path] = field(default_factory=dict)
    """Files beside the masks by their whole name, which is not that of a mask, but may be the id of a case."""
    passed_over: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    """What was decided about a list."""


def _is_mask(path: Path) -> bool:
    return path.is_file() and not is_table(path)


def _read_list(path: Path) -> _Place:
    """Return the masks that a list of cases names.

    Raises:
        InputError: The list cannot be read, or no mask in it can be used.
    """
    found = survey_masks(path)
    remote = [case for case in found.cases if case.mask is not None and url_of(case.mask)]
    what = "its mask lies in an object store. Name the place itself, or copy the masks to this machine."
    problems = [*found.problems, *(Problem(case.id, f"{path.name}: {what}") for case in remote)]
    unusable = {problem.where for problem in problems}
    masks = {case.id: case.mask for case in found.cases if case.mask is not None and case.id not in unusable}
    if not masks:
        reasons = "".join(f" {problem}" for problem in problems[:_SHOWN])
        raise InputError(
            f"{path}: names no mask that can be used. A list of cases needs a column mask, or folders with masks "
            f"(column folder).{reasons}"
        )
    return _Place(masks, passed_over=list(found.passed_over), problems=problems, notes=list(found.notes))


def _look_into(path: Path, other: Path) -> _Place:
    """Return the masks of a place; those of the other place, if that lies in it, are not among them."""
    if is_table(path):
        return _read_list(path)
    if path.is_file():
        return _Place({_id(path): path})
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder.")
    inside = place_within(path, other)
    without = inside if inside != path else None
    files, place = _list_masks(path, without)
    told = {file: classify(file) for file in files}
    masks = [file for file, what in told.items() if what and what[1] == "mask"]
    unnamed = [file for file, what in told.items() if what is None and "probabilities" not in file.name]
    if masks:
        place.passed_over += [_not_a_mask(file) for file in unnamed]
        place.unnamed = {_id(file): file for file in unnamed}
    for file in masks or unnamed:  # named by the id alone, as predict and nnU-Net write them
        case = _id(file)
        if case in place.masks or not case:
            if by_folder := _masks_by_folder(path, without):
                place.masks = by_folder
                break
            if case in place.masks:
                raise InputError(f"{path}: two masks for {case}: {place.masks[case]} and {file}. Remove one.")
        place.masks[case] = file
    if not place.masks:
        reasons = "".join(f" {problem}" for problem in place.problems)
        raise InputError(
            f"{path}: no mask found. Looked for ID.nii.gz and ID_seg.nii.gz in this folder and below.{reasons}"
        )
    return place


def _not_a_mask(file: Path) -> Problem:
    return Problem(str(file), "its name is that of no tumour mask")


def _adopt_unnamed(predicted: _Place, true: _Place) -> None:
    """Take `ID.nii.gz` for a mask also beside files such as `ID_seg.nii.gz`, where the other place has that case.

    Raises:
        InputError: Two predicted masks belong to one case.
    """
    for place, other in ((predicted, true), (true, predicted)):
        for case in place.unnamed.keys() & other.masks.keys():
            file = place.unnamed[case]
            if case not in place.masks:
                place.masks[case] = file
                place.passed_over.remove(_not_a_mask(file))
            elif place is predicted:
                raise InputError(f"{file}: a second mask for {case} beside {place.masks[case]}. Remove one.")


def _masks_by_folder(path: Path, without: Path | None) -> dict[str, Path]:
    """Return the masks of cases whose ids are the names of their folders; none if that leaves anything unclear."""
    with suppress(InputError):
        found = survey(path)
        if not found.problems:
            masks = {case.id: case.mask for case in found.cases if case.mask is not None}
            return {case: mask for case, mask in masks.items() if without is None or not mask.is_relative_to(without)}
    return {}


def _list_masks(path: Path, without: Path | None) -> tuple[list[Path], _Place]:
    """Return the NIfTI files at any depth, of data sets with `labelsTr` only those in there, and what is not read.

    Files of a folder below, `without`, are left out.
    """
    waiting, files, place = [path], list[Path](), _Place()
    while waiting:
        folder = waiting.pop()
        labels = folder / "labelsTr"
        listing = list_folder(labels if labels.is_dir() else folder)
        files += listing.files
        waiting += [dataset for dataset in listing.datasets if (dataset / "labelsTr").is_dir()]
        place.passed_over += listing.passed_over
        place.problems += listing.problems
    if without is not None:
        files = [file for file in files if not file.is_relative_to(without)]
        place.passed_over = [each for each in place.passed_over if not Path(each.where).is_relative_to(without)]
    return sorted(files), place


def _id(path: Path) -> str:
    told = classify(path)
    return told[0] if told and told[1] == "mask" else mask_stem(path)
