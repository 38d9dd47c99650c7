"""Summaries of scores: rows, means and their intervals, empty cases, CSV and JSON."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import Problem
from gliomask.errors import InputError
from gliomask.evaluation import Evaluation, describe
from gliomask.metrics import PROTOCOLS


def evaluation_of(*dices: float, protocol: str = "brats2021", empty: tuple[int, ...] = ()) -> Evaluation:
    """Return a made-up evaluation: shares equal Dice, HD95 is 10 (1 - Dice), volumes are 3 mL or 0."""
    row = PROTOCOLS[protocol]

    def scores_of(number: int, dice: float) -> dict[str, float]:
        scores = {name: 10 * (1 - dice) if "hd95" in name else dice for name in row.names}
        return {**scores, "truth_ml": 0.0 if number in empty else 3.0, "prediction_ml": 3.0}

    cases = reversed(list(enumerate(dices)))
    return Evaluation(row, {f"case{i}": dict.fromkeys(row.regions, scores_of(i, dice)) for i, dice in cases}, ())


def test_the_summary_is_that_of_the_hand() -> None:
    """The summary has mean, sample standard deviation and median, for each region in the protocol's order."""
    dices = [0.9, 0.5, 0.7, 0.1]
    table = evaluation_of(*dices).summary()
    assert [row["region"] for row in table] == ["WT", "TC", "ET"]
    for row in table:
        assert (row["cases"], row["dice_cases"], row["missing"]) == (4, 4, 0)
        assert row["dice_mean"] == pytest.approx(0.55)
        assert row["dice_std"] == pytest.approx(statistics.stdev(dices))
        assert row["dice_median"] == pytest.approx(0.6)
        assert row["hd95_pooled_mm_mean"] == pytest.approx(4.5)
        assert row["truth_ml_std"] == 0


def test_the_summary_of_one_case_and_of_none() -> None:
    """The standard deviation of one case is 0; without a case there is no row."""
    (row, *_) = evaluation_of(0.5).summary()
    assert (row["cases"], row["dice_mean"], row["dice_std"], row["dice_low"], row["dice_high"]) == (1, 0.5, 0, 0.5, 0.5)
    assert evaluation_of().summary() == evaluation_of().rows() == []


def test_empty_cases_are_counted_apart() -> None:
    """If two of four truths are empty, they are counted, and the mean of the others is given as well."""
    (row, *_) = evaluation_of(0.8, 1.0, 0.6, 1.0, empty=(1, 3)).summary()
    assert (row["empty_truth"], row["empty_prediction"], row["empty_both"]) == (2, 0, 0)
    assert row["dice_mean"] == pytest.approx(0.85)
    assert row["dice_mean_with_tumour"] == pytest.approx(0.7)
    (row, *_) = evaluation_of(1.0, empty=(0,)).summary()
    assert math.isnan(row["dice_mean_with_tumour"])


def test_the_interval_is_that_of_the_normal_for_many_cases() -> None:
    """The interval of the mean of 400 cases with standard deviation s has a half-width of about 1.96 s / 20."""
    values = np.random.default_rng(3).normal(0.7, 0.1, 400)
    found = describe(values.tolist())
    half = 1.96 * values.std(ddof=1) / 20
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)


def test_the_interval_is_the_same_each_time() -> None:
    """The interval is reproducible and scales with the unit of the score."""
    values = [0.1, 0.9, 0.8, 0.85, 0.4]
    first = describe(values)
    describe([1.0, 2.0, 3.0])
    assert describe(values) == first
    assert describe([10 * value for value in values]).low == pytest.approx(10 * first.low)
    assert first.low < first.mean < first.high


def test_what_is_no_number_is_left_out_and_counted() -> None:
    """If one of three cases has no score, the mean is of two; without scores, it is NaN."""
    found = describe([0.5, math.nan, 0.7])
    assert (found.cases, found.mean) == (2, pytest.approx(0.6))
    nothing = describe([math.nan])
    assert nothing.cases == 0
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.low)


def test_infinity_stays_infinity() -> None:
    """One infinite distance makes the mean infinite, but not necessarily the median and the lower end."""
    found = describe([1.0, 2.0, 3.0, 2.5, math.inf])
    assert found.mean == found.high == math.inf
    assert found.median == 2.5
    assert math.isnan(found.std)
    assert math.isfinite(found.low)
    assert describe([math.inf, math.inf]).low == math.inf


def test_the_csv_holds_every_score_and_its_protocol(tmp_path: Path) -> None:
    """CSV has one row per case and region, sorted, with the protocol's name, and the same numbers when read back."""
    found = evaluation_of(0.123456, 2 / 3, protocol="brats2023-gli")
    found.save(tmp_path / "new" / "scores.csv")
    with (tmp_path / "new" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["protocol", "case", "region", "status", *PROTOCOLS["brats2023-gli"].names]
    assert {(row["protocol"], row["status"]) for row in rows} == {("brats2023-gli", "scored")}
    assert [(row["case"], row["region"]) for row in rows] == [
        (case, region) for case in ("case0", "case1") for region in ("WT", "TC", "ET")
    ]
    for row, (dice, distance) in zip(rows, [(0.123456, 8.76544)] * 3 + [(2 / 3, 10 / 3)] * 3, strict=True):
        assert float(row["lesion_dice"]) == pytest.approx(dice, abs=5e-7)
        assert float(row["hd95_pooled_mm"]) == pytest.approx(distance, abs=5e-7)


def test_the_json_holds_everything(tmp_path: Path) -> None:
    """JSON has protocol, summary, rows, missing and failed cases; NaN is null, infinity a string."""
    row = PROTOCOLS["brats2026-gli"]
    scores = {"a": dict.fromkeys(row.regions, dict.fromkeys(row.names, math.nan) | {"lesion_hd95_pooled_mm": math.inf})}
    found = Evaluation(row, scores, (Problem("b", "cut"),), ("a",), (Problem("c", "has no truth"),))
    found.save(tmp_path / "scores.json")
    text = (tmp_path / "scores.json").read_text("utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    content = json.loads(text)
    assert content["protocol"]["name"] == "brats2026-gli"
    assert content["headline"] == list(row.headline)
    assert content["missing"] == ["a"]
    assert content["failed"] == [{"where": "b", "what": "cut"}]
    assert content["notes"] == [{"where": "c", "what": "has no truth"}]
    assert len(content["cases"]) == len(content["summary"]) == len(row.regions)
    first = content["cases"][0]
    assert (first["status"], first["dice"], first["lesion_hd95_pooled_mm"]) == ("missing", None, "inf")
    assert content["summary"][0]["lesion_hd95_pooled_mm_mean"] == "inf"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A path that is not a folder, or another ending, is an InputError that names the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*scores\.csv"):
        evaluation_of(1.0).save(tmp_path / "file" / "scores.csv")
    with pytest.raises(InputError, match=r"scores\.xls: scores are written as \.csv, \.json"):
        evaluation_of(1.0).save(tmp_path / "scores.xls")
