"""Scores against scores: which files may be compared, the challenge's rank, and what is printed and written."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from gliomask.cases import Problem
from gliomask.errors import InputError
from gliomask.evaluation import Evaluation, compare_scores
from gliomask.evaluation.contest import more_is_better
from gliomask.evaluation.table import to_csv
from gliomask.metrics import PROTOCOLS

Table = Mapping[str, tuple[float, float]]


def evaluation_of(table: Table, protocol: str = "brats2021", **regions: Table) -> Evaluation:
    """Return made-up scores: of each case Dice and HD95, the same in all regions but those given apart."""
    row = PROTOCOLS[protocol]

    def scores(case: str, region: str) -> dict[str, float]:
        dice, hd95_mm = regions.get(region, table)[case]
        return {name: dice if "dice" in name else hd95_mm if "hd95" in name else 0.5 for name in row.names}

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


def test_the_rank_by_hand(file_of) -> None:
    """Mean over cases of the mean over regions and metrics of the ranks, equal scores sharing a rank.

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


def test_a_duel_is_won_by_the_better_mean(file_of) -> None:
    """More Dice, fewer mm, the smaller rank; every pair in every metric of every region, then in the rank."""
    found = compare_scores([file_of("good.csv", GOOD), file_of("bad.json", BAD)])
    assert [(duel.region, duel.metric) for duel in found.duels] == [
        *((region, metric) for region in ("WT", "TC", "ET") for metric in ("dice", "hd95_pooled_mm")),
        ("all", "rank"),
    ]
    assert {duel.better for duel in found.duels} == {"good"}
    first, second = found.duels[0].test, found.duels[1].test
    assert (first.difference, second.difference) == (pytest.approx(0.2), pytest.approx(-3))
    assert first.p_permutation == 0.25
    assert found.duels[0].p_holm == 1.0
    assert found.duels[-1].p_holm == 0.25  # the rank is one test, whatever the number of metrics


def test_equal_entrants_share_everything(file_of) -> None:
    """The same scores in two files: no difference, p 1, both ranked 1.5, nobody better."""
    found = compare_scores([file_of("one.csv", GOOD), file_of("two.csv", GOOD)])
    assert {row["mean_rank"] for row in found.standings()} == {1.5}
    assert {(d.test.difference, d.test.p_permutation, d.test.p_wilcoxon, d.better) for d in found.duels} == {
        (0, 1, 1, "")
    }


def test_csv_and_json_say_the_same(file_of) -> None:
    """What was read back from either gives the same duels."""
    paths = [[file_of(f"good.{end}", GOOD), file_of(f"mixed.{end}", MIXED)] for end in ("csv", "json")]
    by_csv, by_json = map(compare_scores, paths)
    assert by_csv.duels == by_json.duels
    assert by_csv.ranks == by_json.ranks


def test_only_shared_cases_count_and_the_others_are_named(file_of) -> None:
    """In the order of the files, each with its own."""
    more = {**GOOD, "d": (0.0, 99.0)}
    found = compare_scores([file_of("more.csv", more), file_of("bad.csv", {**BAD, "e": (1, 0), "f": (1, 0)})])
    assert found.field.cases == ("a", "b", "c")
    assert [(note.where, note.what.rpartition(": ")[2]) for note in found.field.left_out] == [
        ("more", "d"),
        ("bad", "e, f"),
    ]
    assert found.standings()[0]["ET_dice"] == pytest.approx(0.8)


def test_no_score_is_in_no_difference_and_ranks_as_best(file_of) -> None:
    """In 2026 nothing on either side is no score: the one that rightly found nothing ranks before the one that did."""
    quiet = {**GOOD, "empty": (math.nan, math.nan)}
    loud = {**GOOD, "empty": (0.0, math.inf)}
    found = compare_scores([file_of("quiet.csv", quiet, "brats2026-goat"), file_of("loud.csv", loud, "brats2026-goat")])
    assert {duel.test.cases for duel in found.duels[:-1]} == {3}
    assert found.ranks["quiet"]["empty"] == 1
    assert found.ranks["loud"]["empty"] == 2
    same = compare_scores([file_of("q.csv", quiet, "brats2026-goat"), file_of("r.csv", quiet, "brats2026-goat")])
    assert same.ranks["q"]["empty"] == 1.5


