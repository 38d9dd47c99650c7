"""Tables of cases: CSV or Parquet with columns of files or of folders, or the `datalist.json` of MONAI."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gliomask.cases.case import MODALITIES, Case, Problem, Source, get_modality
from gliomask.cases.dataset import DatasetSurvey, described_channels, described_convention
from gliomask.cases.folders import list_folder
from gliomask.cases.layouts import layout_of
from gliomask.cases.naming import classify, folder_name, stem_of
from gliomask.cases.patients import find_patient
from gliomask.errors import InputError
from gliomask.files.parquet import read_parquet

# The accepted headings of the columns that are no sequences, in lower case.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "case", "case_id", "caseid", "name"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "participant_id"),
    "timepoint": ("timepoint", "time_point", "session", "session_id", "visit", "examination"),
    "mask": ("mask", "seg", "segmentation", "label", "truth"),
    "fold": ("fold",),
    "folder": ("folder", "path", "case_folder", "case_path", "directory"),
}
_HEADINGS = {heading: column for column, headings in _COLUMNS.items() for heading in headings}
_BY_FILE = "patients of the table {}"

# The keys of a `datalist.json` that name the channels, and its lists of cases.
_NAMES = frozenset({"channel_names", "modality"})
_LISTS = ("training", "train", "validation", "val", "testing", "test")


@dataclass(frozen=True)
class _Row:
    """One row of a table, with the files in it."""

    where: str
    images: dict[str, Source] = field(default_factory=dict)
    mask: Path | None = None
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def is_table(path: Path) -> bool:
    """Tell whether a path is that of a table of cases, by its ending."""
    return path.suffix.lower() in (".csv", ".parquet", ".json") and path.is_file()


def survey_table(path: Path) -> DatasetSurvey:
    """Return the cases of a table. Paths in it are relative to its folder.

    A CSV or Parquet file has a column for each sequence, in any spelling, and the columns `id` (by default the id in
    the first image's name), `patient`, `timepoint` and `mask`, all of which may be missing. Cells may be empty. Instead
    of sequences it may have the column `folder` or `path`, the folder of a case (its name is the id by default).

    In a `datalist.json`, each entry of `training`, `validation` and `testing` has `image` and `label`. `image` is a
    list of files whose names tell the sequences, or a 4-D file whose channels the key `channel_names` or `modality`
    beside the lists tells. Instead of `image`, an entry may have keys that are sequences.

    Raises:
        InputError: The file cannot be read, or holds no such table.
    """
    rows, convention = _read_rows(path)
    cases, problems = [], []
    for row in rows:
        if row.problems:
            problems += [Problem(row.where, problem) for problem in row.problems]
        else:
            cases.append(_case(path, row, convention))
    if not cases and not problems:
        raise InputError(f"{path}: names no case.")
    return DatasetSurvey("table", tuple(cases), tuple(problems), ())


def table_folds(path: Path) -> dict[str, int]:
    """Return the fold of each case for which a table names one, in a column or key `fold`.

    Raises:
        InputError: As for `survey_table`, or a fold is no whole number.
    """
    rows, convention = _read_rows(path)
    folds = {_case(path, row, convention).id: row.facts["fold"] for row in rows if "fold" in row.facts and row.images}
    try:
        return {case_id: int(fold) for case_id, fold in folds.items()}
    except ValueError as error:
        raise InputError(f"{path}: a fold is a whole number: {error}.") from error


def _read_rows(path: Path) -> tuple[list[_Row], str | None]:
    if path.suffix.lower() == ".json":
        return _read_datalist(path)
    lines = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    columns = _columns(path, lines[0] if lines else [])
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = {column: cell.strip() for column, cell in zip(columns, line, strict=False) if column and cell.strip()}
        if cells:
            rows.append(_row(f"{path.name}, line {number}", path.parent, cells))
    return rows, None


def _case(path: Path, row: _Row, convention: str | None) -> Case:
    first = next(iter(row.images.values())).path
    told = classify(first)
    case_id = row.facts.get("id") or (told[0] if told else stem_of(first))
    found = find_patient(case_id)
    named = row.facts.get("patient", "")
    layout = layout_of(case_id)
    return Case(
        case_id,
        row.images,
        row.mask,
        convention or (layout.convention if layout else None),
        patient=named or found.patient,
        timepoint=row.facts.get("timepoint", "" if named else found.timepoint),
        patient_rule=_BY_FILE.format(path.name) if named else found.rule,
        convention_given=convention is not None,
    )


def _read_csv(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}.") from error


def _read_parquet(path: Path) -> list[list[str]]:
    columns, rows = read_parquet(path)
    return [columns, *(["" if row[column] is None else str(row[column]) for column in columns] for row in rows)]


def _columns(path: Path, headings: Sequence[str]) -> list[str]:
    """Return what each column holds: a sequence, a key of `_COLUMNS`, or an empty string for any other column."""
    columns = [_column(heading) for heading in headings]
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise InputError(f"{path}: has two columns for {', '.join(twice)}. Keep one of them.")
    if not set(columns) - {"", *_COLUMNS.keys() - {"folder"}}:
        raise InputError(
            f"{path}: has no column of a sequence, nor one called folder. The first line names the columns, such as "
            "id,patient,t1,t1ce,t2,flair,mask; each cell of a sequence is the path of a file. In a list of folders "
            "(id,folder) each cell is the path of a case's folder."
        )
    return columns


def _column(heading: str) -> str:
    name = heading.strip().lower()
    if name in _HEADINGS:
        return _HEADINGS[name]
    try:
        return get_modality(name)
    except InputError:
        return ""


def _row(where: str, folder: Path, cells: Mapping[str, str], images: Mapping[str, Source] | None = None) -> _Row:
    """Return a row of cells by column; its images are those given, or the cells that are sequences."""
    facts = {name: text for name, text in cells.items() if name in _COLUMNS}
    mask = facts.pop("mask", None)
    place = facts.pop("folder", None)
    if place is not None and images is None and not set(cells) - set(_COLUMNS):
        return _row_of_folder(where, folder / place, facts)
    if images is None:
        images = {name: Source(folder / text) for name, text in cells.items() if name not in _COLUMNS}
    problems = [] if images else ["has no image."]
    if re.search(r"[/\\\0]|^\.", facts.get("id", "")):
        problems.append("its id cannot be the name of a file.")
    if "\0" in "".join([mask or "", *(str(source.path) for source in images.values())]):
        problems.append("a path has a null character.")
    return _Row(facts.get("id", where), dict(images), folder / mask if mask else None, facts, problems)


def _row_of_folder(where: str, place: Path, facts: dict[str, str]) -> _Row:
    """Return a row of the files in a case's folder, told by their names."""
    told: dict[str, list[Path]] = {}
    listing = list_folder(place) if place.is_dir() else None
    for path in listing.files if listing else []:
        if found := classify(path):
            told.setdefault(found[1], []).append(path)
    named = facts.get("id") or folder_name(place)
    problems = [f"{place}: no such folder."] if listing is None else []
    problems += [f"{place}: {len(files)} files for {role}." for role, files in told.items() if len(files) > 1]
    mask = told.pop("mask", [None])[0]
    images = {modality: Source(told[modality][0]) for modality in MODALITIES if modality in told}
    if listing is not None and not images:
        problems.append(f"{place}: holds no image whose name tells its sequence.")
    if re.search(r"[/\\\0]|^\.", named):
        problems.append("its id cannot be the name of a file.")
    return _Row(facts.get("id", where), images, mask, {**facts, "id": named}, problems)


def _read_datalist(path: Path) -> tuple[list[_Row], str | None]:
    try:
        described = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}.") from error
    described = {"training": described} if isinstance(described, list) else described
    if not isinstance(described, dict) or not any(isinstance(described.get(name), list) for name in _LISTS):
        raise InputError(f"{path}: a table of cases has one of the lists {', '.join(_LISTS)}.")
    channels = described_channels(path, described) if _NAMES & described.keys() else {}
    rows = [
        _entry(f"{path.name}, {name} {number}", path.parent, entry, channels)
        for name, number, entry in list_entries(described)
    ]
    return rows, described_convention(described)


