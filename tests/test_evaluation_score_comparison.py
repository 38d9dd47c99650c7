"""Score tables against each other: which files can be compared, the challenge's rank, and the output of the command."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PureWindowsPath

import pytest

from gliomask.cases import Problem
from gliomask.errors import InputError
from gliomask.evaluation import Evaluation, compare_scores, read_score_table
from gliomask.evaluation.results import to_csv
from gliomask.evaluation.score_comparison import more_is_better
from gliomask.evaluation.score_tables import name_tables
from gliomask.metrics import PROTOCOLS

Table = Mapping[str, tuple[float, float]]


def evaluation_of(table: Table, protocol: str = "brats2021", **regions: Table) -> Evaluation:
    """Return made-up scores: Dice and HD95 of each case, the same in all regions except those given by name.

    Infinity is only the distance of a lesion, as in BraTS 2026; whole regions get 373 instead.
    """
    row = PROTOCOLS[protocol]

    def scores(case: str, region: str) -> dict[str, float]:
        dice, hd95_mm = regions.get(region, table)[case]
        values = {
            "dice": dice,
            "lesion_dice": dice,
            "lesion_hd95_pooled_mm": hd95_mm,
            "lesion_hd95_surface_mm": hd95_mm,
        }
        whole_mm = 373.0 if hd95_mm == math.inf else hd95_mm
        values |= {"hd95_pooled_mm": whole_mm, "hd95_surface_mm": whole_mm}
        return {name: values.get(name, 0.5) for name in row.names}

    return Evaluation(row, {case: {region: scores(case, region) for region in row.regions} for case in table}, ())


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[..., Path]:
    """Write made-up scores to a file and return it."""

    def write(name: str, table: Table, protocol: str = "brats2021", **regions: Table) -> Path:
        evaluation_of(table, protocol, **regions).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def command(gliomask: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, str]]:
    """Run the command in 80 columns."""
    return partial(gliomask, "compare-scores", columns=80)


GOOD = {"a": (0.9, 1.0), "b": (0.8, 2.0), "c": (0.7, 3.0)}
BAD = {"a": (0.8, 2.0), "b": (0.6, 4.0), "c": (0.4, 9.0)}
MIXED = {"a": (0.85, 1.0), "b": (0.8, 1.0), "c": (0.9, 12.0)}


def test_no_output_replaces_a_table_that_is_compared(command, file_of) -> None:
    """The scores would be lost."""
    first, second = file_of("a.csv", GOOD), file_of("b.csv", BAD)
    before = first.read_bytes()
    status, said = command(first, second, "-o", first.parent / "." / "a.csv")
    assert (status, "is a file of the input" in said) == (2, True)
    assert first.read_bytes() == before


def test_the_rank_by_hand(file_of) -> None:
    """The rank is the mean over cases of the mean over regions and metrics; equal scores share a rank.

    Dice: a good 1, mixed 2, bad 3; b good and mixed 1.5; c mixed 1, good 2. HD95: a good and mixed 1.5, bad 3; b mixed
    1, good 2, bad 3; c good 1, bad 2, mixed 3.
    """
    found = compare_scores([file_of("good.csv", GOOD), file_of("bad.csv", BAD), file_of("mixed.csv", MIXED)])
    assert found.ranks["good"] == pytest.approx({"a": 1.25, "b": 1.75, "c": 1.5})
    assert found.ranks["mixed"] == pytest.approx({"a": 1.75, "b": 1.25, "c": 2.0})
    assert found.ranks["bad"] == pytest.approx({"a": 3.0, "b": 3.0, "c": 2.5})
    assert [row["entrant"] for row in found.standings()] == ["good", "mixed", "bad"]
    assert found.standings()[0]["mean_rank"] == pytest.approx(1.5)
    assert found.standings()[0]["WT_dice"] == pytest.approx(0.8)


def test_the_better_mean_is_named_for_every_pair(file_of) -> None:
    """A larger Dice, a smaller distance or a smaller rank is better; metrics by region come first, then the rank."""
    found = compare_scores([file_of("good.csv", GOOD), file_of("bad.json", BAD)])
    assert [(found_one.region, found_one.metric) for found_one in found.differences] == [
        *((region, metric) for region in ("WT", "TC", "ET") for metric in ("dice", "hd95_pooled_mm")),
        ("all", "rank"),
    ]
    assert {found_one.better for found_one in found.differences} == {"good"}
    first, second = found.differences[0].test, found.differences[1].test
    assert (first.difference, second.difference) == (pytest.approx(0.2), pytest.approx(-3))
    assert first.p_permutation == 0.25
    assert found.differences[0].p_holm == 1.0
    assert found.differences[-1].p_holm == 0.25  # the rank is one test, whatever the number of metrics


def test_equal_tables_share_the_rank(file_of) -> None:
    """Two files with the same scores: no difference, p is 1, both have rank 1.5, and neither is better."""
    found = compare_scores([file_of("one.csv", GOOD), file_of("two.csv", GOOD)])
    assert {row["mean_rank"] for row in found.standings()} == {1.5}
    assert {(d.test.difference, d.test.p_permutation, d.test.p_wilcoxon, d.better) for d in found.differences} == {
        (0, 1, 1, "")
    }


def test_csv_and_json_say_the_same(file_of) -> None:
    """Both formats give the same differences when read back."""
    paths = [[file_of(f"good.{end}", GOOD), file_of(f"mixed.{end}", MIXED)] for end in ("csv", "json")]
    by_csv, by_json = map(compare_scores, paths)
    assert by_csv.differences == by_json.differences
    assert by_csv.ranks == by_json.ranks


def test_only_shared_cases_count_and_the_others_are_named(file_of) -> None:
    """Cases that are not in all files are listed by file, in the order of the files."""
    more = {**GOOD, "d": (0.0, 99.0)}
    found = compare_scores([file_of("more.csv", more), file_of("bad.csv", {**BAD, "e": (1, 0), "f": (1, 0)})])
    assert found.tables.cases == ("a", "b", "c")
    assert [(note.where, note.what.rpartition(": ")[2]) for note in found.tables.left_out] == [
        ("more", "d"),
        ("bad", "e, f"),
    ]
    assert found.standings()[0]["ET_dice"] == pytest.approx(0.8)


def test_an_undefined_score_enters_no_difference_and_ranks_as_best(file_of) -> None:
    """In 2026 a case without tumour has no score if nothing was predicted, and ranks before a false prediction."""
    quiet = {**GOOD, "empty": (math.nan, math.nan)}
    loud = {**GOOD, "empty": (0.0, math.inf)}
    found = compare_scores([file_of("quiet.csv", quiet, "brats2026-goat"), file_of("loud.csv", loud, "brats2026-goat")])
    assert {found_one.test.cases for found_one in found.differences[:-1]} == {3}
    assert found.ranks["quiet"]["empty"] == 1
    assert found.ranks["loud"]["empty"] == 2
    same = compare_scores([file_of("q.csv", quiet, "brats2026-goat"), file_of("r.csv", quiet, "brats2026-goat")])
    assert same.ranks["q"]["empty"] == 1.5


def test_scores_that_are_none_are_counted_by_table_and_region(command, file_of, tmp_path: Path) -> None:
    """The note says what they count for, the differences have the number of their cases, and the lines 80 columns."""
    none = {**GOOD, "d": (math.nan, math.nan)}
    full = {**BAD, "d": (0.5, 5.0)}
    false = {**BAD, "d": (0.0, math.inf)}
    paths = [
        file_of(f"{name}.csv", full, "brats2026-goat", ET=lone) for name, lone in (("quiet", none), ("loud", false))
    ]
    found = compare_scores(paths)
    assert [str(note) for note in found.notes()] == [
        "quiet: no lesion_dice and no lesion_hd95_pooled_mm of ET in 1 of 4 cases: left out of the means and "
        "differences, counted as the best in the ranks"
    ]
    assert [d.test.cases for d in found.differences] == [4, 4, 4, 4, 3, 3, 4]
    status, said = command(*paths, "-o", tmp_path / "c.json")
    assert status == 0, said
    lines = said.splitlines()
    assert "quiet: no lesion_dice and no lesion_hd95_pooled_mm of ET in 1 of 4 cases" in " ".join(said.split())
    assert "mean: over the cases in which a table has the score" in lines
    by_region = [line.split() for line in lines if line.startswith("ET ")]
    assert [cells[1:3] for cells in by_region] == [["3", "+0.200"], ["3", "-3.000"]]
    assert max(len(line) for line in lines if line.startswith(("WT", "TC", "ET", "all"))) <= 80
    assert json.loads((tmp_path / "c.json").read_text())["notes"][0]["where"] == "quiet"
    assert not compare_scores([file_of("x.csv", GOOD), file_of("y.csv", BAD)]).notes()


def test_infinite_distances_count_as_the_penalty(file_of) -> None:
    """An infinite lesion distance of 2026 is replaced by 373, so that a mean exists."""
    lost = {**GOOD, "a": (0.0, math.inf)}
    found = compare_scores([file_of("lost.csv", lost, "brats2026-goat"), file_of("good.csv", GOOD, "brats2026-goat")])
    distance = next(found_one for found_one in found.differences if found_one.metric == "lesion_hd95_pooled_mm")
    assert distance.test.difference == pytest.approx((373 - 1) / 3)
    both = compare_scores([file_of("x.csv", lost, "brats2026-goat"), file_of("lost.csv", lost, "brats2026-goat")])
    assert {found_one.test.ties for found_one in both.differences} == {3}


def test_other_metrics_are_compared_as_asked(file_of) -> None:
    """Metrics are compared in the given order; one without an order is refused, a misspelt one gets a hint."""
    paths = [file_of("good.csv", GOOD), file_of("bad.csv", BAD)]
    found = compare_scores(paths, metrics=["hd95_surface_mm", "sensitivity", "sensitivity"])
    assert found.metrics == ("hd95_surface_mm", "sensitivity")
    with pytest.raises(InputError, match="truth_ml: a larger value is neither better nor worse"):
        compare_scores(paths, metrics=["truth_ml"])
    with pytest.raises(InputError, match="unknown metric 'dize'; did you mean 'dice'"):
        compare_scores(paths, metrics=["dize"])


def test_what_is_better() -> None:
    """Shares are better if larger, distances and lesion errors if smaller; facts have no order."""
    assert all(map(more_is_better, ("dice", "lesion_dice", "nsd_1mm", "detection_f1", "specificity")))
    down = ("hd95_pooled_mm", "lesion_hd95_surface_mm", "lesion_fp", "lesion_fn", "rank")
    assert [more_is_better(name) for name in down] == [False] * 5
    assert [more_is_better(name) for name in ("truth_ml", "lesion_tp", "nonsense")] == [None] * 3


def test_files_of_different_protocols_are_refused(file_of) -> None:
    """The message names files and protocols; a file with several protocols needs a choice."""
    old, new = file_of("old.csv", GOOD), file_of("new.csv", GOOD, "brats2023-gli")
    with pytest.raises(InputError, match=r"different protocols.*old brats2021, new brats2023-gli"):
        compare_scores([old, new])
    both = old.with_name("both.csv")
    both.write_text(to_csv([evaluation_of(GOOD), evaluation_of(BAD, "brats2023-gli")]))
    with pytest.raises(InputError, match=r"both\.csv: holds the scores of 'brats2021', 'brats2023-gli'; choose"):
        compare_scores([both, old])
    found = compare_scores([both, new], protocol="brats2023-gli")
    assert found.metrics == ("lesion_dice", "lesion_hd95_surface_mm")
    assert found.differences[0].better == "new"
    with pytest.raises(
        InputError, match=r"old\.csv: has no scores by the protocol 'brats2023-gli'; it has 'brats2021'"
    ):
        compare_scores([both, old], protocol="brats2023-gli")


def test_files_of_different_regions_are_refused(file_of) -> None:
    """The message names the regions of each file."""
    good, bad = file_of("good.csv", GOOD), file_of("bad.csv", BAD)
    rows = bad.read_text().splitlines(keepends=True)
    bad.write_text("".join(row for row in rows if ",TC," not in row))
    with pytest.raises(InputError, match=r"different regions.*good: WT, TC, ET; bad: WT, ET"):
        compare_scores([good, bad])


def without(path: Path, case: str, *regions: str) -> Path:
    """Take the rows of some regions of a case out of a table, as `evaluate` leaves out what a mask does not label."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not any(f",{case},{region}," in line for region in regions)))
    return path


