"""Splits: by patient, balanced by source, enhancement and size, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gliomask.errors import InputError
from gliomask.training.cache import CachedCase
from gliomask.training.split import hold_out, make_folds, source_of


def case(case_id: str, *, volume: int = 1000, enhancing: int = 100, patient: str | None = None) -> CachedCase:
    return CachedCase(
        id=case_id,
        patient=patient or case_id,
        folder=Path(),
        modalities=("t2f",),
        present=(True,),
        moments=(),
        convention="brats2021",
        shape=(8, 8, 8),
        spacing_mm=(1.0, 1.0, 1.0),
        voxels={"WT": volume, "TC": 0, "ET": enhancing},
        outside={},
        files={},
    )


def cohort() -> list[CachedCase]:
    """Forty patients: two sources, a fifth without enhancement, sizes from 1 to 40; every tenth seen twice."""
    cases = []
    for number in range(1, 41):
        source = "BraTS2021" if number % 4 else "Brats18_CBICA"
        facts = {"volume": number * 1000, "enhancing": 0 if number % 5 == 0 else 50, "patient": f"p{number}"}
        cases.append(case(f"{source}_{number:05d}", **facts))
        if number % 10 == 0:
            cases.append(case(f"{source}_{number:05d}b", **facts))
    return cases


def test_every_patient_is_held_out_once() -> None:
    """Folds cover all cases, no patient is on both sides, and sizes differ by one patient at most."""
    cases = cohort()
    folds = make_folds(cases, 5, seed=0)
    assert sorted(case_id for fold in folds for case_id in fold["val"]) == sorted(c.id for c in cases)
    patient = {c.id: c.patient for c in cases}
    for fold in folds:
        assert not {patient[i] for i in fold["train"]} & {patient[i] for i in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == sorted(c.id for c in cases)
    sizes = [len({patient[i] for i in fold["val"]}) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_alike(seed: int) -> None:
    """Each fold has both sources, tumours without enhancement, and small and large tumours in proportion."""
    cases = {c.id: c for c in cohort()}
    for fold in make_folds(list(cases.values()), 5, seed):
        held = {c.patient: c for c in (cases[i] for i in fold["val"])}.values()
        assert 1 <= sum(source_of(c.id) == "Brats18_CBICA" for c in held) <= 3
        assert 1 <= sum(c.voxels["ET"] == 0 for c in held) <= 3
        assert 14_000 <= sum(c.voxels["WT"] for c in held) / len(held) <= 27_000


def test_the_seed_decides() -> None:
    """The same seed gives the same folds for any order of the cases; another seed gives others."""
    cases = cohort()
    one, other = make_folds(cases, 5, 1), make_folds(cases[::-1], 5, 1)
    assert [sorted(fold["val"]) for fold in one] == [sorted(fold["val"]) for fold in other]
    assert make_folds(cases, 5, 2) != one
    assert hold_out(cases, 0.25, 1) == hold_out(cases, 0.25, 1) != hold_out(cases, 0.25, 2)


@pytest.mark.parametrize(("fraction", "count"), [(0.25, 10), (0.01, 1), (0.0, 0)])
def test_a_share_of_the_patients_is_held_out(fraction: float, count: int) -> None:
    """Rounded, at least one unless 0 is asked for, and spread over small and large tumours."""
    cases = {c.id: c for c in cohort()}
    split = hold_out(list(cases.values()), fraction, 3)
    held = {cases[i].patient: cases[i] for i in split["val"]}
    assert len(held) == count
    if count == 10:
        assert {source_of(c.id) for c in held.values()} == {"BraTS2021", "Brats18_CBICA"}


@pytest.mark.parametrize("seed", range(3))
def test_patients_that_the_first_model_has_seen_are_not_held_out(seed: int) -> None:
    """As many of the others as without it, all of them if they are fewer; and if there is none, that is said."""
    cases = cohort()
    patients = [f"p{number}" for number in range(1, 41)]
    for seen, count in ((patients[:30], 10), (patients[::2], 10), (patients[:37], 3), ([], 10)):
        split = hold_out(cases, 0.25, seed, set(seen))
        held = {c.patient for c in cases if c.id in split["val"]}
        assert not held & set(seen)
        assert len(held) == count
        assert sorted(split["train"] + split["val"]) == sorted(c.id for c in cases)
    assert hold_out(cases, 0.25, seed, set()) == hold_out(cases, 0.25, seed)
    assert hold_out(cases, 0, seed, set(patients))["val"] == []
    with pytest.raises(InputError, match="trained on all 40 patients"):
        hold_out(cases, 0.25, seed, set(patients))


def test_too_few_patients_are_said() -> None:
    """For a fraction and for folds."""
    with pytest.raises(InputError, match="too few to keep 1"):
        hold_out([case("a"), case("b", patient="a")], 0.25, 0)
    with pytest.raises(InputError, match="too few for 3 folds"):
        make_folds([case("a"), case("b")], 3, 0)


@pytest.mark.parametrize(
    ("case_id", "source"),
    [
        ("BraTS2021_00014", "BraTS2021"),
        ("BraTS-GLI-00005-000", "BraTS_GLI"),
        ("Brats18_CBICA_AAB_1", "Brats18_CBICA"),
        ("Brats18_2013_11_1", "Brats18_2013"),
        ("Brats18_TCIA02_117_1", "Brats18_TCIA02"),
        ("BRATS_001", "BRATS"),
        ("phantom", "phantom"),
    ],
)
def test_ids_tell_where_a_case_is_from(case_id: str, source: str) -> None:
    """The challenge, and the centre where the id names it; never the patient's number."""
    assert source_of(case_id) == source
