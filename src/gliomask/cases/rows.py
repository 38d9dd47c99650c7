"""The rows of a list of cases: which column holds what, and what of a row cannot be used."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gliomask.cases.case import MODALITIES, Source, get_modality
from gliomask.cases.naming import classify, fault_of_id, folder_name, id_of_mask, stem_of
from gliomask.cases.patients import names_examination
from gliomask.errors import InputError
from gliomask.files.remote import url_of

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "case", "case_id", "caseid", "name"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "participant_id"),
    "timepoint": ("timepoint", "time_point", "session", "session_id", "visit", "examination"),
    "mask": ("mask", "seg", "segmentation", "label", "truth"),
    "fold": ("fold",),
    "folder": ("folder", "path", "case_folder", "case_path", "directory"),
}
"""The accepted headings of the columns that are no sequences, in lower case."""
_HEADINGS = {heading: column for column, headings in COLUMNS.items() for heading in headings}

_PLACES = ("folder", "mask", *MODALITIES)
"""The columns whose cells are paths."""

# What spreadsheets write into a cell whose formula failed.
_FAILED_FORMULA = re.compile(r"#(N/A|REF!|NAME\?|VALUE!|DIV/0!|NULL!|NUM!)")
_UNPRINTABLE = re.compile(r"[\0-\x1f\x7f\u2028\u2029]")


@dataclass(frozen=True)
class Row:
    """One row of a list of cases: the files or the folder in it."""

    line: str
    """Where in the list it is, such as `line 4`."""
    images: Mapping[str, Source] = field(default_factory=dict)
    mask: Path | None = None
    folder: Path | None = None
    """The folder of the case, whose files are not known yet."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """The other cells that are not empty, by column."""
    problems: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    """The paths that the problems name."""
    above: str = ""
    """The name of the folder around `folder`, where that is named like an examination of a patient (`P1/ses-1`)."""

    @property
    def id(self) -> str:
        """The id that the row names, or else the one in the name of its folder or of its first file.

        A folder that is named like an examination has the name of the folder around it before its own.
        """
        if named := self.facts.get("id"):
            return named
        if self.folder is not None:
            return f"{self.above}_{folder_name(self.folder)}" if self.above else folder_name(self.folder)
        if self.images:
            first = next(iter(self.images.values())).path
            told = classify(first)
            return told[0] if told else stem_of(first)
        return id_of_mask(self.mask) if self.mask else ""


def column_of(heading: str) -> str:
    """Return what a column holds: a sequence, a key of `COLUMNS`, or an empty string for any other column."""
    name = " ".join(heading.lower().split())
    for spelling in (name, name.replace(" ", "_")):
        if spelling in _HEADINGS:
            return _HEADINGS[spelling]
        try:
            return get_modality(spelling)
        except InputError:
            continue
    return ""


def make_row(
    line: str, base: Path, cells: Mapping[str, str], images: Mapping[str, Source] | None = None, *, masks: bool = False
) -> Row:
    """Return a row of cells by column, with everything that is wrong with it.

    Args:
        line: Where in the list it is.
        base: The folder of the list, from which paths in it begin.
        cells: The cells that are not empty.
        images: Its images, where the cells are not their paths.
        masks: Masks are asked for: a row needs no image.
    """
    facts = {name: text for name, text in cells.items() if name in COLUMNS and name not in _PLACES}
    if images is None:
        images = {name: Source(path_in(base, text)) for name, text in cells.items() if name not in COLUMNS}
    folder = path_in(base, cells["folder"]) if "folder" in cells else None
    mask = path_in(base, cells["mask"]) if "mask" in cells else None
    row = Row(line, dict(images), mask, folder, facts, above=_examined(base, folder) if folder is not None else "")
    problems = [*_faults_of_cells(cells), *_faults_of_files(row, masks=masks)]
    if fault := fault_of_id(row.id):
        problems.append(fault)
    elif row.id.startswith("#"):
        problems.append("begins with '#'. Remove the row, or the sign from its id.")
    return replace(row, problems=tuple(problems), paths=_paths_of(row))


def _examined(base: Path, folder: Path) -> str:
    """Return the name of the folder around one that is named like an examination, unless it is that of the list."""
    if not names_examination(folder_name(folder)) or os.path.normpath(folder.parent) == os.path.normpath(base):
        return ""
    return folder_name(folder.parent)


def path_in(base: Path, text: str) -> Path:
    """Return the path in a cell, which may be a URL; others begin from the folder of the list."""
    return Path(text) if url_of(Path(text)) else base / text


def _faults_of_cells(cells: Mapping[str, str]) -> list[str]:
    problems = []
    for column, text in cells.items():
        if _FAILED_FORMULA.fullmatch(text):
            problems.append(f"the cell of {column} is {text}, the error of a spreadsheet.")
        elif column in _PLACES and "\0" in text:
            problems.append("a path has a null character.")
        elif _UNPRINTABLE.search(text) and column != "id":
            problems.append(
                f"the cell of {column} has a line break or a control character. Is a quotation mark missing?"
            )
    return problems


def _faults_of_files(row: Row, *, masks: bool) -> list[str]:
    problems = []
    if row.folder is not None and row.images:
        problems.append(
            f"names a folder and also files ({', '.join(row.images)}). Leave one of the two empty: the folder, or all "
            "sequences."
        )
    if not row.images and row.folder is None and not masks:
        problems.append("has no image.")
    uses: dict[tuple[str, int | None], list[str]] = {}
    files = {**row.images, **({"mask": Source(row.mask)} if row.mask else {})}
    for name, source in files.items():
        uses.setdefault((os.path.normpath(source.path), source.channel), []).append(name)
    problems += [
        f"{' and '.join(names)} are the same file: {files[names[0]].path}." for names in uses.values() if len(names) > 1
    ]
    return problems


def _paths_of(row: Row) -> tuple[Path, ...]:
    places = (*(source.path for source in row.images.values()), row.mask, row.folder)
    return tuple(dict.fromkeys(place for place in places if place is not None))