def test_infinite_distances_count_as_the_penalty(file_of) -> None:
    """2026 gives a region without a pair of lesions an infinite distance: 373, so that a mean exists."""
    lost = {**GOOD, "a": (0.0, math.inf)}
    found = compare_scores([file_of("lost.csv", lost, "brats2026-goat"), file_of("good.csv", GOOD, "brats2026-goat")])
    distance = next(duel for duel in found.duels if duel.metric == "lesion_hd95_pooled_mm")
    assert distance.test.difference == pytest.approx((373 - 1) / 3)
    both = compare_scores([file_of("x.csv", lost, "brats2026-goat"), file_of("lost.csv", lost, "brats2026-goat")])
    assert {duel.test.ties for duel in both.duels} == {3}


def test_other_metrics_are_compared_as_asked(file_of) -> None:
    """In the order asked for; what is no score is refused, what is misspelt gets a hint."""
    paths = [file_of("good.csv", GOOD), file_of("bad.csv", BAD)]
    found = compare_scores(paths, metrics=["hd95_surface_mm", "sensitivity", "sensitivity"])
    assert found.metrics == ("hd95_surface_mm", "sensitivity")
    with pytest.raises(InputError, match="truth_ml: more of it is neither better nor worse"):
        compare_scores(paths, metrics=["truth_ml"])
    with pytest.raises(InputError, match="unknown metric 'dize'; did you mean 'dice'"):
        compare_scores(paths, metrics=["dize"])


def test_what_is_better() -> None:
    """Shares up, distances and false lesions down, facts neither."""
    assert all(map(more_is_better, ("dice", "lesion_dice", "nsd_1mm", "detection_f1", "specificity")))
    down = ("hd95_pooled_mm", "lesion_hd95_surface_mm", "lesion_fp", "lesion_fn", "rank")
    assert [more_is_better(name) for name in down] == [False] * 5
    assert [more_is_better(name) for name in ("truth_ml", "lesion_tp", "nonsense")] == [None] * 3


def test_files_of_different_rules_are_refused(file_of) -> None:
    """By name and protocol; a file of several years asks for one of them."""
    old, new = file_of("old.csv", GOOD), file_of("new.csv", GOOD, "brats2023-gli")
    with pytest.raises(InputError, match=r"different rules.*old brats2021, new brats2023-gli"):
        compare_scores([old, new])
    both = old.with_name("both.csv")
    both.write_text(to_csv([evaluation_of(GOOD), evaluation_of(BAD, "brats2023-gli")]))
    with pytest.raises(InputError, match=r"both\.csv: holds the scores of brats2021, brats2023-gli; choose"):
        compare_scores([both, old])
    found = compare_scores([both, new], protocol="brats2023-gli")
    assert found.metrics == ("lesion_dice", "lesion_hd95_surface_mm")
    assert found.duels[0].better == "new"
    with pytest.raises(InputError, match=r"old\.csv: has no scores by the rules of brats2023-gli; it has brats2021"):
        compare_scores([both, old], protocol="brats2023-gli")


def test_files_of_different_regions_are_refused(file_of) -> None:
    """Each with its own; a case that lacks one is named."""
    good, bad = file_of("good.csv", GOOD), file_of("bad.csv", BAD)
    rows = bad.read_text().splitlines(keepends=True)
    bad.write_text("".join(row for row in rows if ",TC," not in row))
    with pytest.raises(InputError, match=r"different regions.*good: WT, TC, ET; bad: WT, ET"):
        compare_scores([good, bad])
    bad.write_text("".join(row for row in rows if ",c,TC," not in row))
    with pytest.raises(InputError, match="bad: c has the regions WT, ET, others WT, TC, ET"):
        compare_scores([good, bad])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no scores"),
        ("a,b\n1,2\n", "lacks protocol, case, region, status"),
        ("protocol,case,region,status,dice\nbrats2021,a,WT,scored,good\n", "dice of WT of a is no number: 'good'"),
        ("protocol,case,region,status,dice\n" + "brats2021,a,WT,scored,1\n" * 2, "two rows for WT of a"),
        ("protocol,case,region,status,dice\nbrats1066,a,WT,scored,1\n", "no scores by the rules of brats1066"),
        ("protocol,case,region,status\nbrats2021,a\n", "lacks region, status"),
    ],
)
def test_other_tables_are_refused(file_of, content: str, message: str) -> None:
    """With the file, and what is wrong with it."""
    path = file_of("good.csv", GOOD).with_name("odd.csv")
    path.write_text(content)
    with pytest.raises(InputError, match=rf"odd\.csv: .*{message}"):
        compare_scores([path, path.with_name("good.csv")])


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"protocol": {"name": "x"}, "cases": 3}'])
def test_other_json_is_refused(file_of, content: str) -> None:
    """Cut, empty, or of another make."""
    path = file_of("good.csv", GOOD).with_name("odd.json")
    path.write_text(content)
    with pytest.raises(InputError, match=r"odd\.json: is no scores of gliomask evaluate"):
        compare_scores([path.with_name("good.csv"), path])


