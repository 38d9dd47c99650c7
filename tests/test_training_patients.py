"""Patients: a split keeps the examinations of a patient together, by name or by a table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gliomask.cases import find_cases, resolve_conventions
from gliomask.errors import InputError
from gliomask.training.cache import build_cache, open_cache
from gliomask.training.config import make_config
from gliomask.training.loop import train
from gliomask.training.patients import read_patients
from gliomask.training.run import make_plan
from gliomask.training.watcher import Watcher


class Said(Watcher):
    """Keeps how the patients were told apart."""

    def __init__(self) -> None:
        self.patients: list[str] = []

    def on_split(self, patients: str) -> None:
        self.patients.append(patients)


def table(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def config(**changes: object):  # type: ignore[no-untyped-def]
    return make_config(**{"network": "fcn", "patch_size": 16, "steps": 1, "precision": "fp32", "threads": 1, **changes})


def test_a_table_gives_each_case_its_patient(tmp_path: Path) -> None:
    """In any order, with other columns, other cases, a byte order mark, and the separator of any spreadsheet."""
    path = table(tmp_path / "p.csv", "\ufeffage,patient,case\n50,P1,b\n51,P1, a\n52,P2,c\n53,P3,other\n")
    assert read_patients(path, ["a", "b", "c"]) == {"a": "P1", "b": "P1", "c": "P2"}
    path.write_bytes(path.read_text("utf-8-sig").replace(",", ";").encode("utf-16"))
    assert read_patients(path, ["a", "b", "c"]) == {"a": "P1", "b": "P1", "c": "P2"}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is empty"),
        ("age\n50\n", "no column case and no column patient"),
        ("case;age\na;50\n", "no column patient"),
        ("case,Case,patient\na,b,P1\n", "two columns case"),
        ("case,patient\na\n", "line 2 lacks"),
        ("case,patient\n,P1\n", "line 2 lacks"),
        ("case,patient\na,P1\na,P2\n", "line 3 gives a a second patient"),
        ("case,patient\nb,P1\n", "no patient for 1 of 1 cases, such as a"),
        ("case,patient\na," + "x" * 200_000 + "\n", "field larger than field limit"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, cause: str) -> None:
    """Each with the file, the cause and the line."""
    path = table(tmp_path / "p.csv", text)
    with pytest.raises(InputError, match=rf"p\.csv: .*{cause}"):
        read_patients(path, ["a"])


def test_a_split_follows_the_table(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Examinations of one patient are never on both sides, and the watcher is told how patients were told apart."""
    cases = find_cases(folder_of(6))
    rows = "".join(f"{case.id},P{number // 2}\n" for number, case in enumerate(cases))
    path = table(tmp_path / "p.csv", f"case,patient\n{rows}")
    for seed in range(3):
        said = Said()
        run = train(
            tmp_path / "run0" / "cache" if seed else cases,
            tmp_path / f"run{seed}",
            config(patients=str(path), seed=seed, val_fraction=0.4),
            watcher=said,
        )
        split = run.split()
        sides = [{case.id for case in cases[first : first + 2]} for first in (0, 2, 4)]
        assert all(pair <= set(split["train"]) or pair <= set(split["val"]) for pair in sides)
        assert said.patients == ["6 examinations of 3 patients, told apart by the table p.csv"]
    path.unlink()  # a resumed run keeps its split and needs no table
    run = train(cases, tmp_path / "run0", config(patients=str(path), val_fraction=0.4, steps=2), resume=True)
    assert run.rows()[-1]["step"] == 2
    with pytest.raises(InputError, match=r"p\.csv"):
        train(cases, tmp_path / "new", config(patients=str(path)))


@pytest.mark.parametrize(
    "names",
    [
        ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21", "UPENN-GBM-00002_11"),
        ("RHUH-0001_0", "RHUH-0001_1", "RHUH-0002_0"),
        ("PatientID_0003_Timepoint_1", "PatientID_0003_Timepoint_2", "PatientID_0004_Timepoint_1"),
    ],
)
def test_names_of_other_data_sets_tell_patients_apart(
    folder_of: Callable[..., Path], tmp_path: Path, names: tuple[str, ...]
) -> None:
    """In a cache as well, also in one of version 0.1, which took each of these cases for a patient of its own."""
    source = folder_of(3)
    for folder, name in zip(sorted(source.iterdir()), names, strict=True):
        target = tmp_path / "renamed" / name
        shutil.copytree(folder, target)
        for path in target.iterdir():
            path.rename(path.with_name(path.name.replace(folder.name, name)))
    cases = resolve_conventions(find_cases(tmp_path / "renamed"), "brats2021")
    plan = make_plan(config(), cases)
    _, problems = build_cache(cases, tmp_path / "cache", plan)
    assert not problems
    for path in (tmp_path / "cache").glob("*/case.json"):
        fields = json.loads(path.read_text())
        assert fields.pop("patient_rule")
        path.write_text(json.dumps(fields | {"patient": fields["id"]}))
    patients = [case.patient for case in open_cache(tmp_path / "cache", plan)]
    assert patients[0] == patients[1] != patients[2]
