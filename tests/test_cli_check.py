"""gliomask check: its counts, and what it and the other commands that read a folder print about it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import Case, CaseReport, check_case, find_cases
from gliomask.volume import Volume, read_volume, write_volume


def last_line(said: str) -> str:
    return next(text for text in said.splitlines() if "can be used" in text)


def add_second_file(folder: Path, *sequences: str) -> None:
    """Add a second file for each of the sequences of a case, which is refused then."""
    for sequence in sequences:
        path = folder / f"{folder.name}_{sequence}.nii.gz"
        shutil.copy(path, folder / f"{folder.name}-{sequence.upper()}.nii.gz")


def rename_case(folder: Path, name: str) -> Path:
    """Give a case an id that belongs to no layout, so that its masks must tell the label convention."""
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace(folder.name, name)))
    return folder.rename(folder.with_name(name))


def keep_labels_below(case: Case, limit: int) -> None:
    assert case.mask is not None
    mask = read_volume(case.mask, mask=True)
    write_volume(case.mask, Volume(np.minimum(mask.data, limit), mask.affine))


def test_a_case_that_is_refused_twice_is_counted_once(gliomask, folder_of: Callable[..., Path]) -> None:
    """The cases that can and that cannot be used add up to those of the folder."""
    folder = folder_of(3)
    add_second_file(folder / "BraTS2021_00001", "t1", "t2", "flair")
    (folder / "BraTS2021_00002" / "BraTS2021_00002_t2.nii.gz").write_bytes(b"")
    status, said = gliomask("check", folder)
    assert status == 1
    assert last_line(said).startswith("1 case can be used, ")
    assert last_line(said).endswith("; 2 cannot be used.")


def test_cases_whose_labels_are_ambiguous_cannot_be_used(gliomask, folder_of: Callable[..., Path]) -> None:
    """They are counted as such beside the good ones, and `--labels` makes them usable."""
    folder = folder_of(3)
    for number in (1, 2):
        rename_case(folder / f"BraTS2021_0000{number}", f"P{number}")
    for case in find_cases(folder)[1:]:
        keep_labels_below(case, 2)
    status, said = gliomask("check", folder)
    assert status == 1
    assert "ambiguous" in said
    assert last_line(said).startswith("1 case can be used, ")
    assert last_line(said).endswith("; 2 cannot be used.")
    assert gliomask("check", folder, "--labels", "brats2021")[0] == 0
    status, said = gliomask("check", folder, "--labels", "brats21")
    assert status == 2
    assert "did you mean" in said


def test_a_damaged_mask_hides_no_other_label_convention(gliomask, folder_of: Callable[..., Path]) -> None:
    """The masks that can be read tell their convention together."""
    folder = folder_of(3)
    names = [rename_case(folder / f"BraTS2021_0000{number}", f"P{number}").name for number in (1, 2, 3)]
    (folder / names[0] / f"{names[0]}_seg.nii.gz").write_bytes(b"no gzip")
    status, said = gliomask("check", folder, "--json")
    assert status == 1
    cases = json.loads(said)["cases"]
    assert [case["convention"] for case in cases] == ["brats2021"] * 3
    assert [bool(case["problems"]) for case in cases] == [True, False, False]


def test_whatever_a_case_raises_the_others_are_checked(
    gliomask, folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody expected is a problem of its case, and is called a fault of gliomask's."""

    def fail(case: Case, **options: object) -> CaseReport:
        if case.id.endswith("2"):
            raise ZeroDivisionError("[/b]")
        return check_case(case)

    monkeypatch.setattr("gliomask.cases.check_case", fail)
    status, said = gliomask("check", folder_of(3))
    assert status == 1
    assert "BraTS2021_00002: ZeroDivisionError: [/b]. This is a fault of gliomask" in said
    assert last_line(said).startswith("2 cases can be used, ")


COMMANDS = {
    "check": ("check", "{data}"),
    "prepare": ("prepare", "{data}", "-o", "{tmp}/cache"),
    "train": ("train", "{data}", "-o", "{tmp}/run", "--network", "fcn", "--patch-size", "16", "--steps", "1"),
    "predict": ("predict", "-m", "{model}", "-i", "{data}", "-o", "{tmp}/masks"),
    "evaluate": ("evaluate", "{data}", "{data}"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_passed_over_is_counted_and_with_v_listed(
    gliomask, model_file: Path, tmp_path: Path, command: str
) -> None:
    """By every command that reads a folder of cases: one line without `-v`, and each file with its reason with it."""
    data = tmp_path / "data"
    for name in ("notes.nii.gz", "other.nii.gz"):
        shutil.copy(data / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz", data / "BraTS2021_00002" / name)
    words = [word.format(data=data, tmp=tmp_path, model=model_file) for word in COMMANDS[command]]
    status, said = gliomask(*words)
    assert status == 0, said
    assert said.count("2 files or folders passed over") == 1
    assert "notes.nii.gz" not in said
    for path in ("cache", "run", "masks"):
        shutil.rmtree(tmp_path / path, ignore_errors=True)
    status, said = gliomask(*words, "-v")
    assert status == 0, said
    assert [name for name in ("notes", "other") if f"/{name}.nii.gz: its name is that of no" in said] == [
        "notes",
        "other",
    ]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "evaluate"])
def test_a_folder_whose_every_case_is_refused_is_a_list(
    gliomask, model_file: Path, tmp_path: Path, command: str
) -> None:
    """Each refused case is named with the reason, nothing is written, and the exit status is not 0."""
    data = tmp_path / "data"
    for number in (1, 2):
        add_second_file(data / f"BraTS2021_0000{number}", "t2")
    words = [word.format(data=data, tmp=tmp_path, model=model_file) for word in COMMANDS[command]]
    before = sorted(tmp_path.rglob("*"))
    status, said = gliomask(*words)
    assert status == (2 if command == "train" else 1), said
    for number in (1, 2):
        assert f"BraTS2021_0000{number}: 2 files for t2w" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_cannot_be_read_is_named(
    gliomask, model_file: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is not 0. Simulated, as no permission stops the administrator who may run the tests."""
    scandir = os.scandir

    def refuse(folder: str | Path) -> object:
        if Path(folder).name == "BraTS2021_00002":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("gliomask.cases.folders.os.scandir", refuse)
    words = [word.format(data=tmp_path / "data", tmp=tmp_path, model=model_file) for word in COMMANDS[command]]
    status, said = gliomask(*words)
    assert status == (2 if command == "train" else 1), said
    assert "BraTS2021_00002: the folder cannot be read: Permission denied." in said


def put_float(path: Path, offset: int, value: float) -> None:
    """Write one float of a NIfTI header."""
    import gzip

    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<f", content, offset, value)
    path.write_bytes(gzip.compress(bytes(content), 1))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_one_absurd_float_in_an_affine_costs_its_case_alone(
    gliomask, model_file: Path, tmp_path: Path, command: str
) -> None:
    """The case is named with a reason, and the other is done."""
    data = tmp_path / "data"
    for path in (data / "BraTS2021_00001").iterdir():
        put_float(path, 280, 1e38)  # the first element of the sform
    words = [word.format(data=data, tmp=tmp_path, model=model_file) for word in COMMANDS[command]]
    status, said = gliomask(*words)
    assert status == 1, said
    assert "fault of gliomask" not in said
    assert "Warning" not in said
    assert "BraTS2021_00001: " in said
    made = {"prepare": "cache/BraTS2021_00002", "predict": "masks/BraTS2021_00002.nii.gz"}.get(command)
    assert made is None or (tmp_path / made).exists()
