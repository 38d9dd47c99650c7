"""The label convention of each case: given by the user, that of its layout, or proved by the numbers in the masks."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gliomask.cases.case import Case
from gliomask.cases.dataset import described_convention
from gliomask.cases.folders import LABELS_FILE, LABELS_TABLE
from gliomask.cases.layouts import candidates_of
from gliomask.cases.naming import stem_of
from gliomask.errors import InputError
from gliomask.execution import ahead
from gliomask.labels import detect_convention, get_convention, label_values
from gliomask.volume import read_volume


def read_labels_file(mask: Path, top: Path, described: Container[Path] | None = None) -> str | None:
    """Return the convention in the `labels.txt` of the mask's folder, or of the nearest folder above that has one.

    For a BIDS mask (`..._dseg.nii.gz`) a table `dseg.tsv` or `desc-..._dseg.tsv` with the columns `index` and `name` or
    `abbreviation` does the same.

    Args:
        mask: A mask somewhere below `top`.
        top: The last folder that is looked into.
        described: The folders that hold such a file, if they were listed before: no other is looked into.

    Raises:
        InputError: The file names no convention.
    """
    bids = stem_of(mask).endswith("_dseg")
    for folder in mask.parents:
        if (described is None or folder in described) and (found := _convention_in(folder, bids=bids)):
            return found
        if folder == top:
            break
    return None


def _convention_in(folder: Path, *, bids: bool) -> str | None:
    path = folder / LABELS_FILE
    if path.is_file():
        try:
            return get_convention(path.read_text("utf-8").strip()).name
        except (InputError, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: should hold the name of a label convention: {error}") from error
    tables = sorted(folder.glob(f"*{LABELS_TABLE}")) if bids else []
    return next(filter(None, map(_convention_of_table, tables)), None)


def _convention_of_table(path: Path) -> str | None:
    """Return the convention that a BIDS table of labels describes, or None if it describes none that is known."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    return described_convention(
        {"labels": {row.get("abbreviation") or row.get("name"): row.get("index") for row in rows}}
    )


def resolve_conventions(cases: Sequence[Case], labels: str | None = None) -> list[Case]:
    """Return the cases with a convention each: the one asked for, the layout's, or the one that the masks prove.

    Cases of no known layout share one convention; their masks are read, all of them, for the numbers that settle it. Of
    cases with a known layout, masks are read until one holds another number than 1.

    Raises:
        InputError: `labels` is no convention, no mask can be read, or all masks that can be read do not settle it.
            This is also raised where no convention was given and no mask holds another number than 1: a BraTS
            convention reads that as necrosis, but such a mask is more likely one of the whole tumour (`wt-only`).
    """
    if labels is not None:
        name = get_convention(labels).name
        return [replace(case, convention=name, convention_given=True) for case in cases]
    refuse_ones(
        (case.id, case.mask, case.convention)
        for case in cases
        if case.mask is not None and case.convention is not None and not case.convention_given
    )
    unsettled = [case for case in cases if case.convention is None and case.mask is not None]
    proved = _proved_convention(unsettled) if unsettled else None
    return [replace(case, convention=case.convention or proved) for case in cases]


def common_convention(cases: Sequence[Case]) -> str:
    """Return the convention that most of the masks use; brats2021 where there is no mask.

    A convention that knows more regions goes before one that knows fewer, however many masks use that: what is written
    in it can hold all that was learned.
    """
    counts = Counter(case.convention for case in cases if case.mask is not None and case.convention is not None)
    most = max((len(get_convention(name).known) for name in counts), default=0)
    full = Counter({name: count for name, count in counts.items() if len(get_convention(name).known) == most})
    return full.most_common(1)[0][0] if full else "brats2021"


def refuse_ones(masks: Iterable[tuple[str, Path, str]]) -> None:
    """Refuse masks of which none holds another number than 1. The first other number ends the search.

    A convention of several tissues, assumed from the ids, gives the 1 the meaning of one of them, but such masks are
    more likely ones of a region as a whole. A mask that cannot be read says nothing here.

    Args:
        masks: The id, the file and the name of the assumed convention of each mask.

    Raises:
        InputError: No mask holds another number, and one or more hold a 1.
    """
    ones: list[tuple[str, str]] = []
    for case_id, path, convention in masks:
        if len(get_convention(convention).tissues) < 2:
            continue
        try:
            values = set(_values_in(path)) - {0}
        except InputError:
            continue  # it is reported where the case is read
        if values - {1}:
            return
        if values:
            ones.append((case_id, convention))
    if ones:
        first, convention = ones[0]
        meaning = get_convention(convention).tissues.get(1)
        where = first if len(ones) == 1 else f"{first} and {len(ones) - 1} more"
        raise InputError(
            f"{where}: no mask holds another number than 1, which would be {meaning} alone in {convention}. "
            f"Give the convention with --labels, or in a file {LABELS_FILE} in their folder: wt-only (the "
            f"whole tumour), tc-only (the tumour core), or {convention}."
        )


def _proved_convention(cases: Sequence[Case]) -> str:
    candidates = candidates_of(case.id for case in cases)
    # All of them: one mask of BraTS 2024 with a cavity and no enhancing tumour looks like BraTS 2021.
    found = list(ahead(_mask_values_or_error, cases))
    readable = [values for values in found if not isinstance(values, InputError)]
    if not readable:
        raise next(error for error in found if isinstance(error, InputError))
    values = set().union(*readable)
    where = cases[0].id if len(cases) == 1 else f"{cases[0].id} and {len(cases) - 1} more"
    convention = detect_convention(values, where, candidates)
    return convention.name if convention else "brats2021"  # every mask is empty: any convention says the same


def _mask_values_or_error(case: Case) -> list[int] | InputError:
    """Return the numbers in a mask; what is wrong with a bad one is also reported where its case is read."""
    try:
        return _mask_values(case)
    except InputError as error:
        return error


def _mask_values(case: Case) -> list[int]:
    return _values_in(case.mask) if case.mask is not None else []


def _values_in(path: Path) -> list[int]:
    return label_values(read_volume(path, mask=True).data)
