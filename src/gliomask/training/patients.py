"""A table that tells which examinations are of one patient, where names do not tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliomask.errors import InputError
from gliomask.files.delimited import read_delimited
from gliomask.training.cache import CachedCase
from gliomask.training.own_files import reading

_COLUMNS = {"case", "patient"}
_FORM = "Write a CSV file with the columns case and patient, a row for each case."


def read_patients(path: Path, ids: Sequence[str]) -> dict[str, str]:
    """Return the patient of each case from a CSV file with the columns `case` and `patient`.

    Other columns, and rows of other cases, are ignored.

    Args:
        path: The file, as CSV, TSV or the like (`files.delimited`).
        ids: The cases whose patients are needed.

    Raises:
        InputError: The file cannot be read, a column is missing, a row has no patient, a case has two patients, or
            cases are missing from the table.
    """
    patients = read_table(path)
    if absent := sorted(set(ids) - patients.keys()):
        raise InputError(
            f"{path}: has no patient for {len(absent)} of {len(ids)} cases, such as {', '.join(absent[:3])}. Add them."
        )
    return {case: patients[case] for case in ids}


def read_table(path: Path) -> dict[str, str]:
    """Return the patient of each case in a table, also of cases that are not given.

    Raises:
        InputError: As for `read_patients`, except that no case is missing.
    """
    patients: dict[str, str] = {}
    with reading(path, _FORM):
        table = read_delimited(path, lambda heading: heading.lower() in _COLUMNS)
        headings = [heading.lower() for heading in table.header.cells]
        if missing := _COLUMNS - set(headings):
            raise ValueError(f"it has no column {' and no column '.join(sorted(missing))}")
        if twice := [name for name in sorted(_COLUMNS) if headings.count(name) > 1]:
            raise ValueError(f"it has two columns {twice[0]}")
        for row in table.rows:
            cells = dict(zip(headings, row.cells, strict=False))
            case, patient = cells.get("case", ""), cells.get("patient", "")
            if not case or not patient:
                raise ValueError(f"line {row.number} lacks a case or a patient")
            if patients.setdefault(case, patient) != patient:
                raise ValueError(f"line {row.number} gives {case} a second patient")
    return patients


def with_patients(cases: Sequence[CachedCase], path: Path | None) -> list[CachedCase]:
    """Return the cases with the patients of a table; without a table, with those that their names tell.

    Raises:
        InputError: As for `read_patients`.
    """
    if path is None:
        return list(cases)
    patients = read_patients(path, [case.id for case in cases])
    return [replace(case, patient=patients[case.id], patient_rule=f"the table {path.name}") for case in cases]