def test_a_region_that_a_case_lacks_is_compared_in_the_others(command, file_of, tmp_path: Path) -> None:
    """The truth of a is `wt-only`: a counts in WT only, its rank is that of WT, and a note says so."""
    paths = [without(file_of(f"{name}.csv", table), "a", "TC", "ET") for name, table in (("x", GOOD), ("y", BAD))]
    found = compare_scores(paths)
    assert found.tables.cases == ("a", "b", "c")
    assert found.tables.cases_of("TC") == ("b", "c")
    assert [d.test.cases for d in found.differences] == [3, 3, 2, 2, 2, 2, 3]
    assert found.ranks == {"x": {"a": 1, "b": 1, "c": 1}, "y": {"a": 2, "b": 2, "c": 2}}
    assert found.standings()[0]["ET_dice"] == pytest.approx(0.75)
    assert [str(note) for note in found.tables.notes] == [
        f"{region}: not scored in all files for 1 of 3 cases (a); compared in the other 2" for region in ("TC", "ET")
    ]
    status, said = command(*paths, "-o", tmp_path / "c.json", "--picture", tmp_path / "c.png")
    assert status == 0, said
    assert "TC: not scored in all files for 1 of 3 cases (a); compared in the other 2" in " ".join(said.split())
    assert len(json.loads((tmp_path / "c.json").read_text())["notes"]) == 2


