"""The comparison of protocols: where they disagree, and the reasons."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from gliomask.errors import InputError
from gliomask.evaluation import compare_protocols, evaluate
from gliomask.metrics import Mask, family_of, get_protocol, score_case
from gliomask.metrics.reasons import disagree, find_reasons
from gliomask.volume import Volume, write_volume

Box = tuple[tuple[int, int], ...]
A: Box = ((4, 10),) * 3
B: Box = ((30, 36),) * 3
ONE_MM = (1.0, 1.0, 1.0)
GLI = family_of(get_protocol("brats2021"))


def along_x(start: int, stop: int) -> Box:
    """Return a box with the extent of A along Y and Z, and another one along X."""
    return ((start, stop), *A[1:])


def boxes(*spans: Box) -> Mask:
    """Return a cubic mask of 48 voxels a side with half-open boxes."""
    mask = np.zeros((48,) * 3, bool)
    for span in spans:
        mask[tuple(slice(*ends) for ends in span)] = True
    return mask


def regions(mask: Mask) -> dict[str, Mask]:
    """Return ET and the regions that contain it."""
    nothing = np.zeros_like(mask)
    return {"WT": mask, "TC": mask, "ET": mask, "NCR": nothing, "ED": nothing, "RC": nothing}


@pytest.mark.parametrize(
    ("truth", "prediction", "kinds", "said"),
    [
        pytest.param(
            [A], [A, ((40, 41),) * 3], ["stray piece"], "1 component of 1 voxel predicted", id="a stray voxel"
        ),
        pytest.param(
            [A, ((40, 43),) * 3],
            [A],
            ["missed small lesion"],
            "1 component of 27 voxels of the truth",
            id="a small one missed",
        ),
        pytest.param(
            [A, along_x(15, 21)], [A], ["merged pair"], "2 components .* 1 in brats2023-gli", id="a merged pair"
        ),
        pytest.param([A, along_x(24, 30)], [along_x(4, 30)], ["bridge"], "matched with 2 of the truth", id="a bridge"),
        pytest.param([A], [along_x(12, 18)], [], "", id="a near miss has Dice 0 in all years"),
        pytest.param(
            [A, B],
            [along_x(12, 18), B],
            ["stray piece", "near miss"],
            "found with Dice 0",
            id="a near miss beside a hit",
        ),
        pytest.param([], [], ["nothing there"], "no score in 2026", id="nothing on either side"),
        pytest.param([A, B], [A], ["lesions or voxels"], "2021 weights all voxels equally", id="a large one missed"),
        pytest.param([A], [along_x(5, 11)], [], "", id="one lesion, shifted"),
        pytest.param([A], [A], [], "", id="equal"),
    ],
)
def test_each_disagreement_has_its_reason(truth, prediction, kinds, said):
    """The reasons name the cause of each disagreement; where the protocols agree, none is sought."""
    sides = regions(boxes(*truth)), regions(boxes(*prediction))
    dice = {row.name: score_case(*sides, ONE_MM, row)["ET"][row.headline[0]] for row in GLI}
    assert disagree(dice) == bool(kinds)
    if kinds:
        reasons = find_reasons(*sides, ONE_MM, "ET", GLI)
        assert [reason.kind for reason in reasons] == kinds
        assert any(re.search(said, reason.text) for reason in reasons)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.5, 0.5, 0.5), False),
        ((0.5, 0.5 + 1e-9), False),
        ((0.5, 0.6), True),
        ((1.0, math.nan), True),
        ((math.nan, math.nan), False),
    ],
)
def test_disagreeing_is_more_than_rounding(scores, expected):
    """Protocols disagree if scores differ by more than rounding, or one is undefined."""
    assert disagree({str(place): score for place, score in enumerate(scores)}) == expected


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Four cases with the labels of 2023: a stray voxel, a missed small lesion, equal masks, and no prediction."""
    small: Box = ((40, 43),) * 3
    sides = {
        "found": {"00001": [A, ((40, 41),) * 3], "00002": [A], "00003": [A, B]},
        "truth": {"00001": [A], "00002": [A, small], "00003": [A, B], "00004": [A]},
    }
    for side, cases in sides.items():
        for number, spans in cases.items():
            labels = np.where(boxes(*spans), 3, 0).astype(np.uint8)[None]
            write_volume(tmp_path / side / f"BraTS-GLI-{number}-000.nii.gz", Volume(labels, np.eye(4)))
    return tmp_path / "found", tmp_path / "truth"


def test_comparing_scores_each_year_as_evaluate_does(folders):
    """There is one evaluation per protocol, oldest first, each equal to that of `evaluate`, with the missing case."""
    found = compare_protocols(*folders)
    assert [evaluation.protocol.name for evaluation in found.evaluations] == [row.name for row in GLI]
    for evaluation in found.evaluations:
        alone = evaluate(*folders, protocol=evaluation.protocol.name)
        assert evaluation.missing == alone.missing == ("BraTS-GLI-00004-000",)
        assert list(evaluation.scores) == list(alone.scores)
        for case, by_region in alone.scores.items():
            for region, scores in by_region.items():
                assert evaluation.scores[case][region] == pytest.approx(scores, nan_ok=True)


def test_comparing_names_case_region_and_reason(folders):
    """The stray voxel and the small lesion are reported for their cases in all three regions, and nothing else is."""
    found = compare_protocols(*folders)
    kinds = {kind: {where.case[-9:] for where, _ in met} for kind, met in found.reasons().items()}
    assert kinds == {"stray piece": {"00001-000"}, "missed small lesion": {"00002-000"}}
    assert len(found.disagreements) == 6
    stray = next(one for one in found.disagreements if one.case.endswith("00001-000"))
    assert stray.dice["brats2023-gli"] == 0.5
    assert stray.dice["brats2024-gli"] == stray.dice["brats2026-gli"] == 1
    assert stray.spread == 0.5


def test_a_comparison_is_written_with_all_years(folders, tmp_path):
    """CSV has the rows of every protocol, with blanks for metrics that it lacks; JSON also has the reasons."""
    found = compare_protocols(*folders)
    for name in ("all.csv", "all.json"):
        found.save(tmp_path / name)
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["protocol"] for row in rows if row["case"].endswith("1-000") and row["region"] == "WT"] == [
        row.name for row in GLI
    ]
    assert {row["lesion_nsd_1mm"] for row in rows if row["protocol"] == "brats2021"} == {""}
    content = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert len(content["evaluations"]) == 4
    assert {reason["kind"] for found in content["disagreements"] for reason in found["reasons"]} == {
        *("stray piece", "missed small lesion")
    }
    with pytest.raises(InputError, match=r"all\.txt: scores are written as \.csv or \.json"):
        found.save(tmp_path / "all.txt")
