"""Lists of cases: CSV, TSV or Parquet with columns of files or of folders, or the `datalist.json` of MONAI."""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gliomask.cases.case import Case, Problem
from gliomask.cases.datalist import read_datalist
from gliomask.cases.dataset import DatasetSurvey
from gliomask.cases.layouts import layout_of
from gliomask.cases.naming import folded, folder_name
from gliomask.cases.patients import BY_FOLDERS, FoundPatient, find_patient
from gliomask.cases.rows import COLUMNS, Row, column_of, make_row
from gliomask.errors import InputError
from gliomask.execution import ahead
from gliomask.files.delimited import read_delimited
from gliomask.files.parquet import read_parquet

log = logging.getLogger(__name__)

LIST_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".json")
"""The endings of lists of cases."""
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
"""The endings of workbooks of spreadsheets, which are not read."""

_BY_FILE = "patients of the table {}"
# What programs write into the cells of a column that has no value in a row: R NA, pandas NaN, BIDS n/a.
_NO_VALUE = frozenset({"na", "n/a", "nan", "none", "null", "<na>"})
_SHOWN_HEADINGS = 8


@dataclass(frozen=True)
class _List:
    """A list as it was read."""

    rows: Sequence[Row]
    convention: str | None = None
    notes: tuple[str, ...] = ()


def is_table(path: Path) -> bool:
    """Tell whether a path is that of a list of cases, by its ending."""
    return path.suffix.lower() in LIST_ENDINGS and path.is_file()


def names_cases(path: Path) -> bool:
    """Tell whether a file is a list of cases, by its content."""
    try:
        return is_table(path) and bool(_read(path, path.parent).rows)
    except InputError:
        return False


def refuse_list(path: Path, instead: str) -> None:
    """Refuse a list of cases where a command does not take one.

    Args:
        path: What the command was given; anything but a list is let through.
        instead: What to give instead.

    Raises:
        InputError: It is a list, or is called like one and is not there.
    """
    if path.suffix.lower() in (*LIST_ENDINGS, *WORKBOOKS) and not path.is_dir():
        if not path.exists():
            raise InputError(f"{path}: no such file. {instead}")
        raise InputError(
            f"{path}: is a file; lists of cases are for check, convert, evaluate, predict (without --raw), prepare, "
            f"report, train, tune and view. {instead}"
        )


def refuse_no_folder(path: Path) -> None:
    """Refuse a path that is neither a folder nor a list of cases.

    Raises:
        InputError: As said.
    """
    ending = path.suffix.lower()
    if path.is_dir():
        return
    if ending in WORKBOOKS and path.exists():
        raise InputError(f"{path}: is a workbook of a spreadsheet. Save the sheet with the list of cases as CSV.")
    if path.exists():
        raise InputError(f"{path}: is a file, not a folder, and no list of cases ({', '.join(LIST_ENDINGS)}).")
    is_file = ending in (*LIST_ENDINGS, *WORKBOOKS, ".zip", ".nii", ".gz")
    raise InputError(f"{path}: no such {'file' if is_file else 'folder'}.")


def survey_table(
    path: Path, look: Callable[[Path], DatasetSurvey], *, base: Path | None = None, masks: bool = False
) -> DatasetSurvey:
    """Return the cases of a list, and what of it cannot be used, each with its line.

    A CSV, TSV or Parquet file has a column for each sequence, in any spelling, and the columns `id` (by default the id
    in the first image's name), `patient`, `timepoint` and `mask`, all of which may be missing. Cells may be empty, as
    those with `NA`, `n/a`, `NaN`, `None` or `null` are. Instead of sequences a row may have `folder` or `path`, the
    folder of one case (its name is the id by default, after that of the folder around it where it is named like an
    examination); a mask beside it goes before the mask in the folder, and the folder tells the patient where neither
    the row nor the id does. CSV files are read as `files.delimited` says.

    In a `datalist.json`, each entry of `training`, `validation` and `testing` has `image` and `label`. `image` is a
    list of files whose names tell the sequences, or a 4-D file whose channels the key `channel_names` or `modality`
    beside the lists tells. Instead of `image`, an entry may have keys that are sequences.

    Args:
        path: The list.
        look: Returns the one case in a folder, and what is wrong with the folder; called in threads.
        base: The folder from which paths in the list begin; by default the list's own.
        masks: Masks are asked for: a row needs no image, and one without a mask is passed over.

    Raises:
        InputError: The file cannot be read, or holds no such list.
    """
    listed = _read(path, path.parent if base is None else base, masks=masks)
    places = [row.folder for row in listed.rows if row.folder is not None and not row.problems]
    looked = dict(zip(places, ahead(look, places), strict=True)) if places else {}
    cases: list[tuple[Case, Row]] = []
    problems: list[Problem] = []
    passed_over: list[Problem] = []
    notes = [Problem(path.name, note) for note in listed.notes]
    for row in listed.rows:
        found = looked.get(row.folder) if row.folder is not None and not row.problems else None
        case, wrong = _case(path, row, listed.convention, found)
        if wrong:
            paths = (*row.paths, *(place for problem in (found.problems if found else ()) for place in problem.paths))
            problems.append(Problem(*_named(path, row, " ".join(wrong)), paths))
        elif masks and case.mask is None:
            passed_over.append(Problem(f"{path.name}, {row.line}", "has no mask"))
        else:
            cases.append((case, row))
        if found is not None:
            passed_over += found.passed_over
            notes += found.notes if not wrong else ()
    if not listed.rows:
        raise InputError(f"{path}: names no case.")
    unique, doubles = _without_doubles(path, cases)
    notes += _notes_on_same_files(path, unique)
    return DatasetSurvey(
        "table",
        tuple(case for case, _ in unique),
        (*problems, *doubles),
        tuple(dict.fromkeys(passed_over)),
        tuple(dict.fromkeys(notes)),
    )


