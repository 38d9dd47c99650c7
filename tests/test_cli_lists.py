"""Every command and a list of cases: it takes the list, or says which commands do; what fails is counted."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from gliomask.cases import find_cases
from gliomask.cli import app

Run = Callable[..., tuple[int, str]]

ARE_FOR = "lists of cases are for check, convert, evaluate, predict (without --raw), prepare, report, train, tune and"
MISSING = "nowhere.csv: no such file"

# For each command: its words, in which LIST is the list, the exit status, and what it says; None: it takes no cases.
COMMANDS: dict[str, list[tuple[tuple[str, ...], int, str]] | None] = {
    "check": [(("LIST",), 0, "2 cases can be used")],
    "convert": [(("LIST", "-o", "OUT/bids", "--layout", "brats2023"), 0, "2 cases in")],
    "evaluate": [(("MASKS", "LIST"), 0, "2 cases"), (("LIST", "DATA"), 0, "2 cases"), (("LIST", "LIST"), 0, "2 cases")],
    "predict": [
        (("-m", "MODEL", "-i", "LIST", "-o", "OUT/masks", "-d", "cpu"), 0, "table of 2 cases"),
        (("--raw", "-i", "LIST", "-o", "OUT/raw"), 2, ARE_FOR),
    ],
    "prepare": [(("LIST", "-o", "OUT/cache"), 0, "2 cases in")],
    "preprocess": [(("LIST", "-o", "OUT/cases"), 2, ARE_FOR)],
    "rank": [(("LIST",), 2, ARE_FOR)],
    "report": [(("LIST", "MASKS", "-o", "OUT/pages"), 0, "all reports: ")],
    "table": [(("LIST",), 2, ARE_FOR)],
    "train": [(("LIST", "-o", "OUT/run", "--network", "nonsense"), 2, "unknown network")],
    "tune": [(("MODEL", "LIST", "-o", "OUT/tuned.safetensors"), 2, "2 usable cases of 2 patients")],
    "view": [(("LIST", "--case", "nobody"), 2, "has no case 'nobody'; it has BraTS2021_00001, BraTS2021_00002")],
    "compare": None,
    "compare-scores": None,
    "demo": None,
    "docs": None,
    "export": None,
    "import": None,
    "info": None,
    "join": None,
    "phantom": None,
    "serve": None,
}


def test_the_table_has_every_command() -> None:
    """A new command is entered."""
    assert sorted(COMMANDS) == sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", ["folders", "files"])
def test_every_command_takes_a_list_or_says_so(gliomask: Run, model_file: Path, tmp_path: Path, form: str) -> None:
    """A list with a semicolon, as German Excel writes it; and a list that is not there is no folder."""
    pytest.importorskip("torch")
    cases = find_cases(tmp_path / "data")
    rows = {
        "folders": ["id;folder", *(f"{case.id};data/{case.id}" for case in cases)],
        "files": [
            "id;flair;t1ce;t2;mask",
            *(
                ";".join([case.id, *(str(case.images[name].path) for name in ("t2f", "t1c", "t2w")), str(case.mask)])
                for case in cases
            ),
        ],
    }[form]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    places = {"LIST": "list.csv", "DATA": "data", "MODEL": "model.safetensors", "OUT": "out", "MASKS": "out/masks"}
    first = ("predict",)  # the others take its masks
    for command in (*first, *(name for name in COMMANDS if name not in first)):
        for words, status, text in COMMANDS[command] or ():

            def place(word: str, name: str) -> str:
                start, slash, rest = word.partition("/")
                return f"{tmp_path / {**places, 'LIST': name}[start]}{slash}{rest}" if start in places else word

            got, said = gliomask(command, *(place(word, "list.csv") for word in words))
            assert (got, text in said) == (status, True), f"{command} {words}: {said}"
            got, said = gliomask(command, *(place(word, "nowhere.csv") for word in words))
            if command == "train":  # the network is looked at first
                continue
            assert (got, MISSING in said) == (2, True), f"{command} {words}: {said}"


def test_a_list_is_scored_like_its_folder(gliomask: Run, folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """With ids of its own, a row without a mask and a mask that is not there; the worst cases show images."""
    data = folder_of(3)
    cases = find_cases(data)
    rows = [f"{case.id},{case.mask},{case.images['t2f'].path}" for case in cases]
    (tmp_path / "truth.csv").write_text("\n".join(["id,mask,flair", *rows, "none,,x.nii"]))
    (tmp_path / "found.csv").write_text("\n".join(["id,mask", *(f"{case.id},{case.mask}" for case in cases)]))
    words = ("--protocol", "brats2023-gli", "-o")
    for place in (data, tmp_path / "truth.csv"):
        status, said = gliomask("evaluate", tmp_path / "found.csv", place, *words, tmp_path / f"{place.name}.json")
        assert status == 0, said
    assert "1 file or folder passed over" in said
    scores = [(tmp_path / name).read_text() for name in ("data.json", "truth.csv.json")]
    assert scores[0] == scores[1]
    fewer = [row.rpartition(",")[0] for row in rows[1:]]
    (tmp_path / "truth.csv").write_text("\n".join(["id,mask", *fewer, "x/y,a.nii"]))
    table = tmp_path / "scores.json"
    status, said = gliomask("evaluate", tmp_path / "found.csv", tmp_path / "truth.csv", "--ignore-extra", "-o", table)
    assert [each["where"] for each in json.loads(table.read_text())["failed"]] == ["x/y"]
    assert (status, "1 failed, 2 done" in said, "x/y: truth.csv, line 4: its id" in said) == (1, True, True), said
    (tmp_path / "images.csv").write_text("id,t1\na,b.nii\n")
    status, said = gliomask("evaluate", tmp_path / "found.csv", tmp_path / "images.csv")
    assert (status, "images.csv: names no mask that can be used. A list of cases needs a" in said) == (2, True)


def test_remarks_on_many_rows_are_counted(gliomask: Run, folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Of a remark on each of many rows, the first are printed, and with `-v` all."""
    rows = [f"a{number},{folder_of(1)}/BraTS2021_00001" for number in range(30)]
    (tmp_path / "list.csv").write_text("\n".join(["id,folder", *rows]))
    status, said = gliomask("check", tmp_path / "list.csv")
    assert (status, said.count("has the same files")) == (0, 20), said
    assert f"and 9 more remarks; gliomask check {tmp_path / 'list.csv'} -v lists them" in said
    assert gliomask("check", tmp_path / "list.csv", "-v")[1].count("has the same files") == 29


