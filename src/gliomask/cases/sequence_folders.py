"""Examinations with a folder for each sequence: `P1/T1/t1.nii`, `P1/1_T1/NIFTI/T1.nii.gz`, `P1/FLAIR/image.nii.gz`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gliomask.cases.naming import FileName, folded, nifti_ending, read_name, shows_brain_mask, stem_of

# Folders below that of a sequence that say nothing more.
_FORMATS = frozenset({"nifti", "niftis", "nii"})
_NUMBER = re.compile(r"\d{1,2}")

# At the top, fewer numbered folders may be patients `1_T1`, `2_FLAIR` with a sequence each.
_LEAST_AT_TOP = 3

Read = tuple[Path, FileName]
"""The folder of the examination that a file belongs to, and what its name and its folder say."""


def find_sequence_folders(root: Path, by_folder: Mapping[Path, Sequence[Path]]) -> dict[Path, Read]:
    """Return the files of examinations with a folder for each sequence.

    The folder's name is that of the sequence, or a number and the sequence (`1_T1`); below it there may be a folder
    `NIFTI`. It holds one file, whose own name says the same sequence, or is the same in all folders of the examination.
    Folders of which two would give the same sequence are left alone, so that two patients are never taken for one.

    Args:
        root: The folder that is looked into.
        by_folder: Its NIfTI files by their folder.
    """
    found: dict[Path, list[tuple[Path, FileName]]] = defaultdict(list)
    for folder, files in by_folder.items():
        place = _sequence_folder(root, folder)
        if place is None:
            continue
        images = [path for path in files if not shows_brain_mask(path)]
        if len(images) == 1:
            found[place[0].parent].append((images[0], place[1]))
    return {path: read for examination, each in found.items() for path, read in _agreed(root, examination, each)}


def _sequence_folder(root: Path, folder: Path) -> tuple[Path, FileName] | None:
    """Return the folder named like a sequence that a folder is or lies in, and what its name says."""
    if folder != root and folder.name.lower() in _FORMATS:
        folder = folder.parent
    if folder == root or nifti_ending(folder):
        return None
    told = read_name(folder)
    return (folder, told) if told and (not told.case_id or _NUMBER.fullmatch(told.case_id)) else None


def _agreed(root: Path, examination: Path, files: Sequence[tuple[Path, FileName]]) -> Iterator[tuple[Path, Read]]:
    """Yield the files of an examination, if their folders and names leave no doubt that it is one."""
    roles = [told.role for _, told in files]
    numbered = any(told.case_id for _, told in files)
    images = len(set(roles) - {"mask"})
    if len(set(roles)) < len(roles) or images < (_LEAST_AT_TOP if numbered and examination == root else 2):
        return
    same_name = len({folded(stem_of(path)) for path, _ in files}) == 1
    read = [(path, told.role, read_name(path)) for path, told in files]
    if any(own.role != role if own else not same_name for _, role, own in read):
        return
    # What stands before the sequence in a file's name must not differ: it may be the patient.
    if len({folded(own.case_id) for _, _, own in read if own}) > 1:
        return
    for path, role, own in read:
        yield path, (examination, FileName(own.case_id if own else "", role, own.rank if own else 0))
