"""Splits into training and held-out cases: by patient, and balanced by source, enhancement and size."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from gliomask.errors import InputError
from gliomask.training.cache import CachedCase
from gliomask.training.own_files import read_json, reading

Split = dict[str, list[str]]
"""Case ids under `train` and `val`, as in nnU-Net's `splits_final.json`."""


def hold_out(cases: Sequence[CachedCase], fraction: float, seed: int, seen: Collection[str] = frozenset()) -> Split:
    """Return one split that holds out a fraction of the patients, but at least one; 0 holds out none.

    None of the patients in `seen` is held out, even if too few others are left for the fraction: these are those that
    the model was trained on from which the training starts.

    Patients are sorted by the regions that their masks label, their source, whether their tumour enhances, and its
    size. The sorted list is divided into as many equal parts as patients are held out, and one is drawn from each part.

    Raises:
        InputError: There are too few patients, or all are in `seen`.
    """
    every = _sorted_patients(cases)
    count = max(1, round(fraction * len(every))) if fraction else 0
    if count >= len(every):
        raise InputError(
            f"{len(every)} patient(s): too few to keep {count} for validation. Give more cases, or --val-fraction 0."
        )
    patients = [patient for patient in every if patient not in seen]
    if count and not patients:
        raise InputError(
            f"the model that the training starts from was trained on all {len(every)} patients, so that none is left "
            "for validation. Give cases that it has not seen, or --val-fraction 0."
        )
    count = min(count, len(patients))
    generator = np.random.default_rng([seed, 0])
    groups = np.array_split(np.arange(len(patients)), count) if count else []
    return _split(cases, {patients[int(generator.choice(group))] for group in groups})


def make_folds(cases: Sequence[CachedCase], count: int, seed: int) -> list[Split]:
    """Return the splits of a cross-validation: every patient is held out in one fold, and the folds are similar.

    Patients are sorted as in `hold_out`. Each group of `count` successive patients is distributed over the folds in
    random order, so the sizes of the folds differ by one patient at most.

    Raises:
        InputError: There are fewer patients than folds.
    """
    patients = _sorted_patients(cases)
    if count > len(patients):
        raise InputError(f"{len(patients)} patient(s): too few for {count} folds. Give more cases, or fewer --folds.")
    generator = np.random.default_rng([seed, 0])
    folds: list[set[str]] = [set() for _ in range(count)]
    for start in range(0, len(patients), count):
        group = patients[start : start + count]
        for fold, patient in zip(generator.permutation(count), group, strict=False):
            folds[fold].add(patient)
    return [_split(cases, held_out) for held_out in folds]


def read_splits(path: Path, cases: Sequence[CachedCase], number: int = 0) -> list[Split]:
    """Return the splits of a file like nnU-Net's `splits_final.json`, of which one is to be used and is checked.

    Args:
        path: The file.
        cases: The cases that the split may name.
        number: The split that is to be used, counted from 0.

    Raises:
        InputError: The file cannot be read or has no split of that number; or this split names a case that is not
            there, names none to train on, or has cases of one patient on both sides.
    """
    remedy = 'Write a list of {"train": [...], "val": [...]}.'
    stored = read_json(path, remedy)
    with reading(path, remedy):
        splits = TypeAdapter(list[Split]).validate_python(stored)
    if number >= len(splits):
        raise InputError(f"{path}: has {len(splits)} split(s), counted from 0, and --fold {number} is asked for.")
    with reading(path, remedy):
        split = splits[number] = {side: splits[number][side] for side in ("train", "val")}
    patients = {case.id: case.patient for case in cases}
    missing = sorted({name for names in split.values() for name in names} - patients.keys())
    if missing:
        raise InputError(f"{path}: names {len(missing)} case(s) that are not there, such as {missing[0]}.")
    if not split["train"]:
        raise InputError(f"{path}: names no case to train on.")
    both = {patients[name] for name in split["train"]} & {patients[name] for name in split["val"]}
    if both:
        raise InputError(f"{path}: has {', '.join(sorted(both))} both to train on and to validate on.")
    return splits


def source_of(case_id: str) -> str:
    """Return where a case comes from as its id tells it: `BraTS2021`, `BraTS-GLI`, `Brats18_CBICA`, `Brats18_2013`."""
    first, *rest = re.split(r"[-_]", case_id)
    named = bool(rest) and bool(re.fullmatch(r"[A-Za-z]\w*|(19|20)\d\d", rest[0]))
    return f"{first}_{rest[0]}" if named else first


def _sorted_patients(cases: Sequence[CachedCase]) -> list[str]:
    """Patients in an order in which neighbours are alike: first in the regions that their masks label."""
    keys: dict[str, tuple[tuple[str, ...], str, bool, int]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        size = case.voxels.get("WT", max(case.voxels.values(), default=0))
        keys.setdefault(case.patient, (case.known, source_of(case.id), case.voxels.get("ET", 0) == 0, size))
    return sorted(keys, key=lambda patient: (*keys[patient], patient))


def _split(cases: Sequence[CachedCase], held_out: set[str]) -> Split:
    return {
        "train": [case.id for case in cases if case.patient not in held_out],
        "val": [case.id for case in cases if case.patient in held_out],
    }
