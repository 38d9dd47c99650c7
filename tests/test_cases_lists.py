"""Lists of cases as people have them: any spelling is read alike, and what cannot be used names its line."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gliomask.cases import Problem, find_cases, survey, survey_masks
from gliomask.cases.rows import column_of
from gliomask.errors import InputError
from gliomask.files.delimited import read_delimited
from gliomask.files.parquet import write_parquet

ROWS = (("ID", "Patient", "T1ce", "FLAIR"), ("a-1", "Jürgen", "x/1.nii", "x/2.nii"), ("a-2", "Zoë", "y/1.nii", ""))
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "cp1252": b"",
    "utf-16": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
}


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def facts(path: Path) -> list[tuple[str, str, dict[str, str]]]:
    return [
        (case.id, case.patient, {name: source.path.name for name, source in case.images.items()})
        for case in survey(path).cases
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_separator_and_encoding_is_read_alike(tmp_path: Path, separator: str, encoding: str) -> None:
    """Also with any line end, quoted cells, blank lines, empty columns at the end and spaces around cells."""
    expected = [
        ("a-1", "Jürgen", {"t1c": "1.nii", "t2f": "2.nii"}),
        ("a-2", "Zoë", {"t1c": "1.nii"}),
    ]
    for end, quoted, padded in itertools.product(("\n", "\r\n", "\r"), (False, True), (False, True)):
        rows = [[f'"{cell}"' if quoted else f" {cell} " if padded else cell for cell in row] for row in ROWS]
        rows = [[*row, "", ""] if padded else row for row in rows]
        lines = [separator.join(row) for row in rows]
        text = end.join(["", *lines[:2], "", *lines[2:], separator * 3, ""] if padded else lines)
        (tmp_path / "list.csv").write_bytes(ENCODINGS[encoding] + text.encode(encoding))
        assert facts(tmp_path / "list.csv") == expected, (end, quoted, padded)


def test_a_guessed_encoding_is_named_with_a_cell_to_look_at(tmp_path: Path) -> None:
    """UTF-8 and what a mark tells are no guess."""
    text = "id;t1\na;1.nii\nMüller;2.nii\n"
    for encoding, notes in (("cp1252", 1), ("utf-8", 0), ("utf-16", 0)):
        (tmp_path / "list.csv").write_bytes(text.encode(encoding))
        found = survey(tmp_path / "list.csv").notes
        assert len(found) == notes, encoding
        assert all("Windows-1252" in note.what and "'Müller' in line 3" in note.what for note in found)


def test_the_first_line_of_excel_names_the_separator(tmp_path: Path) -> None:
    """`sep=;` is no header."""
    assert [case.id for case in find_cases(write(tmp_path / "list.csv", "sep=;", "id;t1", "a,b;1.nii"))] == ["a,b"]


@pytest.mark.parametrize("line", ["sep=", 'sep="'])
def test_a_line_of_excel_that_names_no_separator_is_refused(tmp_path: Path, line: str) -> None:
    """A line end or a quotation mark cannot stand between cells; some versions of Python fail on them."""
    (tmp_path / "list.csv").write_text(f"{line}\r\nid,t1\r\na,1.nii\r\n", "utf-8", newline="")
    with pytest.raises(InputError, match=r"list\.csv"):
        find_cases(tmp_path / "list.csv")


@pytest.mark.parametrize("ending", [".tsv", ".txt", ".CSV"])
def test_text_files_of_other_endings_are_lists_too(tmp_path: Path, ending: str) -> None:
    """Excel writes tables with tabs as `.txt`."""
    assert [case.id for case in find_cases(write(tmp_path / f"list{ending}", "id\tt1", "a\t1.nii"))] == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"PK\x03\x04rest", "workbook"),
        (b"\xd0\xcf\x11\xe0rest", "workbook of Excel"),
        (b"PAR1rest", "ending .parquet"),
        (b"\x1f\x8brest", "is compressed"),
        (b"<html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"id,t1\n\x81,1.nii\n", "line 2: is no text in UTF-8 or Windows-1252"),
        (b"id,t1;flair\na,1.nii;2.nii\n", "separated by comma or semicolon"),
        (b'id,t1\na,"x/1.nii\nb,y/1.nii\n', "line 2: a quotation mark that begins a cell is not closed"),
        (b'id,t1\na,1.nii\nb,"x"y/1.nii\n', "line 3: a quotation mark in the middle"),
        (b"P1;/data/1\nP2;/data/2\n", r"read as 'P1', '/data/1' \(UTF-8, cells separated by semicolon\)"),
        (b"case,volume\na,3\n", "no column of a sequence, nor one called folder"),
        (b"id,case,t1\na,b,1.nii\n", r"two columns for id \(id, case\)"),
    ],
)
def test_a_list_that_cannot_be_read_says_what_was_found(tmp_path: Path, content: bytes, message: str) -> None:
    """Nothing of it is used: what was guessed might be wrong in every row."""
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        survey(tmp_path / "list.csv")
    assert "list.csv" in str(raised.value)


LONG = "x" * 201


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x_t1,,1.nii,", "ends like the name of an image"),
        ("x-seg,,1.nii,", "ends like the name of a true mask"),
        ("a\u202eb,,1.nii,", "cannot be the name of a file: it has '"),
        ("#a,case,,", "begins with '#'"),
        (f"a,{LONG}{LONG},,", "cannot be looked into: File name too long"),
        ("a/b,,1.nii,", "its id 'a/b' cannot be the name of a file: it has '/'"),
        ("..,,1.nii,", "begins with a dot"),
        ("a:b?,,1.nii,", "it has ':' '?'"),
        ("nul,,1.nii,", "Windows keeps it for a device"),
        (f"{LONG},,1.nii,", "has 201 bytes"),
        ("é" * 101 + ",,1.nii,", "has 202 bytes"),
        ('"a\nb",,1.nii,', "cannot be the name of a file"),
        ('a,,"1.nii\nb,,2.nii",', "line break or a control character"),
        ("a,,,", "has no image"),
        ("a,,1.nii,1.nii", "t1n and t2f are the same file: "),
        ("a,,1.nii,./x/../1.nii", "t1n and t2f are the same file: "),
        ("a,case,1.nii,", r"names a folder and also files \(t1n\)"),
        ("a,nowhere,,", "nowhere: no such folder"),
        (r"a,C:\data\P1,,", "Is it a path of Windows"),
        ("a,case/c_t1.nii,,", "is a file. Name the folder"),
        ("a,many,,", r"holds 2 cases \(P1, P2\)"),
        ("a,examinations,,", r"holds 2 cases"),
        ("a,twice,,", "2 files for t1n: "),
        ("a,empty,,", "holds no image"),
        ("a,masks,,", "holds no image"),
        ("a,#REF!,,", "#REF!, the error of a spreadsheet"),
        ("a,case,,,extra", r"more cells than the first line \('extra'\)"),
        ("a;case;;", "has one cell, 'a;case;;'"),
    ],
)
def test_a_row_that_cannot_be_used_names_its_line(tmp_path: Path, row: str, message: str) -> None:
    """The row before it and the one after it are used; a row is one problem, whatever is wrong with it."""
    touch(tmp_path, "case/c_t1.nii", "other/o_t1.nii", "many/P1/P1_t1.nii", "many/P2/P2_t1.nii", "masks/m_seg.nii")
    touch(tmp_path, "examinations/ses-1/t1.nii", "examinations/ses-2/flair.nii")
    touch(tmp_path, "twice/x_t1.nii", "twice/x_T1w.nii", "empty/readme.txt")
    path = write(tmp_path / "list.csv", "id,folder,t1,flair", "before,case,,", row, "after,other,,")
    found = survey(path)
    assert [case.id for case in found.cases] == ["after", "before"]
    with pytest.raises(InputError, match=message):
        find_cases(path)
    (problem,) = found.problems
    assert "list.csv, line 3" in str(problem)


def test_ids_that_are_one_file_name_are_refused_with_their_lines(tmp_path: Path) -> None:
    """Upper and lower case, and how Unicode composes a letter, make no difference on Windows and macOS."""
    ids = ("A1", "a1", "é", "e\u0301", "b", "c", "b")
    found = survey(write(tmp_path / "list.csv", "id,t1", *(f"{name},{place}.nii" for place, name in enumerate(ids))))
    assert [case.id for case in found.cases] == ["c"]
    why = "differ only in upper and lower case or in how letters are composed, and would be one file on Windows and"
    assert [problem.what.partition(" macOS")[0] for problem in found.problems] == [
        f"list.csv: A1 and a1 (line 2, line 3) {why}",
        f"list.csv: é and e\u0301 (line 4, line 5) {why}",
        "list.csv: the same id twice: line 6, line 8. Remove or rename one.",
    ]


def test_the_same_files_under_two_ids_are_said(tmp_path: Path) -> None:
    """Both are used, as it may be meant so."""
    touch(tmp_path, "x/t1.nii", "x/flair.nii")
    path = write(tmp_path / "list.csv", "id,folder,t1,flair", "a,x,,", "b,./x,,", "c,,1.nii,2.nii", "d,,1.nii,3.nii")
    found = survey(path)
    assert [case.id for case in found.cases] == ["a", "b", "c", "d"]
    assert list(map(str, found.notes)) == [
        "list.csv, line 3: b has the same files as line 2",
        "list.csv, line 5: d has 1 of 2 files the same as line 4",
    ]


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    """A heading that was meant for a sequence is missed otherwise; headings may have spaces."""
    path = write(tmp_path / "list.csv", ",id,T1 Gd,T1 mit KM,age", "0,a,1.nii,2.nii,60")
    found = survey(path)
    assert [set(case.images) for case in found.cases] == [{"t1c"}]
    assert [note.what for note in found.notes] == ["columns that are not used: T1 mit KM, age"]


@pytest.mark.parametrize("cell", ["NA", "n/a", "NaN", "None", "NULL", "<NA>"])
def test_what_programs_write_for_no_value_is_none(tmp_path: Path, cell: str) -> None:
    """Cases without a patient are not examinations of one patient called NA."""
    path = write(tmp_path / "list.csv", "id,patient,t1,flair", f"a,{cell},1.nii,{cell}", f"b,{cell},2.nii,{cell}")
    assert facts(path) == [("a", "a", {"t1n": "1.nii"}), ("b", "b", {"t1n": "2.nii"})]


def test_numbers_in_parquet_are_whole_where_they_are(tmp_path: Path) -> None:
    """pandas makes fractions of a column of whole numbers that has an empty cell, which is NaN."""
    pytest.importorskip("pyarrow")
    rows = [{"id": 1.0, "patient": float("nan"), "t1": "1.nii"}, {"id": 2.0, "patient": None, "t1": "2.nii"}]
    write_parquet(tmp_path / "list.parquet", {"id": float, "patient": float, "t1": str}, rows, "")
    assert facts(tmp_path / "list.parquet") == [("1", "1", {"t1n": "1.nii"}), ("2", "2", {"t1n": "2.nii"})]
    write_parquet(tmp_path / "list.parquet", {"id": str, "t1": str}, [{"id": "a/b", "t1": "1.nii"}], "")
    (problem,) = survey(tmp_path / "list.parquet").problems
    assert str(problem).startswith("a/b: list.parquet, row 1: its id")


def test_a_folder_in_a_list_is_read_as_it_is_by_itself(tmp_path: Path) -> None:
    """Images without skull go before others, folders of sequences are one case, and `labels.txt` counts."""
    touch(tmp_path, "in/P1/x_t1.nii", "in/P1/x_t1_brain.nii", "in/P1/x_seg.nii", "in/P2/FLAIR/1.nii", "in/P2/T1/1.nii")
    (tmp_path / "in/P1/labels.txt").write_text("hd-glio")
    path = write(tmp_path / "list.csv", "folder", "in/P1", "in/P2")
    found = survey(path)
    for case in found.cases:
        (alone,) = find_cases(tmp_path / "in" / case.id)
        assert (case.images, case.mask, case.convention) == (alone.images, alone.mask, alone.convention)
    assert [(case.id, case.convention) for case in found.cases] == [("P1", "hd-glio"), ("P2", None)]
    assert [Path(each.where).name for each in found.passed_over] == ["x_t1.nii"]


def test_a_mask_beside_a_folder_goes_before_the_one_in_it(tmp_path: Path) -> None:
    """It is not ignored."""
    touch(tmp_path, "P1/t1.nii", "P1/seg.nii", "P2/t1.nii", "P2/seg.nii", "truth/1.nii")
    path = write(tmp_path / "list.csv", "folder,mask", "P1,truth/1.nii", "P2,")
    assert [case.mask for case in find_cases(path)] == [tmp_path / "truth/1.nii", tmp_path / "P2/seg.nii"]


def test_a_file_beside_the_masks_of_a_list_tells_their_convention(tmp_path: Path) -> None:
    """As in a folder; folders above that of the list are not looked into."""
    touch(tmp_path, "in/m/a.nii", "in/n/b.nii", "far/c.nii")
    (tmp_path / "in/m/labels.txt").write_text("hd-glio")
    (tmp_path / "labels.txt").write_text("msd")
    rows = ("a,1.nii,m/a.nii", "b,2.nii,n/b.nii", "c,3.nii,../far/c.nii")
    path = write(tmp_path / "in" / "list.csv", "id,t1,mask", *rows)
    assert [case.convention for case in find_cases(path)] == ["hd-glio", None, None]


def test_masks_of_a_list_need_no_images(tmp_path: Path) -> None:
    """Of a list of folders, the mask in each is used; rows without a mask are passed over by their line."""
    touch(tmp_path, "P1/t1.nii", "P1/seg.nii", "P2/P2_seg.nii", "P3/t1.nii", "P4/a_seg.nii", "P4/b_seg.nii")
    path = write(tmp_path / "list.csv", "id,folder,mask", "a,P1,", "b,P2,", "c,P3,", "d,P4,", "e,,x/e.nii", "f,,")
    found = survey_masks(path)
    assert [(case.id, case.mask.name) for case in found.cases if case.mask] == [
        ("a", "seg.nii"),
        ("b", "P2_seg.nii"),
        ("e", "e.nii"),
    ]
    assert [each.where for each in found.passed_over] == ["list.csv, line 4", "list.csv, line 7"]
    assert [problem.where for problem in found.problems] == ["d"]


@pytest.mark.parametrize(("name", "what"), [("list.csv", "file"), ("list.parquet", "file"), ("cohort", "folder")])
def test_a_list_that_is_missing_is_no_folder(tmp_path: Path, name: str, what: str) -> None:
    """And a folder that is missing is no file."""
    with pytest.raises(InputError, match=f"{name}: no such {what}"):
        survey(tmp_path / name)


def test_a_workbook_is_called_one(tmp_path: Path) -> None:
    """The way out is to save it as CSV."""
    (tmp_path / "list.xlsx").write_bytes(b"PK\x05\x06" + bytes(18))  # an empty zip file
    with pytest.raises(InputError, match=r"list.xlsx: is a workbook of a spreadsheet. Save"):
        survey(tmp_path / "list.xlsx")


def test_an_id_of_a_folder_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """Its images have names that fit, but not those of its results."""
    touch(tmp_path, f"{LONG}/t1.nii", "b/t1.nii")
    found = survey(tmp_path)
    assert [case.id for case in found.cases] == ["b"]
    assert [problem.where for problem in found.problems] == [LONG]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    """Blank lines and line breaks in quoted cells count."""
    (tmp_path / "list.csv").write_text('\n"id",t1\n\n"a\nb",1.nii\nc,2.nii\n')
    found = read_delimited(tmp_path / "list.csv", lambda heading: heading in ("id", "t1"))
    assert (found.header.number, [line.number for line in found.rows]) == (2, [4, 6])


def test_a_problem_is_called_after_its_id_or_the_last_part_of_its_path(tmp_path: Path) -> None:
    """An id with a slash is no path."""
    assert Problem("a/b", "").name == "a/b"
    assert Problem(str(tmp_path / "b"), "", (tmp_path / "b",)).name == "b"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image": {"t1": "a_t1.nii"}}, "image is neither a file nor a list of files"),
        ({"image": "a_t1.nii", "t1": "b.nii"}, "has image and also t1n"),
        ({"t1": "a.nii", "T1w": "b.nii"}, "has two values for t1n"),
        ({"t1": ["a.nii", "b.nii"]}, "t1 is neither a text nor a number"),
        ({"image": "a_t1.nii", "label": ["a.nii", "b.nii"]}, "label is neither a text nor a number"),
        ({"id": True, "t1": "a.nii"}, "id is neither a text nor a number"),
        ({"image": ""}, "has no image"),
    ],
)
def test_an_entry_of_a_datalist_that_cannot_be_used_is_named(
    tmp_path: Path, entry: dict[str, object], message: str
) -> None:
    """No value is left out without a word; a list of one file is that file."""
    good = {"id": 7, "t1": ["x.nii"], "label": ["y.nii"]}
    (tmp_path / "list.json").write_bytes(json.dumps({"training": [good, entry]}).encode("utf-16"))
    found = survey(tmp_path / "list.json")
    assert [(case.id, set(case.images), case.mask) for case in found.cases] == [("7", {"t1n"}, tmp_path / "y.nii")]
    with pytest.raises(InputError, match=rf"list.json, training 1: .*{message}"):
        find_cases(tmp_path / "list.json")


def test_a_list_may_lie_elsewhere_and_name_folders_there(tmp_path: Path) -> None:
    """A cell with a URL does not begin from the folder of the list, and one without does."""
    pytest.importorskip("fsspec")
    touch(tmp_path, "P1/t1.nii", "P2/t1.nii", "lists/P3/t1.nii")
    path = write(tmp_path / "lists" / "list.csv", "folder,t1", f"file://{tmp_path}/P1,", "P3,", "nowhere,", ",x_t1.nii")
    for place, kinds in ((path, "urls and paths"), (Path(f"file://{path}"), "urls")):
        found = survey(place)
        assert [case.id for case in found.cases] == ["P1", "P3", "x"], kinds
        remote = [next(iter(case.images.values())).path.parts[0] == "file:" for case in found.cases]
        assert remote == ([True] * 3 if kinds == "urls" else [True, False, False])
        assert [problem.where for problem in found.problems] == ["list.csv, line 4"]
    write(path, "age", "60")
    with pytest.raises(InputError, match=rf"^file://{path}: has no column of a sequence"):
        survey(Path(f"file://{path}"))


_PIECES = ("id", "folder", "t1", "mask", "patient", "é", "./a", "#", "'", '"', ",", ";", "\t", "|", " ", "\0")
_PIECES += ("\n", "\r\n", "\r")
_BASE = 'id,folder,t1,mask\na,x,,\nb,,y.nii,z.nii\nc,"x, y",,\n'


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, len(_BASE)), st.integers(0, 6), st.sampled_from(_PIECES)), max_size=6),
    st.sampled_from(["utf-8", "utf-16", "cp1252", "utf-16-le"]),
    st.binary(max_size=3),
)
def test_a_damaged_list_is_refused_or_every_row_is_accounted_for(
    tmp_path: Path, edits: list[tuple[int, int, str]], encoding: str, rest: bytes
) -> None:
    """No list raises anything but an InputError, and no row disappears: it is a case or a problem."""
    text = _BASE
    for place, length, piece in edits:
        text = text[:place] + piece + text[place + length :]
    touch(tmp_path, "x/t1.nii", "x, y/t1.nii")
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode(encoding) + rest)
    try:
        found = survey(path)
    except InputError:  # as a whole
        return
    table = read_delimited(path, lambda heading: bool(column_of(heading)))
    used = [place for place, heading in enumerate(table.header.cells) if column_of(heading)]
    last = max(place for place, heading in enumerate(table.header.cells) if heading)
    filled = {
        row.number
        for row in table.rows
        if any(cell for place, cell in enumerate(row.cells) if place in used or place > last)
    }
    told = {int(line) for problem in found.problems for line in re.findall(r"line (\d+)", str(problem))}
    assert told <= filled
    assert len(found.cases) == len(filled - told)