def test_what_fails_of_a_list_is_counted_by_row_and_names_no_folder(
    gliomask: Run, model_file: Path, tmp_path: Path
) -> None:
    """`failed.csv` has each row under its id, also one with a slash, and no folder of it, which may name a person."""
    secret = tmp_path / "Mueller^Hans"
    (secret / "many").mkdir(parents=True)
    for name in ("P1", "P2"):
        (secret / "many" / name).symlink_to(tmp_path / "data" / "BraTS2021_00001")
    rows = [
        "id,folder,t1",
        f"good,{tmp_path}/data/BraTS2021_00001,",
        f"good2,{tmp_path}/data/BraTS2021_00002,",
        f"a/b,{secret}/nowhere,{secret}/x.nii",
        f"gone,{secret}/nowhere,",
        f",{secret}/nowhere,",
        f"file,{tmp_path}/model.safetensors,",
        f"twice,,{secret}/x.nii",
        f"Twice,,{secret}/y.nii",
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    words = ("predict", "-m", model_file, "-i", tmp_path / "list.csv", "-o", tmp_path / "out", "-d", "cpu")
    status, said = gliomask(*words)
    assert (status, "5 failed, 2 done" in said) == (1, True), said
    text = (tmp_path / "out" / "failed.csv").read_text()
    assert "Mueller" not in text
    assert str(tmp_path) not in text
    found = [row["case"] for row in csv.DictReader(text.splitlines())]
    assert found == ["a/b", "file", "gone", "list.csv, line 6", "twice"]
    (tmp_path / "list.csv").write_text("\n".join(rows[:3]))
    assert gliomask(*words)[0] == 0
    assert (tmp_path / "out" / "failed.csv").read_text() == "case,reason,older_mask_sha256\n"
    status, said = gliomask("report", tmp_path / "list.csv")
    assert (status, "gliomask report LIST MASKS" in said) == (2, True), said