def table_folds(path: Path) -> dict[str, int]:
    """Return the fold of each case for which a list names one, in a column or key `fold`.

    Raises:
        InputError: As for `survey_table`, or a fold is no whole number.
    """
    rows = [row for row in _read(path, path.parent).rows if "fold" in row.facts and not row.problems]
    for row in rows:
        if not row.facts["fold"].isdecimal():
            raise InputError(f"{path}, {row.line}: a fold is a whole number from 0, not {row.facts['fold']!r}.")
    return {row.id: int(row.facts["fold"]) for row in rows}


def _case(path: Path, row: Row, convention: str | None, found: DatasetSurvey | None) -> tuple[Case, list[str]]:
    """Return the case of a row, and what is wrong with it; a row that has anything wrong is not used."""
    case_id = row.id
    told = find_patient(case_id)
    named = row.facts.get("patient", "")
    layout = layout_of(case_id)
    case = Case(
        case_id,
        row.images,
        row.mask,
        convention or (layout.convention if layout else None),
        patient=named or told.patient,
        timepoint=row.facts.get("timepoint", "" if named else told.timepoint),
        patient_rule=_BY_FILE.format(path.name) if named else told.rule,
        convention_given=convention is not None,
    )
    wrong = list(row.problems)
    if found is not None:
        wrong += [each.what if each.name == each.where else str(each) for each in found.problems]
        if len(found.cases) == 1:
            inside = found.cases[0]
            case = replace(
                case,
                images=inside.images,
                mask=row.mask or inside.mask,
                convention=inside.convention or case.convention,
                convention_given=inside.convention_given,
            )
            if not case.patient_rule:
                case = _with_patient_of_folder(case, row, inside)
    return case, wrong


def _with_patient_of_folder(case: Case, row: Row, inside: Case) -> Case:
    """Return the case of a row that names no patient with the one that its folder tells, as it would by itself."""
    if inside.patient_rule:
        told = FoundPatient(inside.patient, inside.timepoint, inside.patient_rule)
    elif row.folder is not None and row.above:
        told = FoundPatient(row.above, folder_name(row.folder), BY_FOLDERS)
    else:
        return case
    timepoint = row.facts.get("timepoint", told.timepoint)
    return replace(case, patient=told.patient, timepoint=timepoint, patient_rule=told.rule)


def _named(path: Path, row: Row, what: str) -> tuple[str, str]:
    """Return what a problem is called after, the id where the row has one, and its text with the line."""
    if named := row.facts.get("id"):
        return named, f"{path.name}, {row.line}: {what}"
    return f"{path.name}, {row.line}", what


def _without_doubles(path: Path, cases: Sequence[tuple[Case, Row]]) -> tuple[list[tuple[Case, Row]], list[Problem]]:
    """Return the cases whose id no other has, and a problem for each id that several have."""
    by_id: dict[str, list[tuple[Case, Row]]] = defaultdict(list)
    for case, row in cases:
        by_id[folded(case.id)].append((case, row))
    problems = []
    for same in by_id.values():
        if len(same) > 1:
            lines = ", ".join(row.line for _, row in same)
            ids = list(dict.fromkeys(case.id for case, _ in same))
            what = f"the same id twice: {lines}. Remove or rename one."
            if len(ids) > 1:
                what = (
                    f"{' and '.join(ids)} ({lines}) differ only in upper and lower case or in how letters are "
                    "composed, and would be one file on Windows and macOS. Rename one."
                )
            problems.append(Problem(ids[0], f"{path.name}: {what}"))
    return [pair for pair in cases if len(by_id[folded(pair[0].id)]) == 1], problems


