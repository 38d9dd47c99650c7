"""A found tumour is compared with those of the training data: pieces, volume and the share of the largest piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import Case
from gliomask.inference.loading import load_model, new_model, save_model
from gliomask.inference.plausibility import describe_unusual, measure_pieces
from gliomask.inference.prediction import predict
from gliomask.model.edit import replace_plan
from gliomask.model.file import read_plan
from gliomask.model.plan import Plan, TypicalTumour, plan_from_dict, plan_to_dict

TYPICAL = TypicalTumour(cases=9, piece_mm3=8.0, least_ml=0.05, most_pieces=2, least_share=0.5)


def cubes(*edges: int) -> np.ndarray:
    """Cubes of these edges in a row, two voxels apart."""
    mask = np.zeros((60, 12, 12), bool)
    start = 1
    for edge in edges:
        mask[start : start + edge, 1 : 1 + edge, 1 : 1 + edge] = True
        start += edge + 2
    return mask


def test_pieces_are_measured_in_ml_and_small_ones_left_out() -> None:
    """Exactly the least volume is kept; the voxel size counts."""
    assert measure_pieces(cubes(2, 4, 1), (1, 1, 1), 8.0) == pytest.approx([0.064, 0.008])
    assert measure_pieces(cubes(2, 4, 1), (1, 1, 1), 8.1) == pytest.approx([0.064])
    assert measure_pieces(cubes(4), (2, 1, 1.5), 8.0) == pytest.approx([0.192])
    assert measure_pieces(np.zeros((4, 4, 4), bool), (1, 1, 1), 8.0) == []


@pytest.mark.parametrize(
    ("pieces_ml", "words"),
    [
        ([0.2], None),
        ([0.05], None),
        ([0.1, 0.1], None),
        ([], None),
        ([0.04], "0.0 mL"),
        ([0.3, 0.05, 0.05], "3 separate pieces"),
        ([0.04, 0.03, 0.03], "largest piece of 40%"),
        ([0.4999, 0.5001 - 2e-4, 2e-4], "a largest piece of 49.99% (theirs have at least 50%)"),
    ],
)
def test_what_lies_beyond_a_limit_is_named(pieces_ml: list[float], words: str | None) -> None:
    """The limits themselves are not beyond; nothing found is not unusual."""
    text = describe_unusual(pieces_ml, TYPICAL)
    assert text is None if words is None else words in (text or "")


def test_a_volume_just_below_the_limit_is_not_rounded_to_it() -> None:
    """7.4996 mL is not called 7.5 mL."""
    limits = TYPICAL.model_copy(update={"least_ml": 7.5})
    assert "7.4996 mL (they have at least 7.5 mL)" in (describe_unusual([7.49961], limits) or "")
    assert ": 7.4 mL (they have at least 7.5 mL)" in (describe_unusual([7.44], limits) or "")


def test_the_limits_are_part_of_the_plan() -> None:
    """A plan without them is written as before, for older versions to read."""
    plan = Plan(modalities=("t2f",))
    assert "typical" not in plan_to_dict(plan)
    with_limits = plan.model_copy(update={"typical": TYPICAL})
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(with_limits))), "here") == with_limits


def test_predict_warns_with_limits_and_not_without(write_case: Callable[..., Case], tmp_path: Path) -> None:
    """In the record of the prediction; the mask is the same."""
    case = write_case()
    model = new_model(Plan(modalities=("t2f", "t1c"), network="fcn", patch_size=(16, 16, 16)), seed=0)
    path, limited = tmp_path / "model.safetensors", tmp_path / "limited.safetensors"
    save_model(model, path)
    limits = TypicalTumour(cases=9, piece_mm3=0.001, least_ml=1e6, most_pieces=10**6, least_share=0)
    replace_plan(path, read_plan(path).model_copy(update={"typical": limits}), limited)
    plain, warned = (predict(load_model(name, engine="torch"), case) for name in (path, limited))
    assert plain.labels.data.any()
    np.testing.assert_array_equal(plain.labels.data, warned.labels.data)
    assert not [text for text in plain.warnings if "unlike" in text]
    assert len([text for text in warned.facts()["warnings"] if "unlike each of the 9 gliomas" in text]) == 1