def test_too_few_files_and_no_shared_case_are_refused(file_of) -> None:
    """Less than two files, one twice, one that is not there, or two with nothing in common."""
    good, other = file_of("good.csv", GOOD), file_of("other.csv", {"x": (0.5, 1.0)})
    with pytest.raises(InputError, match="nothing to compare"):
        compare_scores([good])
    with pytest.raises(InputError, match="given twice"):
        compare_scores([good, good])
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read \(No such file"):
        compare_scores([good, good.with_name("gone.csv")])
    with pytest.raises(InputError, match=r"no case is in all of .*such as a, b and x"):
        compare_scores([good, other])


def test_files_of_one_name_are_told_apart_by_folder(tmp_path: Path) -> None:
    """As little of the path as it takes; of one folder and stem, the ending."""
    for place in ("fast/run", "unet/run"):
        evaluation_of(GOOD).save(tmp_path / place / "scores.csv")
    found = compare_scores([tmp_path / "fast/run/scores.csv", tmp_path / "unet/run/scores.csv"])
    assert [entrant.name for entrant in found.field.entrants] == ["fast/run/scores", "unet/run/scores"]
    evaluation_of(GOOD).save(tmp_path / "fast/run/scores.json")
    found = compare_scores([tmp_path / "fast/run/scores.csv", tmp_path / "fast/run/scores.json"])
    assert [entrant.name for entrant in found.field.entrants] == ["scores.csv", "scores.json"]


def test_missing_predictions_count_as_their_scores_say(file_of, tmp_path: Path) -> None:
    """A case that evaluate scored as missing is in the comparison at its worst."""
    found = evaluation_of({**GOOD, "a": (0.0, 373.0)})
    Evaluation(found.protocol, found.scores, (Problem("z", "broken"),), missing=("a",)).save(tmp_path / "gaps.json")
    contest = compare_scores([tmp_path / "gaps.json", file_of("good.csv", GOOD)])
    assert contest.field.cases == ("a", "b", "c")
    assert contest.ranks["gaps"] == {"a": 2, "b": 1.5, "c": 1.5}


def test_the_command_prints_writes_and_draws(command, file_of, tmp_path: Path) -> None:
    """Standings first, then each score; all within 80 columns; CSV, JSON and picture as asked."""
    paths = [file_of("good.csv", GOOD), file_of("bad.csv", {**BAD, "d": (1.0, 0.0)})]
    status, said = command(*paths, "-o", tmp_path / "c.csv", "-o", tmp_path / "c.json", "--picture", tmp_path / "c.png")
    assert status == 0, said
    lines = [line for line in said.splitlines() if str(tmp_path) not in line]
    assert lines[0] == "brats2021, 3 cases that all files have"
    assert [line.split() for line in lines[2:4]] == [["good", "1.000"], ["dice", "0.800", "0.800", "0.800"]]
    assert lines[5].split() == ["bad", "2.000"]
    assert "dice, good less bad" in lines
    assert "rank, good less bad" in lines
    assert "bad: 1 of its cases are not in all files, and left out: d" in said
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


def test_with_many_entrants_the_ranks_are_shown(command, file_of) -> None:
    """Six pairs of four: one line each, in rank; the files have the rest."""
    paths = [file_of(f"{name}.csv", table) for name, table in zip("wxyz", (GOOD, BAD, MIXED, GOOD), strict=True)]
    status, said = command(*paths)
    assert status == 0, said
    assert said.count(" less ") == 6
    assert "dice, w less x" not in said


def test_bad_calls_leave_nothing_behind(command, file_of, tmp_path: Path) -> None:
    """Status 2 before any work: an ending that is not written, rules that differ."""
    good, new = file_of("good.csv", GOOD), file_of("new.csv", GOOD, "brats2023-gli")
    status, said = command(good, new, "-o", tmp_path / "x.csv")
    assert status == 2
    assert "different rules" in said
    status, said = command(good, file_of("bad.csv", BAD), "-o", tmp_path / "x.xlsx")
    assert status == 2
    assert ".csv or .json" in said
    assert not list(tmp_path.glob("x.*"))
