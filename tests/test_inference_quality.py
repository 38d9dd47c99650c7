"""The estimated Dice, the cross-check with T2-FLAIR alone, and the order of cases that follows from the estimates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliomask.cases import Case, find_cases
from gliomask.errors import InputError
from gliomask.evaluation import rank_predictions
from gliomask.inference import cross_check
from gliomask.inference.ensembling import join_models
from gliomask.inference.loading import Model, new_model, save_model
from gliomask.inference.prediction import predict
from gliomask.inference.preprocessing import common_spacing
from gliomask.inference.quality import estimate_dice, expected_dice
from gliomask.inference.windows import Inference
from gliomask.model.plan import DiceEstimate, Plan

ALL = ("t2f", "t1c", "t2w")
CHECKED = DiceEstimate(cases=9, rank_correlation=0.7, low=-0.2, high=0.1, sequences=(ALL,))


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_the_estimate_is_the_dice_if_the_probabilities_are_right(seed: int, threshold: float) -> None:
    """For truths that are drawn with the probabilities, the Dice is the estimate on average."""
    draw = np.random.default_rng(seed)
    probability = draw.beta(0.3, 0.3, 4000).astype(np.float32)
    mask = probability > threshold
    truths = draw.random((40, 4000)) < probability
    dice = 2 * (truths & mask).sum(axis=1) / (truths.sum(axis=1) + mask.sum())
    assert expected_dice(probability, mask) == pytest.approx(dice.mean(), abs=0.02)


def test_a_certain_mask_has_an_estimate_of_one_and_an_empty_mask_has_none() -> None:
    """An empty mask may be right or wrong; its probabilities do not say which."""
    mask = np.zeros((4, 4, 4), bool)
    mask[1:3] = True
    assert expected_dice(mask.astype(np.float32), mask) == 1
    assert expected_dice(mask.astype(np.float32), np.zeros_like(mask)) is None


def model_for(case: Case, **fields: Any) -> Model:
    return new_model(
        Plan(
            modalities=ALL,
            can_miss=True,
            spacing_mm=common_spacing([case], "LPS"),
            patch_size=(16, 16, 16),
            network="fast",
            network_arguments={"channels": [4, 6]},
            **fields,
        ),
        seed=1,
    )


def test_estimates_are_made_only_where_they_were_checked(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """For the region and the sequences in the plan, within 0 and 1, and not for averages of several models."""
    [case] = find_cases(folder_of(1))
    model = model_for(case, dice_estimates={"WT": CHECKED})
    found = predict(model, case)
    masks = np.stack([found.probabilities.data[0] > 0.5] * 3)
    assert set(found.estimates) <= {"WT"}
    estimated = estimate_dice(found.probabilities.data, masks, model.plan, ALL)["WT"]
    assert 0 <= estimated.low == pytest.approx(max(0, estimated.dice - 0.2), abs=0.002)
    assert estimated.high <= 1
    assert estimate_dice(found.probabilities.data, masks, model.plan, ("t2f",)) == {}
    assert predict([model, model], case).estimates == {}
    assert predict(model, case, inference=Inference(mirror=True)).estimates == {}
    found.save(tmp_path / "mask.nii.gz")
    assert json.loads((tmp_path / "mask.json").read_text())["estimated_dice"].keys() == found.estimates.keys()


def test_a_joined_model_has_no_estimates_of_its_members(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """They were checked for one of them alone."""
    [case] = find_cases(folder_of(1))
    model = model_for(case, dice_estimates={"WT": CHECKED})
    save_model(model, tmp_path / "m.safetensors")
    assert join_models([tmp_path / "m.safetensors"] * 2).plan.dice_estimates == {}


def test_the_cross_check_is_a_prediction_from_flair_alone(
    folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its volumes are those of the two predictions; the mask is the same with and without it."""
    [case] = find_cases(folder_of(1))
    model = model_for(case)
    monkeypatch.setattr(cross_check, "_LEAST_DICE", 1.1)  # so that any difference is said
    monkeypatch.setattr(cross_check, "_LEAST_ML", -1.0)
    plain, alone = predict(model, case), predict(model, replace(case, images={"t2f": case.images["t2f"]}))
    found = predict(model, case, inference=Inference(cross_check=True))
    assert np.array_equal(found.labels.data, plain.labels.data)
    volumes = (alone.volumes_ml()["WT"], plain.volumes_ml()["WT"])
    assert (
        f"T2-FLAIR alone gives a whole tumour of {volumes[0]:.1f} mL, all sequences together {volumes[1]:.1f} mL"
        in (" ".join(found.warnings))
    )
    assert not any("T2-FLAIR alone" in text for text in plain.warnings)


