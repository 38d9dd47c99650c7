"""Splits into training and validation that go with the cases: `splits_final.json`, and the folds of a datalist."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gliomask.cases import Case
from gliomask.errors import InputError

SPLITS = "splits_final.json"
"""The file that nnU-Net and `gliomask train` keep splits in: a list of `{"train": [...], "val": [...]}`."""

Split = dict[str, list[str]]


def read_splits(path: Path) -> list[Split]:
    """Return the splits in a file of nnU-Net or gliomask.

    Raises:
        InputError: The file cannot be read, or is no list of splits.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}.") from error
    splits = content if isinstance(content, list) else []
    if not splits or not all(_is_split(split) for split in splits):
        raise InputError(f'{path}: should be a list of {{"train": [...], "val": [...]}} with the ids of cases.')
    return [{side: split[side] for side in ("train", "val")} for split in splits]


def splits_of_folds(folds: Mapping[str, int]) -> list[Split]:
    """Return the split of each fold: its cases are validated on, all others are trained on."""
    return [
        {
            "train": sorted(case for case, other in folds.items() if other != fold),
            "val": sorted(case for case, other in folds.items() if other == fold),
        }
        for fold in sorted(set(folds.values()))
    ]


def rename_splits(splits: Sequence[Split], new_ids: Mapping[str, str]) -> tuple[list[Split], list[str]]:
    """Return splits with new ids, and the ids that have none; these are left out."""
    renamed = [
        {side: [new_ids[name] for name in names if name in new_ids] for side, names in s.items()} for s in splits
    ]
    absent = {name for split in splits for names in split.values() for name in names} - new_ids.keys()
    return renamed, sorted(absent)


def patients_on_both_sides(splits: Iterable[Split], cases: Sequence[Case]) -> list[str]:
    """Return the patients with cases in both sides of a split, sorted."""
    patients = {case.id: case.patient for case in cases}
    both: set[str] = set()
    for split in splits:
        train, val = ({patients[name] for name in split[side] if name in patients} for side in ("train", "val"))
        both |= train & val
    return sorted(both)


def _is_split(split: object) -> bool:
    return isinstance(split, dict) and all(
        isinstance(split.get(side), list) and all(isinstance(name, str) for name in split[side])
        for side in ("train", "val")
    )
