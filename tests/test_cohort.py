"""The table of a folder of predictions: whole at every moment, the same however it grew, and harmless to open."""

from __future__ import annotations

import csv
import json
import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliomask.cohort import FAILED, PARQUET, VOLUMES, FolderTable, read_row
from gliomask.cohort import table as cohort_table
from gliomask.evaluation.table_text import cell_text, escape_text
from gliomask.files.parquet import read_parquet
from gliomask.report import INDEX, write_cohort_page
from gliomask.report.index import old_pictures, warning_kind
from gliomask.volume import Volume, write_volume

ATLAS = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 239], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])


def facts_of(case: str, **other: Any) -> dict[str, Any]:
    """What `predict` writes beside a mask, of a case whose volumes depend on its name."""
    rng = random.Random(case)
    return {
        "case": case,
        "patient": case[:5],
        "timepoint": "1",
        "volumes_ml": {"WT": round(rng.uniform(0, 99), 3), "TC": 3.25, "ET": 1.0, "ED": 0.5, "NCR": 0.0},
        "lesions": {"WT": rng.randrange(4), "TC": 1, "ET": 1},
        "labels": {"convention": "brats2021", "1": "NCR", "2": "ED", "4": "ET"},
        "sequences": {"t1n": False, "t1c": True, "t2w": True, "t2f": True},
        "model": "/home/Jane Doe/run/best.safetensors",
        "network": "fast",
        "window": "whole",
        "settings": {"models": ["abc"]},
        "estimated_dice": {"WT": {"dice": 0.91, "low": 0.8, "high": 0.95}},
        "warnings": [],
        "versions": {"gliomask": "0.1", "openvino": "2026.1", "numpy": "2.4"},
        "seconds": 1.5,
        "mask": f"sha of {case}",
        **other,
    }


def finish(folder: Path, case: str, **other: Any) -> None:
    """Leave in a folder what a finished case leaves; a small empty file stands for the mask."""
    folder.mkdir(exist_ok=True)
    (folder / f"{case}.json").write_text(json.dumps(facts_of(case, **other)), "utf-8")
    (folder / f"{case}.nii.gz").touch()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rebuilt(folder: Path) -> str:
    """Return the table that is made of a folder from nothing."""
    (folder / VOLUMES).unlink(missing_ok=True)
    FolderTable(folder).write()
    return (folder / VOLUMES).read_text("utf-8")


def test_a_table_that_grew_equals_the_one_that_is_made_at_once(tmp_path: Path) -> None:
    """Cases end in any order, are made again, are moved away, and belong to another run of the same folder."""
    table = FolderTable(tmp_path)
    for number in (3, 1, 2, 9, 4):
        finish(tmp_path, f"CASE_{number}")
        table.write()
        assert (tmp_path / VOLUMES).read_text("utf-8") == rebuilt(tmp_path)
    (tmp_path / "CASE_9.nii.gz").unlink()
    finish(tmp_path, "CASE_2", seconds=99.25, warnings=["a", "b"], quality={"brain_ml": 1400.0})
    assert table.write().rows == 4
    grown = (tmp_path / VOLUMES).read_text("utf-8")
    assert grown == rebuilt(tmp_path)
    (row,) = [row for row in rows_of(tmp_path / VOLUMES) if row["case"] == "CASE_2"]
    assert (row["seconds"], row["warning_text"], row["quality_brain_ml"]) == ("99.250000", "a | b", "1400.000000")
    assert "Doe" not in grown


def test_a_mask_that_was_moved_away_and_back_has_its_row_again(tmp_path: Path) -> None:
    """Although its JSON is as it was."""
    table = FolderTable(tmp_path)
    for number in (1, 2):
        finish(tmp_path, f"CASE_{number}")
    table.write()
    (tmp_path / "CASE_1.nii.gz").rename(tmp_path / "elsewhere")
    assert table.write().rows == 1
    (tmp_path / "elsewhere").rename(tmp_path / "CASE_1.nii.gz")
    assert table.write().rows == 2


