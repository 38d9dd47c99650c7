"""Laws of fitting: rules are chosen only if they improve the score by more than its standard error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gliomask.errors import InputError
from gliomask.inference.loading import new_model, read_plan, save_model
from gliomask.model.plan import Plan, Postprocessing, RegionRule
from gliomask.tuning.out_of_fold import (
    OutOfFold,
    read_out_of_fold,
    save_out_of_fold,
    score_rule,
    trim,
)
from gliomask.tuning.rules import fit_rules, leave_out

RECIPE = Path(__file__).parent.parent / "recipes" / "fit_postprocessing.py"
REGIONS = ("WT", "TC", "ET")
NOTHING = Postprocessing()


def case(number: int = 0, *, islands: int = 0, confidence: float = 4.0) -> OutOfFold:
    """Return a case with nested boxes predicted exactly, and `islands` false components of 8 voxels each."""
    truth = np.zeros((3, 32, 20, 20), bool)
    for region, edge in enumerate((10, 8, 6)):
        truth[region, 2 : 2 + edge, 2 : 2 + edge, 2 : 2 + edge] = True
    logits = np.where(truth, confidence, -confidence).astype(np.float16)
    for island in range(islands):
        logits[0, 18 + 4 * island : 20 + 4 * island, 12:14, 12:14] = confidence
    return OutOfFold(f"case{number}", logits, truth, (1.0, 1.0, 1.0))


def scorer(cases: list[OutOfFold]):
    known: dict[str, np.ndarray] = {}

    def score(rule: Postprocessing) -> np.ndarray:
        key = rule.model_dump_json()
        if key not in known:
            known[key] = np.array([score_rule(one, REGIONS, rule).mean() for one in cases])
        return known[key]

    return score


def test_false_islands_give_a_smallest_component() -> None:
    """The smallest value that removes them is chosen; regions without islands get no rule."""
    score = scorer([case(n, islands=1 + n % 3) for n in range(6)])
    fit = fit_rules(score, REGIONS, NOTHING, range(6))
    assert fit.rule == Postprocessing(regions={"WT": RegionRule(least_mm3=10.0)})
    assert fit.after == 1.0 > fit.before


def test_perfect_predictions_need_no_rule() -> None:
    """Rules that were given at the start are kept."""
    start = Postprocessing(regions={"WT": RegionRule(temperature=1.5)})
    fit = fit_rules(scorer([case(n) for n in range(4)]), REGIONS, start, range(4))
    assert fit.rule == start
    assert fit.before == fit.after == 1.0


def test_one_case_among_many_changes_nothing() -> None:
    """A gain within one standard error is ignored."""
    score = scorer([case(n, islands=2 if n == 0 else 0) for n in range(8)])
    assert fit_rules(score, REGIONS, NOTHING, range(8)).rule == NOTHING


def test_noise_is_not_fitted() -> None:
    """With scores independent of the rules, the gain on left-out cases is smaller than on the cases used."""
    known: dict[str, np.ndarray] = {}
    generator = np.random.default_rng(5)

    def score(rule: Postprocessing) -> np.ndarray:
        return known.setdefault(rule.model_dump_json(), generator.normal(0.8, 0.05, 10))

    fit = fit_rules(score, ("WT",), NOTHING, range(10))
    rules = leave_out(score, ("WT",), [NOTHING] * 10, [[n] for n in range(10)])
    gains = [score(rule)[n] - score(NOTHING)[n] for n, rule in enumerate(rules)]
    assert len(rules) == 10
    assert np.mean(gains) < max(fit.after - fit.before, 0.01)


def test_leaving_one_out_shows_what_a_new_case_gains() -> None:
    """If all cases have the same kind of error, the whole possible gain."""
    cases = [case(n, islands=2) for n in range(5)]
    score = scorer(cases)
    rules = leave_out(score, REGIONS, [NOTHING] * 5, [[n] for n in range(5)])
    assert all(rule == Postprocessing(regions={"WT": RegionRule(least_mm3=10.0)}) for rule in rules)
    np.testing.assert_allclose(score(rules[0]), 1)


def test_the_cases_of_a_patient_are_left_out_together() -> None:
    """Rules that only one patient's examinations need are not chosen for that patient."""
    score = scorer([case(n, islands=2 if n in (0, 1, 2) else 0) for n in range(6)])
    groups = [[0, 1, 2], [3], [4], [5]]
    rules = leave_out(score, REGIONS, [NOTHING] * 4, groups)
    assert rules[0] == NOTHING
    assert rules[1] != NOTHING


def test_a_setting_stays_where_others_are_not_better() -> None:
    """The first candidate is the value that the model has, in the table of values or not."""
    start = Postprocessing(regions={"WT": RegionRule(threshold=0.37, least_mm3=33.0)}, least_et_mm3=7.0)
    assert fit_rules(scorer([case(n) for n in range(4)]), REGIONS, start, range(4)).rule == start