@pytest.mark.parametrize("reason", ["flair only", "no flair", "cannot miss", "equal"])
def test_there_is_no_cross_check_where_it_says_nothing(
    folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Without T2-FLAIR or other sequences, with a model that needs all of them, and where the masks agree."""
    [case] = find_cases(folder_of(1))
    model = model_for(case)
    if reason == "equal":
        monkeypatch.setattr(cross_check, "_LEAST_DICE", 0.0)
    else:
        monkeypatch.setattr(cross_check, "_LEAST_DICE", 1.1)
        monkeypatch.setattr(cross_check, "_LEAST_ML", -1.0)
    if reason == "cannot miss":
        model = replace(model, plan=model.plan.model_copy(update={"can_miss": False}))
    elif reason != "equal":
        kept = {"t2f"} if reason == "flair only" else {"t1c", "t2w"}
        case = replace(case, images={name: source for name, source in case.images.items() if name in kept})
    found = predict(model, case, inference=Inference(cross_check=True))
    assert not any("T2-FLAIR alone" in text for text in found.warnings)


def facts(case: str, **dice: float) -> dict[str, Any]:
    estimates = {region: {"dice": value, "low": value / 2, "high": 1.0} for region, value in dice.items()}
    return {"case": case, "estimated_dice": estimates, "volumes_ml": {"WT": 5.0}, "warnings": ["odd"]}


def test_cases_are_ranked_by_their_mean_estimate(gliomask, tmp_path: Path) -> None:
    """The lowest first; damaged files, other programs' files and cases without an estimate are named or passed over."""
    for found in (facts("A", WT=0.9, TC=0.7), facts("B", WT=0.5), facts("C", WT=0.9, TC=0.1), facts("D")):
        (tmp_path / f"{found['case']}.json").write_text(json.dumps(found))
    (tmp_path / "E.json").write_text("{")
    (tmp_path / "F.json").write_text(json.dumps(facts("F") | {"estimated_dice": {"WT": {"dice": 7, "low": 0}}}))
    (tmp_path / "other.json").write_text('{"a": 1}')
    ranked = rank_predictions(tmp_path)
    assert [each.case for each in ranked.cases] == ["B", "C", "A"]
    assert [problem.where for problem in ranked.without] == ["D"]
    assert [problem.where for problem in ranked.problems] == ["E.json", "F.json"]
    status, said = gliomask("rank", tmp_path, "-o", tmp_path / "rank.csv", "--top", 1)
    assert (status, "2 failed, 4 done" in said) == (1, True)
    assert "0.50 [0.25]" in said
    rows = (tmp_path / "rank.csv").read_text().splitlines()
    assert rows[0].startswith("rank,case,mean_estimated_dice,estimated_dice_WT,estimated_dice_TC,low_WT")
    assert [row.split(",")[1] for row in rows[1:]] == ["B", "C", "A"]
    (tmp_path / "empty").mkdir()
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "no CASE.json")):
        with pytest.raises(InputError, match=message):
            rank_predictions(folder)
    assert gliomask("rank", tmp_path, "-o", tmp_path / "rank.txt")[0] == 2


def test_the_command_line_asks_for_the_cross_check(gliomask, folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """It is recorded, so that a mask without it is not kept where it is wanted."""
    folder = folder_of(1)
    [case] = find_cases(folder)
    model = model_for(case)
    save_model(model, tmp_path / "m.safetensors")
    words = ("predict", "-m", tmp_path / "m.safetensors", "-i", folder, "-o", tmp_path / "out", "-d", "cpu")
    assert gliomask(*words)[0] == 0
    assert gliomask(*words, "--cross-check")[0] == 0
    assert json.loads((tmp_path / "out" / f"{case.id}.json").read_text())["settings"]["cross_check"] is True
    for kept in (words, (*words, "--cross-check")):
        assert "up to date and kept" in gliomask(*kept)[1]
