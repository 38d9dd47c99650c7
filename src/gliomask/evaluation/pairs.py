"""Match predicted masks with true ones by case id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gliomask.cases import classify
from gliomask.errors import InputError
from gliomask.volume import NIFTI_ENDINGS

# The number by which the challenge identifies a case in a submission, whatever precedes it: BraTS-GLI-00001-000 is
# 00001-000.nii.gz; in 2026 also 0001-1.nii.gz.
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


def find_pairs(prediction: Path, truth: Path) -> MatchedMasks:
    """Return the masks that two places have in common, and those that only one of them has.

    A place is a mask or a folder. A folder may hold cases as downloaded (their masks are used), masks named `ID.nii.gz`
    or `ID_seg.nii.gz`, masks in `labelsTr`, or a submission to the challenge, whose file names end in the number of the
    case (`00001-000.nii.gz`). Two files form a pair whatever their names are. Given a file and a folder, only the case
    that the file belongs to is matched: other cases are neither missing nor extra.

    Raises:
        InputError: A place does not exist or holds no mask, two masks have the same id, a number fits several cases, or
            no id is in both places.
    """
    if prediction.is_file() and truth.is_file():
        return MatchedMasks((MaskPair(_id(truth), prediction, truth),))
    predicted, true = _masks(prediction), _masks(truth)
    names = _matches(predicted, true)
    if not names:
        raise InputError(
            f"no mask in {prediction} has the same id as a mask in {truth} "
            f"(ids such as {', '.join(sorted(predicted)[:2])} and {', '.join(sorted(true)[:2])})."
        )
    pairs = tuple(MaskPair(case, predicted[name], true[case]) for case, name in sorted(names.items()))
    missing = {case: path for case, path in sorted(true.items()) if case not in names}
    extra = {name: path for name, path in sorted(predicted.items()) if name not in names.values()}
    return MatchedMasks(pairs, {} if prediction.is_file() else missing, {} if truth.is_file() else extra)


def mask_stem(path: Path) -> str:
    """Return the name of a NIfTI file without its ending."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _matches(predicted: Mapping[str, Path], true: Mapping[str, Path]) -> dict[str, str]:
    """Return the predicted mask's name for each case: the case id, or else a name that ends in the case's number."""
    same = {case: case for case in true.keys() & predicted.keys()}
    numbers = _by_number(case for case in true if case not in same)
    for name in sorted(predicted.keys() - same.keys()):
        cases = numbers.get(_number(name), [])
        if len(cases) > 1 or any(case in same for case in cases):
            known = f" ({predicted[same[cases[0]]]})" if cases[0] in same else ""
            raise InputError(
                f"{predicted[name]}: may belong to {', '.join(cases)}{known}. Rename it to the case id, or remove one."
            )
        same |= dict.fromkeys(cases, name)
    return same


def _by_number(cases: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case in sorted(cases):
        if number := _number(case):
            found.setdefault(number, []).append(case)
    return found


def _number(name: str) -> str:
    found = _NUMBER.search(name)
    return found.group(1) if found else ""


def _masks(place: Path) -> dict[str, Path]:
    if place.is_file():
        return {_id(place): place}
    if not place.is_dir():
        raise InputError(f"{place}: no such file or folder.")
    folder = place / "labelsTr" if (place / "labelsTr").is_dir() else place
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.name.lower().endswith(NIFTI_ENDINGS) and not path.name.startswith(".") and path.is_file()
    ]
    told = {path: classify(path) for path in files}
    masks = [path for path, what in told.items() if what and what[1] == "mask"]
    if not masks:  # masks named by the id alone, as predict and nnU-Net write them
        masks = [path for path, what in told.items() if what is None and "probabilities" not in path.name]
    found: dict[str, Path] = {}
    for path in masks:
        case = _id(path)
        if case in found:
            raise InputError(f"{place}: two masks for {case}: {found[case]} and {path}. Remove one.")
        found[case] = path
    if not found:
        raise InputError(f"{place}: no mask found. Looked for ID.nii.gz and ID_seg.nii.gz in this folder and below.")
    return found


def _id(path: Path) -> str:
    told = classify(path)
    return told[0] if told and told[1] == "mask" else mask_stem(path)