def _notes_on_same_files(path: Path, cases: Sequence[tuple[Case, Row]]) -> list[Problem]:
    """Return a note for each case that has a file of an earlier one, which may be a mistake of copying."""
    first: dict[tuple[str, int | None], tuple[Case, Row]] = {}
    notes = []
    for case, row in cases:
        files = [(os.path.normpath(source.path), source.channel) for source in case.images.values()]
        files += [(os.path.normpath(case.mask), None)] if case.mask else []
        others = dict.fromkeys(first[file][1].line for file in files if file in first)
        shared = sum(file in first for file in files)
        for file in files:
            first.setdefault(file, (case, row))
        if others:
            which = "the same files" if shared == len(files) else f"{shared} of {len(files)} files the same"
            notes.append(Problem(f"{path.name}, {row.line}", f"{case.id} has {which} as {', '.join(others)}"))
    return notes


def _read(path: Path, base: Path, *, masks: bool = False) -> _List:
    if path.suffix.lower() == ".json":
        rows, convention = read_datalist(path, base, masks=masks)
        return _List(rows, convention)
    if path.suffix.lower() == ".parquet":
        headings, cells = _read_parquet(path)
        return _rows(path, base, headings, cells, "", masks=masks)
    text = read_delimited(path, lambda heading: bool(column_of(heading)))
    log.info("%s: %s, %d rows", path, text.described, len(text.rows))
    found = _rows(
        path, base, text.header.cells, [(line.number, line.cells) for line in text.rows], text.described, masks=masks
    )
    if not text.doubt:
        return found
    note = f"is not in UTF-8, and was read as {text.encoding}: is {text.doubt} right? Otherwise save it as UTF-8"
    return replace(found, notes=(note, *found.notes))


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, Sequence[str]]]]:
    columns, rows = read_parquet(path)
    found = [[_text(path, column, number, row[column]) for column in columns] for number, row in enumerate(rows, 1)]
    return [column.strip() for column in columns], list(enumerate(found, 1))


def _text(path: Path, column: str, number: int, value: Any) -> str:
    """Return a cell of a Parquet file as text; a whole number in a column of fractions has none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes | list | dict) and column_of(column):
        raise InputError(f"{path}: row {number}: the column {column} holds {type(value).__name__}, not text.")
    return str(value).strip()


def _rows(
    path: Path,
    base: Path,
    headings: Sequence[str],
    lines: Iterable[tuple[int, Sequence[str]]],
    described: str,
    *,
    masks: bool,
) -> _List:
    """Return the rows of a table with these headings."""
    columns = _columns(path, headings, described, masks=masks)
    word = "line" if described else "row"
    last = max(place for place, heading in enumerate(headings) if heading)
    rows = []
    for number, line in lines:
        cells = {column: cell for column, cell in zip(columns, line, strict=False) if column and not _is_empty(cell)}
        beyond = [cell for cell in line[last + 1 :] if cell]
        if not cells and not beyond:
            continue
        row = make_row(f"{word} {number}", base, cells, masks=masks)
        if beyond:
            what = f"has more cells than the first line ({beyond[0]!r}). Quote a cell that has a separator in it."
            row = replace(row, problems=(what, *row.problems))
        elif len(line) == 1 < len(headings) and any(mark in line[0] for mark in ",;\t|"):
            what = f"has one cell, {line[0][:60]!r}: are its cells separated like those of the first line?"
            row = replace(row, problems=(what,), facts={})
        rows.append(row)
    unused = [heading for heading, column in zip(headings, columns, strict=True) if heading and not column]
    if not unused:
        return _List(rows)
    shown = ", ".join(unused[:_SHOWN_HEADINGS]) + (", ..." if len(unused) > _SHOWN_HEADINGS else "")
    return _List(rows, notes=(f"columns that are not used: {shown}",))


def _is_empty(cell: str) -> bool:
    return not cell or cell.lower() in _NO_VALUE


def _columns(path: Path, headings: Sequence[str], described: str, *, masks: bool) -> list[str]:
    """Return what each column holds: a sequence, a key of `COLUMNS`, or an empty string for any other column."""
    columns = [column_of(heading) for heading in headings]
    if twice := sorted({column for column in columns if column and columns.count(column) > 1}):
        which = [heading for heading, column in zip(headings, columns, strict=True) if column in twice]
        raise InputError(f"{path}: has two columns for {', '.join(twice)} ({', '.join(which)}). Keep one of them.")
    needed = {"", *COLUMNS.keys() - {"folder"}} - ({"mask"} if masks else set())
    if not set(columns) - needed:
        shown = ", ".join(map(repr, headings[:_SHOWN_HEADINGS])) or "nothing"
        found = f"It was read as {shown}" + (f" ({described})." if described else ".")
        if masks:
            raise InputError(
                f"{path}: has no column called mask, nor one called folder, nor one of a sequence. The first line "
                f"names the columns, such as id,mask; each cell of mask is the path of a file. {found}"
            )
        raise InputError(
            f"{path}: has no column of a sequence, nor one called folder. The first line names the columns, such as "
            "id,patient,t1,t1ce,t2,flair,mask; each cell of a sequence is the path of a file. In a list of folders "
            f"(id,folder) each cell is the path of a case's folder. {found}"
        )
    return columns