def test_two_programs_that_end_together_keep_the_failures_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adds its own to those that are in the file at that moment; none replaces what the other has just written."""
    met = threading.Barrier(2, timeout=1)
    read = cohort_table.read_failed

    def together(path: Path) -> list[tuple[str, str, str]]:
        found = read(path)
        with suppress(threading.BrokenBarrierError):  # the other waits for its turn
            met.wait()
        return found

    monkeypatch.setattr(cohort_table, "read_failed", together)
    programs = []
    for case in ("CASE_1", "CASE_2"):
        table = FolderTable(tmp_path)
        table.fail(case, "is damaged")
        programs.append(threading.Thread(target=table.write))
    for program in programs:
        program.start()
    for program in programs:
        program.join(60)
    assert [row["case"] for row in rows_of(tmp_path / FAILED)] == ["CASE_1", "CASE_2"]


def test_whoever_reads_the_table_while_it_grows_finds_it_whole(tmp_path: Path) -> None:
    """At every moment the CSV file has the columns of all and complete rows, never fewer than before."""
    finish(tmp_path, "CASE_000")
    table, stop, seen = FolderTable(tmp_path), threading.Event(), []
    table.write()

    def read() -> None:
        while not stop.is_set():
            seen.append(rows_of(tmp_path / VOLUMES))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 30):
            finish(tmp_path, f"CASE_{number:03d}")
            table.write()
    finally:
        stop.set()
        reader.join()
    counts = [len(rows) for rows in seen]
    assert counts == sorted(counts)
    assert all(None not in row and None not in row.values() and row["mask_sha256"] for rows in seen for row in rows)


def test_a_write_that_is_interrupted_leaves_the_older_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails, disk or program, before a file has its name; the next write completes it."""
    finish(tmp_path, "CASE_1")
    table = FolderTable(tmp_path)
    table.write()
    before = (tmp_path / VOLUMES).read_bytes()
    finish(tmp_path, "CASE_2")
    with monkeypatch.context() as broken:
        broken.setattr("gliomask.files.whole.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert any("No space left" in problem.what for problem in table.write().problems)
    assert (tmp_path / VOLUMES).read_bytes() == before
    assert table.write().problems == ()
    assert len(rows_of(tmp_path / VOLUMES)) == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


_TEXT = st.text(st.characters(exclude_characters="/\0"), max_size=12)


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(_TEXT, max_size=3), number=st.floats(allow_nan=True), count=st.integers())
def test_csv_and_parquet_agree(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], number: float, count: int
) -> None:
    """Every value, whatever text a warning has and whatever number a JSON holds; no cell is read as a formula."""
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("out")
    volumes = {"WT": number, "TC": 1}
    finish(
        folder,
        "A",
        warnings=texts,
        patient="=1+2",
        timepoint=(texts or ["+"])[0],
        volumes_ml=volumes,
        lesions={"WT": count},
    )
    finish(folder, "B", quality={"brain_ml": 1300, "odd name": 2})
    assert FolderTable(folder).write().problems == ()
    columns, stored = read_parquet(folder / PARQUET)
    lines = rows_of(folder / VOLUMES)
    assert columns == list(lines[0])
    for row, line in zip(stored, lines, strict=True):
        for column, value in row.items():
            cell = line[column]
            assert not cell.startswith(("=", "+", "@"))
            assert not cell.startswith("-") or float(cell) <= 0
            if value is None:
                assert cell == ""
            elif isinstance(value, str):
                assert escape_text(cell_text(cell)) == value
            else:
                assert float(cell) == value


def test_what_is_no_finished_case_is_no_row(tmp_path: Path) -> None:
    """A JSON without a mask, a mask without a JSON, scores, damaged and foreign JSON files."""
    finish(tmp_path, "GOOD")
    finish(tmp_path, "NO_MASK")
    (tmp_path / "NO_MASK.nii.gz").unlink()
    (tmp_path / "NO_JSON.nii.gz").touch()
    (tmp_path / "GOOD_probabilities.nii.gz").touch()
    for name, content in (("CUT", '{"case": "CU'), ("LIST", "[]"), ("SCORES", '{"cases": []}'), ("ODD", '{"case": 1}')):
        (tmp_path / f"{name}.json").write_text(content)
        (tmp_path / f"{name}.nii.gz").touch()
    table = FolderTable(tmp_path)
    table.write()
    assert [row["case"] for row in rows_of(tmp_path / VOLUMES)] == ["GOOD"]
    names = ("CUT", "LIST", "NO_JSON", "ODD", "SCORES")
    told = [*(f"{name}.nii.gz: has no row, as {name}.json is missing or" for name in names), "NO_MASK.json: has no row"]
    assert [str(each)[: len(start)] for each, start in zip(table.left_out(), told, strict=True)] == told
    assert read_row({"case": "X", "model": 1, "volumes_ml": [], "versions": None}) is not None


