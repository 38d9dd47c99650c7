"""Which patients a model was trained on, as the runs say in whose folders it and the models before it lie."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomask.cases import find_patient
from gliomask.training.cache import CachedCase
from gliomask.training.patients import read_table
from gliomask.training.record import read_start, read_trained_on


@dataclass(frozen=True)
class Learned:
    """What is known about the cases that a model was trained on."""

    ids: frozenset[str]
    """Their ids, with those of the models that it started from."""
    unknown: Path | None
    """The model, this one or one that it started from, of which it is not known; None if all are known."""


def learned_from(model: Path) -> Learned:
    """Return the cases that a model was trained on, from the `splits_final.json` beside it.

    If its run started from another model, the cases of that one are added, and so on.

    Raises:
        InputError: As for `record.read_trained_on`.
    """
    ids: frozenset[str] = frozenset()
    runs: set[Path] = set()
    while True:
        run = model.absolute().parent
        if run in runs or not (run / "splits_final.json").is_file():
            return Learned(ids, model)
        runs.add(run)
        ids |= read_trained_on(run)
        start = read_start(run)
        if start is None:
            return Learned(ids, None)
        model = Path(start)


def seen_patients(cases: Sequence[CachedCase], ids: Collection[str], table: Path | None) -> set[str]:
    """Return the patients of cases of whom a model has seen an examination, which need not be among the cases.

    Args:
        cases: With patients, from names or from the table.
        ids: The cases that the model was trained on.
        table: The table of patients, if there is one; see `patients.read_patients`.

    Raises:
        InputError: The table cannot be read.
    """
    patients = {case.id: case.patient for case in cases}
    known = (read_table(table) if table else {}) | patients
    seen = {known.get(name) or find_patient(name).patient for name in ids}
    return seen & set(patients.values())
