"""Lists of cases as JSON: the `datalist.json` of MONAI, which MSD's `dataset.json` is too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gliomask.cases.case import Source
from gliomask.cases.dataset import described_channels, described_convention
from gliomask.cases.naming import classify
from gliomask.cases.rows import Row, column_of, make_row
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
        described = json.loads(path.read_text("utf-8-sig"))
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
    texts = {str(name).lower(): str(text) for name, text in entry.items() if isinstance(text, str | int)}
    cells = {column: text for name, text in texts.items() if (column := column_of(name)) and text.strip()}
    image = entry.get("image")
    if image is None:
        return make_row(line, base, cells, masks=masks)
    files = [base / str(name) for name in (image if isinstance(image, list) else [image])]
    images, problems = _images(files, channels)
    row = make_row(line, base, cells, images, masks=masks)
    return replace(row, problems=tuple(problems) or row.problems, paths=(*row.paths, *files))


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
