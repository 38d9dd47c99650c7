"""A table that tells which examinations are of one patient, where names do not tell it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliomask.errors import InputError
from gliomask.training.cache import CachedCase
from gliomask.training.own_files import reading

_FORM = "Write a CSV file with the columns case and patient, a row for each case."


def read_patients(path: Path, ids: Sequence[str]) -> dict[str, str]:
    """Return the patient of each case from a CSV file with the columns `case` and `patient`.

    Other columns, and rows of other cases, are ignored.

    Args:
        path: The file, in UTF-8.
        ids: The cases whose patients are needed.

    Raises:
        InputError: The file cannot be read, a column is missing, a row has no patient, a case has two patients, or
            cases are missing from the table.
    """
    patients: dict[str, str] = {}
    with reading(path, _FORM), path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        if missing := {"case", "patient"} - set(table.fieldnames or ()):
            raise ValueError(f"it has no column {' and no column '.join(sorted(missing))}")
        for row in table:
            case, patient = (row["case"] or "").strip(), (row["patient"] or "").strip()
            if not case or not patient:
                raise ValueError(f"line {table.line_num} lacks a case or a patient")
            if patients.setdefault(case, patient) != patient:
                raise ValueError(f"line {table.line_num} gives {case} a second patient")
    if absent := sorted(set(ids) - patients.keys()):
        raise InputError(
            f"{path}: has no patient for {len(absent)} of {len(ids)} cases, such as {', '.join(absent[:3])}. Add them."
        )
    return {case: patients[case] for case in ids}


def with_patients(cases: Sequence[CachedCase], path: Path | None) -> list[CachedCase]:
    """Return the cases with the patients of a table; without a table, with those that their names tell.

    Raises:
        InputError: As for `read_patients`.
    """
    if path is None:
        return list(cases)
    patients = read_patients(path, [case.id for case in cases])
    return [replace(case, patient=patients[case.id], patient_rule=f"the table {path.name}") for case in cases]