def test_failed_cases_are_listed_until_their_mask_is_there(tmp_path: Path) -> None:
    """Also over several runs and by rebuilding; folders are taken out of the reason; an older mask does not count."""
    finish(tmp_path, "OLD")
    first = FolderTable(tmp_path)
    first.ask(["A", "B", "OLD"])
    image = Path("/data/Jane Doe/A_t1.nii.gz")
    first.fail("A", f"{image}: ends too early", [image])
    first.fail("B", "=cmd|' /C calc'!A0")
    first.fail("OLD", "no space left")
    assert first.write().failed == 3
    assert [(row["case"], row["reason"]) for row in rows_of(tmp_path / FAILED)] == [
        ("A", "A_t1.nii.gz: ends too early"),
        ("B", "'=cmd|' /C calc'!A0"),
        ("OLD", "no space left"),
    ]
    assert FolderTable(tmp_path).write().failed == 3
    finish(tmp_path, "A")
    finish(tmp_path, "OLD", mask="a new mask")
    assert FolderTable(tmp_path).write().failed == 1
    again = FolderTable(tmp_path)
    again.ask(["B"])
    assert again.write().failed == 0


def test_reasons_name_no_folder_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a path is as it was given or as a worker names it; a case with two faults has both, and each once."""
    monkeypatch.chdir(tmp_path)
    image = Path("in", "Jane Doe", "A_t1.nii.gz")
    table = FolderTable(Path("in"))
    table.fail("A", f"{image.absolute()}: ends too early", [image])
    table.fail("A", f"{image}: is empty", [image])
    table.fail("A", f"{image}: is empty", [image])
    Path("in").mkdir()
    table.write()
    assert [row["reason"] for row in rows_of(Path("in") / FAILED)] == [
        "A_t1.nii.gz: ends too early; A_t1.nii.gz: is empty"
    ]


def test_files_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    """They are named, and everything else is written."""
    finish(tmp_path, "A")
    (tmp_path / VOLUMES).write_text("my,own\n1,2\n")
    (tmp_path / INDEX).write_text("<p>mine</p>")
    table = FolderTable(tmp_path)
    assert [problem.where for problem in table.write().problems] == [VOLUMES]
    assert (tmp_path / VOLUMES).read_text() == "my,own\n1,2\n"
    with pytest.raises(Exception, match="not a list that gliomask wrote"):
        write_cohort_page(table)
    assert (tmp_path / INDEX).read_text() == "<p>mine</p>"


def test_a_growing_table_is_not_written_for_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written every few seconds, less often if writing takes long: at most a fiftieth of the time."""
    clock = [100.0]
    monkeypatch.setattr("gliomask.cohort.table.time.monotonic", lambda: clock[0])
    table, written = FolderTable(tmp_path), []
    real = FolderTable.write

    def slow(self: FolderTable) -> Any:
        written.append(clock[0])
        clock[0] += 1.0
        return real(self)

    monkeypatch.setattr(FolderTable, "write", slow)
    for number in range(200):
        finish(tmp_path, f"CASE_{number}")
        table.write_if_due()
        clock[0] += 1.0
    assert written == [100.0, 151.0, 202.0, 253.0]


def write_mask(folder: Path, case: str, shape: tuple[int, int, int], affine: np.ndarray, at: int) -> None:
    labels = np.zeros(shape, np.uint8)
    labels[at : at + 4, 20:24, 10:14] = 2
    labels[at + 1, 21, 11] = 4
    write_volume(folder / f"{case}.nii.gz", Volume(labels[None], affine))


WEIRD = "<script>alert(1)</script> & 'x\" ü"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_the_page_shows_weird_names_as_text(tmp_path: Path) -> None:
    """Ids, patients and warnings are escaped, in the list for scripts too, and a link cannot have a scheme."""
    names = [WEIRD.replace("/", "-"), "javascript:alert(1)", "plain"]
    for name in names:
        finish(tmp_path, name, patient=WEIRD, warnings=[f"odd: {WEIRD}</script>"])
        write_mask(tmp_path, name, (30, 30, 20), np.eye(4), 8)
        (tmp_path / f"{name}.html").touch()
    table = FolderTable(tmp_path)
    table.write()
    page = write_cohort_page(table).read_text("utf-8")
    assert "<script>alert" not in page
    assert page.count("</script>") == 2  # the data and the program
    assert 'href="javascript:' not in page
    assert "javascript%3Aalert%281%29.html" in page
    data = json.loads(page.partition('id="cases-data">')[2].partition("</script>")[0])
    assert sorted(one["case"] for one in data["cases"]) == sorted(names)
    assert data["kinds"] == [["odd", 3]]


def test_the_page_counts_tumours_in_the_atlas(tmp_path: Path) -> None:
    """Only masks on the atlas's grid count, in whatever order their axes are stored; the share is of those."""
    for number, at in enumerate((100, 101, 102, 150)):
        finish(tmp_path, f"C{number}")
        write_mask(tmp_path, f"C{number}", (240, 240, 155), ATLAS, at)
    finish(tmp_path, "OTHER")
    write_mask(tmp_path, "OTHER", (30, 30, 20), np.eye(4), 8)
    table = FolderTable(tmp_path)
    table.write()
    page = write_cohort_page(table).read_text("utf-8")
    assert "Of the 4 masks in the space of the atlas SRI24" in page
    assert "up to 75" in page  # three of the four overlap