def test_a_region_must_be_in_all_tables_to_count(file_of) -> None:
    """A mask of one table may label less than that of another; a case that is left without a region is not compared."""
    first, second = file_of("x.csv", GOOD), without(file_of("y.csv", BAD), "a", "TC", "ET")
    found = compare_scores([first, second])
    assert found.tables.cases_of("ET") == ("b", "c")
    assert found.ranks["x"]["a"] == 1
    found = compare_scores([without(first, "a", "WT"), second])
    assert found.tables.cases == ("b", "c")
    assert [str(note) for note in found.tables.notes] == ["not compared: no region is in all files for a"]
    for case in "bc":
        without(first, case, "TC")
        without(second, case, "TC")
    with pytest.raises(InputError, match=r"different regions.*x: WT, TC, ET; y: WT, ET"):
        compare_scores([first, second])


def saved_by_a_spreadsheet(path: Path, separator: str, encoding: str, *, comma: bool) -> Path:
    """Write the table again as a spreadsheet program of another language does."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    cells = [[cell.replace(".", ",") if comma and row[:1] != rows[0][:1] else cell for cell in row] for row in rows]
    other = path.with_name(f"{path.stem}-saved.csv")
    with other.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(cells)
    return other


@pytest.mark.parametrize(
    ("separator", "encoding", "comma"),
    [
        (";", "cp1252", True),
        (";", "utf-8-sig", True),
        ("\t", "utf-16", True),
        (";", "utf-8", False),
        (",", "cp1252", False),
    ],
)
def test_a_table_that_a_spreadsheet_saved_again_says_the_same(file_of, separator, encoding, comma) -> None:
    """Semicolons and decimal commas, as in German, and the encodings of spreadsheet programs; ids stay as they are."""
    table = {" Müller 1 ": (0.912345, 1.5), "b": (1.0, 1234.567891), "c": (0.0, 0.0)}
    path = file_of("scores.csv", table)
    read = read_score_table(saved_by_a_spreadsheet(path, separator, encoding, comma=comma))
    assert read.scores == read_score_table(path).scores
    assert list(read.scores) == list(table)


def test_scores_as_parquet_say_the_same(file_of) -> None:
    """What `evaluate -o scores.parquet` wrote is read, also an undefined and an infinite score."""
    pytest.importorskip("pyarrow")
    table = {"a": (0.9, 1.5), "b": (math.nan, math.inf)}
    as_csv, as_parquet = (file_of(f"scores{ending}", table, "brats2026-gli") for ending in (".csv", ".parquet"))
    assert str(read_score_table(as_parquet).scores) == str(read_score_table(as_csv).scores)


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_equal_scores_in_files_of_two_kinds_are_equal(file_of, ending: str) -> None:
    """CSV has six decimals and the others have all: neither is the better by them."""
    table = {"a": (2 / 3, 1 / 3), "b": (1 / 7, 20 / 3)}
    files = [file_of("scores.csv", table), file_of(f"other{ending}", table)]
    first, second = (read_score_table(path).scores for path in files)
    assert first == second


def test_columns_that_are_not_used_are_named(file_of, caplog: pytest.LogCaptureFixture) -> None:
    """Such as `dice_et`, in which somebody may have put the scores that matter; those of `evaluate` are all known."""
    for name in ("a.csv", "b.json", "c.parquet"):
        read_score_table(file_of(name, {"x": (0.7, 1.0)}))
    assert not caplog.messages
    file = file_of("a.csv", {"x": (0.5, 3.0)})
    lines = file.read_text().splitlines()
    file.write_text("\n".join(f"{line},{'note' if number == 0 else 'late'}" for number, line in enumerate(lines)))
    read_score_table(file)
    (said,) = caplog.messages
    assert said == f"{file}: columns that gliomask evaluate does not write are not used: 'note'"


def test_points_beside_decimal_commas_are_refused(file_of) -> None:
    """`1.234` may be a number a little over one, or the thousands of a German spreadsheet."""
    path = saved_by_a_spreadsheet(file_of("scores.csv", GOOD), ";", "utf-8", comma=True)
    path.write_text(path.read_text().replace("3,000000", "3.000"))
    with pytest.raises(InputError, match=r"scores-saved\.csv: line \d+: hd95_\w+ is '3\.000', while other numbers"):
        read_score_table(path)


HEAD = "protocol,case,region,status,dice"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (f"{HEAD}\n", "holds no scores"),
        ("a,b\n1,2\n", "lacks protocol, case, region, status"),
        (f"{HEAD}\nbrats2021,a,WT,scored,good\n", r"line 2 \('WT' of 'a'\): dice cannot be 'good'"),
        (f"{HEAD}\nbrats2021,a,WT,scored,-7\n", "dice cannot be '-7'"),
        (f"{HEAD}\nbrats2021,a,WT,scored,1.01\n", "dice cannot be '1.01'"),
        (f"{HEAD}\nbrats2021,a,WT,scored,inf\n", "dice cannot be 'inf'"),
        (f"{HEAD}\nbrats2021,a,WT,scored,nan\n", "dice cannot be 'nan'"),
        ("protocol,case,region,status,hd95_pooled_mm\nbrats2021,a,WT,scored,inf\n", "hd95_pooled_mm cannot be 'inf'"),
        ("protocol,case,region,status,truth_ml\nbrats2021,a,WT,scored,-1\n", "truth_ml cannot be '-1'"),
        (f"{HEAD}\nbrats2021,a,BRAIN,scored,1\n", "brats2021 does not score such a region; it has WT, TC, ET"),
        (f"{HEAD}\nbrats2021,a,WT,lost,1\n", "the status is 'scored' or 'missing', not 'lost'"),
        (f"{HEAD}\n" + "brats2021,a,WT,scored,1\n" * 2, "two rows for 'WT' of 'a'"),
        (f"{HEAD}\nbrats1066,a,WT,scored,1\n", "no scores by the protocol 'brats1066'"),
        ("protocol,case,region,status\nbrats2021,a\n", "line 2: has another number of cells than the header"),
        (f"{HEAD}\nbrats2021,a,WT,scored,1,1\n", "line 2: has another number of cells"),
        (f"{HEAD},dice\nbrats2021,a,WT,scored,1,1\n", "two columns called 'dice'"),
        (f"{HEAD}\nbrats2021,{'a' * 140_000},WT,scored,1\n", "line 2: field larger than field limit"),
    ],
)
def test_other_tables_are_refused(file_of, content: str, message: str) -> None:
    """The message names the file, the row, and what is wrong with it."""
    path = file_of("good.csv", GOOD).with_name("odd.csv")
    path.write_text(content)
    with pytest.raises(InputError, match=rf"odd\.csv: .*{message}"):
        compare_scores([path, path.with_name("good.csv")])


ROW = '{"case": "a", "region": "WT", "status": "scored", "dice": %s}'
TABLE = '{"protocol": {"name": "brats2021"}, "cases": [%s]}'


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "{}", "3", "null", '{"protocol": {"name": "x"}, "cases": 3}', '{"evaluations": 3}', "[" * 100_000),
        *(TABLE % "3", TABLE % "[]", TABLE % "null", '{"protocol": [], "cases": []}'),
    ],
    ids=lambda content: content[:20],
)
def test_other_json_is_refused(file_of, content: str) -> None:
    """Damaged, empty, nested too deeply, or with other content."""
    path = file_of("good.csv", GOOD).with_name("odd.json")
    path.write_text(content)
    with pytest.raises(InputError, match=r"odd\.json: does not hold scores of gliomask evaluate"):
        compare_scores([path.with_name("good.csv"), path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE % (ROW % -7), r"row 1 \('WT' of 'a'\): dice cannot be -7"),
        (TABLE % (ROW % "null"), "dice cannot be None"),
        (TABLE % (ROW % '"inf"'), "dice cannot be 'inf'"),
        (TABLE % (ROW % "[1]"), r"dice cannot be \[1\]"),
        (TABLE % (ROW % "true"), "dice cannot be True"),
        (TABLE % (ROW % f"1{'0' * 400}"), "dice cannot be 1000"),
        (TABLE % '{"case": 7, "region": "WT", "status": "scored"}', "row 1: case must be text"),
        (TABLE % '{"region": "WT", "status": "scored"}', "row 1: lacks case"),
    ],
    ids=lambda content: content[:20],
)
def test_wrong_values_in_json_are_refused(file_of, content: str, message: str) -> None:
    """The message names the file, the row, and the value."""
    path = file_of("good.csv", GOOD).with_name("odd.json")
    path.write_text(content)
    with pytest.raises(InputError, match=rf"odd\.json: .*{message}"):
        compare_scores([path.with_name("good.csv"), path])


def test_too_few_files_and_no_shared_case_are_refused(file_of) -> None:
    """One file only, the same file twice, a file that does not exist, or two files without a common case."""
    good, other = file_of("good.csv", GOOD), file_of("other.csv", {"x": (0.5, 1.0)})
    with pytest.raises(InputError, match="nothing to compare"):
        compare_scores([good])
    with pytest.raises(InputError, match="given twice"):
        compare_scores([good, good])
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read: No such file"):
        compare_scores([good, good.with_name("gone.csv")])
    with pytest.raises(InputError, match=r"no case is in all of .*such as a, b and x"):
        compare_scores([good, other])


def test_files_of_one_name_are_told_apart_by_folder(tmp_path: Path) -> None:
    """A table is named by as little of the path as distinguishes it, or by its ending if only that differs."""
    for place in ("fast/run", "unet/run"):
        evaluation_of(GOOD).save(tmp_path / place / "scores.csv")
    found = compare_scores([tmp_path / "fast/run/scores.csv", tmp_path / "unet/run/scores.csv"])
    assert [table.name for table in found.tables.tables] == ["fast/run/scores", "unet/run/scores"]
    evaluation_of(GOOD).save(tmp_path / "fast/run/scores.json")
    found = compare_scores([tmp_path / "fast/run/scores.csv", tmp_path / "fast/run/scores.json"])
    assert [table.name for table in found.tables.tables] == ["scores.csv", "scores.json"]


def test_every_table_has_its_own_name_and_its_own_rank(tmp_path: Path) -> None:
    """Three files, two of one folder and two of one name: none takes the rank of another."""
    paths = [tmp_path / "unet/scores.csv", tmp_path / "unet/scores.json", tmp_path / "fast/scores.csv"]
    for path, table in zip(paths, (GOOD, BAD, MIXED), strict=True):
        evaluation_of(table).save(path)
    found = compare_scores(paths)
    assert list(found.ranks) == ["unet/scores.csv", "unet/scores.json", "fast/scores.csv"]
    assert [row["entrant"] for row in found.standings()] == ["unet/scores.csv", "fast/scores.csv", "unet/scores.json"]


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (("C:/runs/a.csv", "D:/runs/b.csv"), ["a", "b"]),
        (("C:/runs/scores.csv", "D:/scores.csv"), ["runs/scores", "scores"]),
        (("C:/runs/scores.csv", "D:/runs/scores.json"), ["scores.csv", "scores.json"]),
        (("C:/runs/scores.csv", "D:/runs/scores.csv"), [r"C:\runs\scores.csv", r"D:\runs\scores.csv"]),
        (("//one/share/scores.csv", "//two/share/scores.csv"), [r"\\one\share\scores.csv", r"\\two\share\scores.csv"]),
    ],
)
def test_files_of_two_drives_are_told_apart(places: tuple[str, ...], names: list[str]) -> None:
    """On Windows two files may differ in their drive only; one file that is given twice is refused."""
    assert name_tables([PureWindowsPath(place) for place in places]) == names
    with pytest.raises(InputError, match="given twice"):
        name_tables([PureWindowsPath("C:/runs/scores.csv"), PureWindowsPath("c:/RUNS/scores.csv")])


def test_missing_predictions_count_as_their_scores_say(file_of, tmp_path: Path) -> None:
    """A case that evaluate scored as missing enters the comparison with its worst scores."""
    found = evaluation_of({**GOOD, "a": (0.0, 373.0)})
    Evaluation(found.protocol, found.scores, (Problem("z", "broken"),), missing=("a",)).save(tmp_path / "gaps.json")
    comparison = compare_scores([tmp_path / "gaps.json", file_of("good.csv", GOOD)])
    assert comparison.tables.cases == ("a", "b", "c")
    assert comparison.ranks["gaps"] == {"a": 2, "b": 1.5, "c": 1.5}


def test_the_command_prints_writes_and_draws(command, file_of, tmp_path: Path) -> None:
    """The standings come first, then each metric, within 80 columns; CSV, JSON and picture are written."""
    paths = [file_of("good.csv", GOOD), file_of("bad.csv", {**BAD, "d": (1.0, 0.0)})]
    status, said = command(*paths, "-o", tmp_path / "c.csv", "-o", tmp_path / "c.json", "--picture", tmp_path / "c.png")
    assert status == 0, said
    lines = [line for line in said.splitlines() if str(tmp_path) not in line]
    assert lines[0] == "brats2021, 3 cases that all files have"
    assert [line.split() for line in lines[2:4]] == [["good", "1.000"], ["dice", "0.800", "0.800", "0.800"]]
    assert lines[5].split() == ["bad", "2.000"]
    assert "dice, good minus bad" in lines
    assert "rank, good minus bad" in lines
    assert "bad: 1 of its cases is not in all files and was left out: d" in said
    assert max(map(len, (line for line in lines if "warning" not in line and not line.startswith("p:")))) <= 80
    rows = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert len(rows) == 7
    assert {row["better"] for row in rows} == {"good"}
    assert float(rows[0]["difference"]) == pytest.approx(0.2)
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["standings"][0]["entrant"] == "good"
    assert content["ranks"]["good"] == {"a": 1, "b": 1, "c": 1}
    assert content["cases"] == ["a", "b", "c"]
    assert (tmp_path / "c.png").stat().st_size > 5000


def test_with_many_tables_only_the_ranks_are_printed(command, file_of) -> None:
    """Four tables make six pairs: one line each, for the rank; the files have the other differences."""
    paths = [file_of(f"{name}.csv", table) for name, table in zip("wxyz", (GOOD, BAD, MIXED, GOOD), strict=True)]
    status, said = command(*paths)
    assert status == 0, said
    assert said.count(" minus ") == 6
    assert "dice, w minus x" not in said


def test_bad_calls_leave_nothing_behind(command, file_of, tmp_path: Path) -> None:
    """The status is 2 and no file is written for an unknown ending or different protocols."""
    good, new = file_of("good.csv", GOOD), file_of("new.csv", GOOD, "brats2023-gli")
    status, said = command(good, new, "-o", tmp_path / "x.csv")
    assert status == 2
    assert "different protocols" in said
    status, said = command(good, file_of("bad.csv", BAD), "-o", tmp_path / "x.xlsx")
    assert status == 2
    assert ".csv or .json" in said
    assert not list(tmp_path.glob("x.*"))