def list_entries(described: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """Yield the entries of a datalist: the list's name, the position in it and the entry."""
    for name in _LISTS:
        entries = described.get(name)
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            yield name, number, entry


def _entry(where: str, folder: Path, entry: Any, channels: Mapping[int, str]) -> _Row:
    """Return a row of an entry of a datalist."""
    entry = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict):
        return _Row(where, problems=["is neither a file nor an object with image and label."])
    texts = {str(name).lower(): str(text) for name, text in entry.items() if isinstance(text, str | int)}
    cells = {column: text for name, text in texts.items() if (column := _column(name))}
    image = entry.get("image")
    if image is None:
        return _row(where, folder, cells)
    files = [folder / str(name) for name in (image if isinstance(image, list) else [image])]
    images, problems = _images(files, channels)
    row = _row(where, folder, cells, images)
    return replace(row, problems=problems or row.problems)


def _images(files: Sequence[Path], channels: Mapping[int, str]) -> tuple[dict[str, Source], list[str]]:
    """Return the sequences of the files of an entry: of one 4-D file or, by their names or positions, of several."""
    if len(files) == 1 and len(channels) > 1:
        return {modality: Source(files[0], channel) for channel, modality in channels.items()}, []
    told = [classify(file) for file in files]
    modalities = [found[1] if found else channels.get(place, "") for place, found in enumerate(told)]
    unknown = [file.name for file, modality in zip(files, modalities, strict=True) if modality in ("", "mask")]
    if unknown:
        return {}, [f"nothing tells which sequence {', '.join(unknown)} is; name it in channel_names beside the lists."]
    if twice := _twice(modalities):
        return {}, [f"has two files for {', '.join(twice)}."]
    return {modality: Source(file) for modality, file in zip(modalities, files, strict=True)}, []


def _twice(names: Iterable[str]) -> list[str]:
    seen = list(names)
    return sorted({name for name in seen if seen.count(name) > 1})