def test_pictures_are_kept_while_the_mask_is_the_same(tmp_path: Path) -> None:
    """A picture that a report drew on the images stays until the mask is another one."""
    finish(tmp_path, "A")
    write_mask(tmp_path, "A", (30, 30, 20), np.eye(4), 8)
    table = FolderTable(tmp_path)
    table.write()
    page = write_cohort_page(table)
    (own,) = old_pictures(page).values()
    page.write_text(page.read_text("utf-8").replace(own, "data:image/png;base64,AAAA"), "utf-8")
    write_cohort_page(table)
    assert set(old_pictures(page).values()) == {"data:image/png;base64,AAAA"}
    finish(tmp_path, "A", mask="another")
    table.write()
    write_cohort_page(table)
    assert set(old_pictures(page).values()) == {own}


def test_warnings_of_one_kind_are_counted_together() -> None:
    """The numbers in them differ from case to case."""
    assert warning_kind("tumour of 312.4 mL is large. Look at it.") == warning_kind("tumour of 99 mL is large. Look.")
    assert warning_kind("no t1c: only that shows") == "no t1c"


def test_the_command_makes_the_table_that_predict_made(
    gliomask: Callable[..., tuple[int, str]], model_file: Path, tmp_path: Path
) -> None:
    """The numbers are those of the JSON files; a folder without predictions is refused; evaluate is not disturbed."""
    out = tmp_path / "out"
    assert gliomask("predict", "-m", model_file, "-i", tmp_path / "data", "-o", out)[0] == 0
    grown = (out / VOLUMES).read_bytes()
    assert gliomask("table", out)[0] == 0
    assert (out / VOLUMES).read_bytes() == grown
    for row in rows_of(out / VOLUMES):
        told = json.loads((out / f"{row['case']}.json").read_text())
        assert float(row["WT_ml"]) == told["volumes_ml"]["WT"]
        assert int(row["WT_lesions"]) == told["lesions"]["WT"]
        assert set(row["sequences"].split()) == {name for name, there in told["sequences"].items() if there}
    assert 'id="cases-data"' in (out / INDEX).read_text("utf-8")
    (out / f"{row['case']}.json").rename(out / "gone.json")
    status, said = gliomask("table", out)
    assert (status, f"warning: {row['case']}.nii.gz: has no row" in said) == (0, True), said
    assert "warning: gone.json: has no row, as the mask beside it is gone" in said
    (out / "gone.json").rename(out / f"{row['case']}.json")
    assert gliomask("evaluate", out, tmp_path / "data")[0] == 0
    status, said = gliomask("table", tmp_path / "data")
    assert (status, "holds no mask that predict wrote" in said) == (2, True)
    kept = (out / VOLUMES).read_bytes()
    for mask in out.glob("*.nii.gz"):  # moved elsewhere, with the table left here
        mask.unlink()
    status, said = gliomask("table", out)
    assert (status, f"{VOLUMES} is left as it is" in said) == (2, True), said
    assert (out / VOLUMES).read_bytes() == kept


def test_failures_are_listed_where_no_case_could_be_predicted(
    gliomask: Callable[..., tuple[int, str]], model_file: Path, tmp_path: Path
) -> None:
    """With no other table; a folder of masks that are somebody's, where every case is refused, gets no file."""
    data, out = tmp_path / "data", tmp_path / "out"
    words = ("predict", "-m", model_file, "-i", data, "-o")
    whole = {path: path.read_bytes() for path in data.glob("*/*_flair.nii.gz")}
    (tmp_path / "theirs").mkdir()
    for path in whole:
        (tmp_path / "theirs" / f"{path.parent.name}.nii.gz").write_bytes(b"a mask")
        path.write_bytes(whole[path][:-60])
    assert gliomask(*words, out)[0] == 1
    assert [row["case"] for row in rows_of(out / FAILED)] == sorted(path.parent.name for path in whole)
    assert [path.name for path in out.iterdir()] == [FAILED]
    status, said = gliomask("table", out, "--no-page")
    assert (status, "2 failed" in said) == (0, True), said
    for path, content in whole.items():
        path.write_bytes(content)
    assert gliomask(*words, out)[0] == 0
    assert rows_of(out / FAILED) == []
    before = sorted((tmp_path / "theirs").iterdir())
    assert gliomask(*words, tmp_path / "theirs")[0] == 1
    assert sorted((tmp_path / "theirs").iterdir()) == before