def test_the_score_is_dice_and_lesion_wise_dice() -> None:
    """A false island of 8 voxels beside a lesion of 1000 halves the lesion-wise score and hardly changes the Dice."""
    scores = score_rule(case(islands=1), REGIONS, NOTHING)
    assert scores[0, 0] == pytest.approx(2000 / 2008)
    assert scores[0, 1] == pytest.approx(0.5)
    np.testing.assert_array_equal(scores[1:], 1)
    with pytest.raises(InputError, match="not for RC"):
        score_rule(OutOfFold("x", case().logits[:1], case().truth[:1], (1, 1, 1)), ("RC",), NOTHING)


def test_a_trimmed_case_scores_the_same() -> None:
    """Under rules with the same temperatures and thresholds that are not lower; also for a case without tumour."""
    generator = np.random.default_rng(0)
    for number, made in enumerate([case(islands=2), case()]):
        logits = made.logits + generator.normal(0, 1.5, made.logits.shape)
        whole = OutOfFold("x", logits.astype(np.float16), made.truth & (number == 0), (1.0, 1.0, 2.0))
        hot = {region: RegionRule(temperature=1.7, threshold=0.3) for region in REGIONS}
        for rule in (
            Postprocessing(regions=hot),
            Postprocessing(regions={r: one.model_copy(update={"least_mm3": 20}) for r, one in hot.items()}),
        ):
            small = trim(whole, REGIONS, [rule], 0.3)
            np.testing.assert_array_equal(score_rule(small, REGIONS, rule), score_rule(whole, REGIONS, rule))
    nothing = OutOfFold("x", np.full((3, 9, 9, 9), -8, np.float16), np.zeros((3, 9, 9, 9), bool), (1.0, 1.0, 1.0))
    small = trim(nothing, REGIONS, [NOTHING], 0.3)
    assert small.logits.size == 3
    np.testing.assert_array_equal(score_rule(small, REGIONS, NOTHING), 1)


def test_a_case_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """The id is the file's name without the ending."""
    save_out_of_fold(tmp_path / "case7.npz", case(7, islands=1))
    found = read_out_of_fold(tmp_path / "case7.npz", REGIONS)
    assert found.id == "case7"
    assert found.spacing_mm == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(found.logits, case(7, islands=1).logits)
    np.testing.assert_array_equal(found.truth, case().truth)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": np.zeros((3, 2, 2, 2))}, r"has no truth, spacing_mm"),
        ({"logits": np.zeros((3, 2, 2, 2)), "truth": np.zeros((3, 2, 2)), "spacing_mm": np.ones(3)}, "do not match"),
        ({"logits": np.zeros((2, 2, 2, 2)), "truth": np.zeros((2, 2, 2, 2)), "spacing_mm": np.ones(3)}, "R = 3"),
        (None, r"not a readable \.npz"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, arrays: dict[str, np.ndarray] | None, message: str) -> None:
    """The error names the file and what is needed."""
    path = tmp_path / "a.npz"
    if arrays is None:
        path.write_bytes(b"PK\x03\x04 not a zip")
    else:
        np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        read_out_of_fold(path, REGIONS)
    assert str(path) in str(caught.value)


def recipe(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPE), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_recipe_puts_its_rules_into_a_model(tmp_path: Path) -> None:
    """The JSON holds the rules and their scores; the model's plan gets the rules, with temperatures above 1."""
    generator = np.random.default_rng(0)
    for number in range(5):
        made = case(number, islands=1)
        wrong = generator.random(made.truth.shape) < 0.02
        logits = np.where(wrong, -made.logits * 3, made.logits * 3).astype(np.float16)
        save_out_of_fold(tmp_path / "cases" / f"{made.id}.npz", OutOfFold(made.id, logits, made.truth, (1, 1, 1)))
    model, fitted = tmp_path / "old.safetensors", tmp_path / "fitted.safetensors"
    save_model(new_model(Plan(modalities=("t1c",), network="fcn")), model)
    ran = recipe(tmp_path / "cases", "-o", tmp_path / "rules.json", "--model", model, "--write", fitted)
    assert ran.returncode == 0, ran.stderr
    stored = json.loads((tmp_path / "rules.json").read_text())
    rule = read_plan(fitted).postprocessing
    assert rule == Postprocessing.model_validate(stored["postprocessing"])
    assert all(rule.rule(region).temperature > 2 for region in REGIONS)
    report = stored["report"]
    assert report["cases"] == report["patients"] == 5
    errors = report["calibration"]["WT"]
    assert errors["left_out"]["low"] > 0
    chosen = Postprocessing.model_validate(report["chosen"])
    assert (rule == chosen) or not report["is_better"]
    again = recipe("--rules", tmp_path / "rules.json", "--model", model, "--write", tmp_path / "again.safetensors")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.safetensors").read_bytes() == fitted.read_bytes()


def test_the_recipe_refuses_too_few_cases(tmp_path: Path) -> None:
    """The message is one sentence without a traceback."""
    ran = recipe(tmp_path)
    assert ran.returncode == 1
    assert "needs at least 3 patients" in ran.stderr
    assert "Traceback" not in ran.stderr
