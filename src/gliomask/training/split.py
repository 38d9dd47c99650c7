"""Which cases are trained on and which are held out: by patient, and evenly over what matters."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from gliomask.errors import InputError
from gliomask.training.cache import CachedCase

Split = dict[str, list[str]]
"""Case ids under `train` and `val`, as in nnU-Net's `splits_final.json`."""


def hold_out(cases: Sequence[CachedCase], fraction: float, seed: int) -> Split:
    """Return one split that holds out a share of the patients, one at least; 0 holds out none.

    Patients are sorted by where they come from, whether their tumour enhances and how large it is, and one is drawn
    from each of as many equal runs of that order as are to be held out.

    Raises:
        InputError: There are too few patients.
    """
    patients = _sorted_patients(cases)
    count = max(1, round(fraction * len(patients))) if fraction else 0
    if count >= len(patients):
        raise InputError(
            f"{len(patients)} patient(s): too few to keep {count} for validation. Give more cases, or --val-fraction 0."
        )
    generator = np.random.default_rng([seed, 0])
    groups = np.array_split(np.arange(len(patients)), count) if count else []
    return _split(cases, {patients[int(generator.choice(group))] for group in groups})


def make_folds(cases: Sequence[CachedCase], count: int, seed: int) -> list[Split]:
    """Return the splits of a cross-validation: every patient is held out in one fold, and the folds are alike.

    Patients are sorted as in `hold_out` and dealt out by the handful, each handful in an order of its own; so the
    sizes of two folds differ by one patient at most.

    Raises:
        InputError: There are fewer patients than folds.
    """
    patients = _sorted_patients(cases)
    if count > len(patients):
        raise InputError(f"{len(patients)} patient(s): too few for {count} folds. Give more cases, or fewer --folds.")
    generator = np.random.default_rng([seed, 0])
    folds: list[set[str]] = [set() for _ in range(count)]
    for start in range(0, len(patients), count):
        handful = patients[start : start + count]
        for fold, patient in zip(generator.permutation(count), handful, strict=False):
            folds[fold].add(patient)
    return [_split(cases, held_out) for held_out in folds]


def source_of(case_id: str) -> str:
    """Return where a case comes from as its id tells it: `BraTS2021`, `BraTS-GLI`, `Brats18_CBICA`, `Brats18_2013`."""
    first, *rest = re.split(r"[-_]", case_id)
    named = bool(rest) and bool(re.fullmatch(r"[A-Za-z]\w*|(19|20)\d\d", rest[0]))
    return f"{first}_{rest[0]}" if named else first


def _sorted_patients(cases: Sequence[CachedCase]) -> list[str]:
    """Patients in an order in which neighbours are alike."""
    keys: dict[str, tuple[str, bool, int]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        keys.setdefault(case.patient, (source_of(case.id), case.voxels.get("ET", 0) == 0, case.voxels["WT"]))
    return sorted(keys, key=lambda patient: (*keys[patient], patient))


def _split(cases: Sequence[CachedCase], held_out: set[str]) -> Split:
    return {
        "train": [case.id for case in cases if case.patient not in held_out],
        "val": [case.id for case in cases if case.patient in held_out],
    }
