"""Lists of cases as JSON: the `datalist.json` of MONAI, which MSD's `dataset.json` is too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gliomask.cases.case import MODALITIES, Source
from gliomask.cases.dataset import described_channels, described_convention
from gliomask.cases.naming import classify, names_beside
from gliomask.cases.rows import Row, column_of, make_row, path_in
from gliomask.errors import InputError

# The keys of a `datalist.json` that name the channels, and its lists of cases.
_NAMES = frozenset({"channel_names", "modality"})
_LISTS = ("training", "train", "validation", "val", "testing", "test")


def read_datalist(path: Path, base: Path, *, masks: bool = False) -> tuple[list[Row], str | None]:
    """Return the entries of a datalist as rows, and the label convention that it describes.

    Args:
        path: The file.
        base: The folder from which paths in it begin.
        masks: See `make_row`.

    Raises:
        InputError: The file cannot be read, or holds no such list.
    """
    try:
        described = json.loads(path.read_bytes())  # in any encoding of Unicode
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}.") from error
    described = {"training": described} if isinstance(described, list) else described
    if not isinstance(described, dict) or not any(isinstance(described.get(name), list) for name in _LISTS):
        raise InputError(f"{path}: a table of cases has one of the lists {', '.join(_LISTS)}.")
    channels = described_channels(path, described) if _NAMES & described.keys() else {}
    rows = [
        _entry(f"{name} {number}", base, entry, channels, masks=masks)
        for name, number, entry in _list_entries(described)
    ]
    return rows, described_convention(described)


def _list_entries(described: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """Yield the entries of a datalist: the list's name, the position in it and the entry."""
    for name in _LISTS:
        entries = described.get(name)
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            yield name, number, entry


def _entry(line: str, base: Path, entry: Any, channels: Mapping[int, str], *, masks: bool) -> Row:
    """Return a row of an entry of a datalist."""
    entry = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict):
        return Row(line, problems=("is neither a file nor an object with image and label.",))
    cells, problems = _cells(entry)
    image = entry.get("image")
    if image in (None, "", []):
        row = make_row(line, base, cells, masks=masks)
        return replace(row, problems=tuple(problems) or row.problems)
    names = image if isinstance(image, list) else [image]
    if not all(isinstance(name, str) for name in names):
        return replace(make_row(line, base, cells), problems=("image is neither a file nor a list of files.",))
    if both := sorted(cells.keys() & MODALITIES.keys()):
        problems.append(f"has image and also {', '.join(both)}. Keep one of the two.")
    files = [path_in(base, name) for name in names]
    images, unclear = _images(files, channels)
    row = make_row(line, base, cells, images, masks=masks)
    return replace(row, problems=(*problems, *unclear) or row.problems, paths=(*row.paths, *files))


def _cells(entry: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the values of an entry by column, and what is wrong with them; a list of one value is that value."""
    cells: dict[str, str] = {}
    problems = []
    for name, value in entry.items():
        column = column_of(str(name))
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not column or value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            problems.append(f"{name} is neither a text nor a number.")
        elif column in cells:
            problems.append(f"has two values for {column}.")
        else:
            cells[column] = str(value)
    return cells, problems


def _images(files: Sequence[Path], channels: Mapping[int, str]) -> tuple[dict[str, Source], list[str]]:
    """Return the sequences of the files of an entry: of one 4-D file or, by their names or positions, of several."""
    if len(files) == 1 and len(channels) > 1:
        return {modality: Source(files[0], channel) for channel, modality in channels.items()}, []
    beside = names_beside(files)
    told = [classify(file, beside) for file in files]
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
