"""Evaluation: predictions are matched with their truth, in the label convention of each, and nothing is lost."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliomask import evaluation
from gliomask.cases import Case, get_layout
from gliomask.errors import InputError
from gliomask.evaluation import (
    Evaluation,
    MaskPair,
    MatchedMasks,
    compare_protocols,
    evaluate,
    find_pairs,
    read_score_table,
)
from gliomask.evaluation.records import refuse_records
from gliomask.evaluation.table_text import cell_text, csv_text
from gliomask.files.parquet import read_parquet
from gliomask.labels import convert_labels, get_convention
from gliomask.metrics import PROTOCOLS, Mask, score_case
from gliomask.volume import Volume, read_volume, reorient, write_volume

ONE, TWO, THREE = "BraTS2021_00001", "BraTS2021_00002", "BraTS2021_00003"
TRUTH_DICE = {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def mask_of(number: int, *, radius: int = 5, convention: str = "brats2023", shift: int = 0) -> Volume:
    """Return nested boxes of the three tissues on a straight grid of 16 x 18 x 14 voxels of 1 x 1 x 2 mm."""
    tissues = np.zeros((16, 18, 14), np.uint8)
    for value, edge in ((2, radius), (3, radius - 2), (1, radius - 3)):
        low, high = 7 + shift - edge, 7 + shift + edge
        tissues[low:high, 9 - edge : 9 + edge, 7 - edge : 7 + edge] = value
    tissues[number % 16, 0, 0] = 2
    numbers = convert_labels(tissues, get_convention("brats2023"), get_convention(convention), "here")
    return Volume(numbers[None], np.diag([-1.0, -1.0, 2.0, 1.0]))


def write_mask(path: Path, volume: Volume, told: str | None = None) -> Path:
    """Write a mask, and beside it the JSON that tells its convention."""
    write_volume(path, volume)
    if told is not None:
        beside = path.with_name(path.name.split(".nii")[0] + ".json")
        beside.write_text(json.dumps({"case": "any", "labels": {"convention": told}}))
    return path


def dice_of(found: Evaluation, case: str) -> dict[str, float]:
    """Return the Dice of each region of a case."""
    return {region: scores["dice"] for region, scores in found.scores[case].items()}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Three cases of BraTS 2021, masks only."""
    for number, case in enumerate((ONE, TWO, THREE), 1):
        write_mask(tmp_path / "truth" / case / f"{case}_seg.nii.gz", mask_of(number, convention="brats2021"))
    return tmp_path / "truth"


def test_two_files_are_a_pair_whatever_they_are_called(tmp_path: Path) -> None:
    """Two files form a pair with the id of the truth; nothing is missing or extra."""
    prediction = write_mask(tmp_path / "out.nii", mask_of(1, convention="brats2021"))
    truth = write_mask(tmp_path / f"{ONE}_seg.nii.gz", mask_of(1, convention="brats2021"))
    assert find_pairs(prediction, truth) == MatchedMasks((MaskPair(ONE, prediction, truth),))
    assert dice_of(evaluate(prediction, truth), ONE) == TRUTH_DICE


@pytest.mark.parametrize("name", ["{id}.nii.gz", "{id}.nii", "{id}.NII.GZ", "{id}_seg.nii.gz", "{id}/{id}_seg.nii"])
def test_predictions_meet_their_truth_by_id(truth: Path, tmp_path: Path, name: str) -> None:
    """Masks named by the id, with or without `_seg`, in folders or not, gzipped or not, are matched by id."""
    masks = {case: tmp_path / "found" / name.format(id=case) for case in (TWO, ONE, THREE)}
    for path in masks.values():
        write_mask(path, mask_of(0, convention="brats2021"))
    expected = tuple(MaskPair(case, masks[case], truth / case / f"{case}_seg.nii.gz") for case in (ONE, TWO, THREE))
    assert find_pairs(tmp_path / "found", truth) == MatchedMasks(expected)


def test_one_file_meets_its_case_in_a_folder(truth: Path, tmp_path: Path) -> None:
    """Given one file and a folder, only the case of the file is matched."""
    prediction = write_mask(tmp_path / "found" / f"{TWO}.nii.gz", mask_of(2, convention="brats2021"))
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    expected = MatchedMasks((MaskPair(TWO, prediction, truth / TWO / f"{TWO}_seg.nii.gz"),))
    assert find_pairs(prediction, truth) == expected
    assert find_pairs(prediction.parent, truth / TWO / f"{TWO}_seg.nii.gz") == expected


def test_the_masks_of_case_folders_are_taken_and_no_image(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """A folder as downloaded, with images, compared with itself has perfect scores and one mask per case."""
    data = folder_of(2)
    found = evaluate(data, data)
    assert sorted(found.scores) == [ONE, TWO]
    assert dice_of(found, ONE) == dice_of(found, TWO) == TRUTH_DICE
    assert found.problems == found.missing == ()
    assert [note.what.partition(" (")[0] for note in found.notes] == [
        "is the same file as the prediction in 2 of 2 cases"
    ]


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_masks_are_found_in_labels_tr(write_case: Callable[..., Case], tmp_path: Path, layout: str) -> None:
    """Only the files in labelsTr are masks; the hidden files of macOS in MSD's archive are not."""
    case = write_case(layout)
    assert case.mask is not None
    (case.mask.parent / f"._{case.mask.name}").write_bytes(b"Mac OS X")
    prediction = write_mask(tmp_path / "found" / f"{case.id}.nii.gz", read_volume(case.mask, mask=True))
    found = find_pairs(prediction.parent, tmp_path / "data")
    assert found.pairs == (MaskPair(case.id, prediction, case.mask),)
    assert [problem.what for problem in found.passed_over] == ["a hidden file"]
    assert not found.missing
    assert not found.extra
    assert dice_of(evaluate(prediction.parent, tmp_path / "data", labels="msd", truth_labels="msd"), case.id) == (
        TRUTH_DICE
    )


@pytest.mark.parametrize("layout", ["brats2017", "brats2019", "brats2020", "brats2021", "brats2023", "brats2024"])
def test_the_ids_of_brats_tell_their_numbers(folder_of: Callable[..., Path], tmp_path: Path, layout: str) -> None:
    """Masks with the names of a year are read in the label convention of that year."""
    data = folder_of(1, layout)
    (mask,) = data.rglob("*seg*")
    case = find_pairs(data, data).pairs[0].id
    year = get_convention(get_layout(layout).convention or "")
    tissues = convert_labels(read_volume(mask, mask=True).data, year, get_convention("msd"), "here")
    write_mask(tmp_path / "found" / f"{case}.nii.gz", Volume(tissues, read_volume(mask).affine), told="msd")
    assert dice_of(evaluate(tmp_path / "found", data), case) == TRUTH_DICE


@pytest.mark.parametrize("numbers", ["brats2023", "brats2024", "msd", "brats2024-ped"])
def test_the_json_beside_a_prediction_tells_its_numbers(truth: Path, tmp_path: Path, numbers: str) -> None:
    """Predictions in another label convention than the truth have Dice 1 and HD95 0 if the tissues are equal."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention=numbers), told=numbers)
    found = evaluate(tmp_path / "found", truth)
    assert dice_of(found, ONE) == TRUTH_DICE
    assert {scores["hd95_pooled_mm"] for scores in found.scores[ONE].values()} == {0.0}


def test_asked_for_numbers_stand_over_what_the_json_tells(truth: Path, tmp_path: Path) -> None:
    """`labels` applies to all predictions and not to the truth; without it and without JSON the id decides."""
    path = write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2023"), told="msd")
    assert dice_of(evaluate(path.parent, truth, labels="brats2023"), ONE) == TRUTH_DICE
    assert dice_of(evaluate(path.parent, truth), ONE)["TC"] < 1
    path.with_name(f"{ONE}.json").unlink()
    (problem,) = evaluate(path.parent, truth).problems
    assert problem.where == ONE
    assert f"{path}: labels {{3}} are not in brats2021" in problem.what


def test_the_truths_numbers_can_be_told(tmp_path: Path) -> None:
    """Truth with MSD's labels and predictions with those of 2023 are read by `truth_labels` and `labels`."""
    prediction = write_mask(tmp_path / "found" / "a.nii.gz", mask_of(1, convention="brats2023"))
    truth = write_mask(tmp_path / "truth" / "a.nii.gz", mask_of(1, convention="msd"))
    found = evaluate(prediction.parent, truth.parent, labels="brats2023", truth_labels="msd")
    assert dice_of(found, "a") == TRUTH_DICE


def test_what_the_numbers_alone_cannot_tell_is_refused(tmp_path: Path) -> None:
    """For the values {1, 2, 3} without a known name, the message lists the conventions that fit and the option."""
    for side in ("found", "truth"):
        write_mask(tmp_path / side / "patient.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=r"patient\.nii\.gz: .* ambiguous: brats2023 .* msd .*--labels"):
        evaluate(tmp_path / "found", tmp_path / "truth")


def test_all_masks_together_prove_their_numbers(tmp_path: Path) -> None:
    """A case without enhancing tumour is read like the other cases, whose value 4 implies BraTS 2021."""
    without = mask_of(1, convention="brats2021")
    without = Volume(np.where(without.data == 4, 1, without.data).astype(np.uint8), without.affine)
    for side in ("found", "truth"):
        write_mask(tmp_path / side / "a.nii.gz", without)
        write_mask(tmp_path / side / "b.nii.gz", mask_of(2, convention="brats2021"))
    found = evaluate(tmp_path / "found", tmp_path / "truth")
    assert dice_of(found, "a") == dice_of(found, "b") == TRUTH_DICE
    with pytest.raises(InputError, match="ambiguous"):
        evaluate(tmp_path / "found" / "a.nii.gz", tmp_path / "truth" / "a.nii.gz")


def test_empty_masks_need_no_convention(tmp_path: Path) -> None:
    """Two empty masks have Dice 1 and HD95 0."""
    empty = replace(mask_of(1), data=np.zeros((1, 16, 18, 14), np.uint8))
    for side in ("found", "truth"):
        write_mask(tmp_path / side / "a.nii.gz", empty)
    scores = evaluate(tmp_path / "found", tmp_path / "truth").scores["a"]
    assert all((s["dice"], s["hd95_pooled_mm"], s["sensitivity"]) == (1, 0, 1) for s in scores.values())


def test_a_json_with_an_unknown_convention_is_named(truth: Path, tmp_path: Path) -> None:
    """The message names the file and the nearest known convention, and the other cases are scored."""
    for number, case in enumerate((ONE, TWO), 1):
        told = "brats2032" if case == ONE else "brats2023"
        write_mask(tmp_path / "found" / f"{case}.nii.gz", mask_of(number), told=told)
    found = evaluate(tmp_path / "found", truth)
    (problem,) = found.problems
    assert problem.name == ONE
    assert f"{ONE}.json: unknown label convention 'brats2032'; did you mean" in str(problem)
    assert (sorted(found.scores), found.missing) == ([TWO, THREE], (THREE,))


DATASET = {
    "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"},
    "labels": {"background": 0, "edema": 1, "non-enhancing and necrosis": 2, "enhancing tumor": 3},
}


@pytest.mark.parametrize("place", ["found", "."])
def test_a_dataset_json_tells_more_than_the_ids(truth: Path, tmp_path: Path, place: str) -> None:
    """Predictions of nnU-Net keep the ids of BraTS but have the numbers of their data set."""
    for number, case in enumerate((ONE, TWO, THREE), 1):
        write_mask(tmp_path / "found" / f"{case}.nii.gz", mask_of(number, convention="msd"))
    assert not evaluate(tmp_path / "found", truth).scores  # a 3 is no number of BraTS 2021
    (tmp_path / place / "dataset.json").write_text(json.dumps(DATASET))
    assert dice_of(evaluate(tmp_path / "found", truth), ONE) == TRUTH_DICE


def test_masks_of_ones_are_not_taken_for_necrosis(truth: Path, tmp_path: Path) -> None:
    """Also with the ids of BraTS: they are whole tumours, which has to be said; one other number is enough."""
    for number, case in enumerate((ONE, TWO, THREE), 1):
        mask = mask_of(number, convention="brats2021")
        write_volume(tmp_path / "found" / f"{case}.nii.gz", Volume((mask.data > 0).astype(np.uint8), mask.affine))
    with pytest.raises(InputError, match=r"no mask holds another number than 1.*wt-only"):
        evaluate(tmp_path / "found", truth)
    with pytest.raises(InputError, match=r"no mask holds another number than 1"):
        evaluate(truth, tmp_path / "found")
    assert dice_of(evaluate(tmp_path / "found", truth, labels="wt-only"), ONE) == {"WT": 1.0}
    write_mask(tmp_path / "found" / f"{TWO}.nii.gz", mask_of(2, convention="brats2021"))
    assert dice_of(evaluate(tmp_path / "found", truth), TWO) == TRUTH_DICE


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"labels": 3}', '{"labels": {"convention": [1, 2]}}'])
def test_any_other_json_beside_a_mask_tells_nothing(truth: Path, tmp_path: Path, content: str) -> None:
    """A damaged, empty or unrelated JSON file is ignored; the id decides."""
    path = write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    path.with_name(f"{ONE}.json").write_text(content)
    assert dice_of(evaluate(path.parent, truth), ONE) == TRUTH_DICE


def test_a_missing_prediction_counts_as_worst_and_is_listed(truth: Path, tmp_path: Path) -> None:
    """If one of three cases was predicted, perfectly, the mean Dice is a third, and the two others are listed."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    found = evaluate(tmp_path / "found", truth)
    assert found.missing == (TWO, THREE)
    assert found.problems == found.notes == ()
    for row in found.summary():
        assert (row["cases"], row["missing"]) == (3, 2)
        assert row["dice_mean"] == pytest.approx(1 / 3)
        assert row["hd95_pooled_mm_median"] == pytest.approx(373.128664, abs=1e-6)
    assert [row["status"] for row in found.rows()] == ["scored"] * 3 + ["missing"] * 6


def test_a_missing_case_whose_truth_is_damaged_is_a_problem(truth: Path, tmp_path: Path) -> None:
    """A case whose truth is damaged has no worst scores either: it is listed as a problem and enters no mean."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    (truth / TWO / f"{TWO}_seg.nii.gz").write_bytes(b"no NIfTI")
    found = evaluate(tmp_path / "found", truth)
    assert [problem.where for problem in found.problems] == [TWO]
    assert found.missing == (THREE,)
    assert sorted(found.scores) == [ONE, THREE]


def test_an_extra_prediction_is_refused_or_left_aside(truth: Path, tmp_path: Path) -> None:
    """An extra prediction is refused; with `ignore_extra` it is noted and enters no mean."""
    others = [f"BraTS2021_{number:05d}" for number in range(1660, 1668)]
    for case in (ONE, TWO, THREE, *others):
        write_mask(tmp_path / "found" / f"{case}.nii.gz", mask_of(1, convention="brats2021"))
    with pytest.raises(InputError, match=r"found: 8 predictions have no truth .*01664 and 3 more.*--ignore-extra"):
        evaluate(tmp_path / "found", truth)
    found = evaluate(tmp_path / "found", truth, ignore_extra=True)
    assert [note.where for note in found.notes] == others
    assert sorted(found.scores) == [ONE, TWO, THREE]
    compared = compare_protocols(tmp_path / "found", truth, ignore_extra=True)
    assert all([note.where for note in each.notes] == others for each in compared.evaluations)


@pytest.mark.parametrize("name", ["{number}.nii.gz", "team_7_{number}.nii.gz", "pred-{number}.nii"])
def test_submissions_are_matched_by_number(tmp_path: Path, name: str) -> None:
    """Names of submissions are matched with the case whose id ends in the same number."""
    for number in ("00001-000", "00001-001"):
        write_mask(tmp_path / "truth" / f"BraTS-GLI-{number}-seg.nii.gz", mask_of(1))
        write_mask(tmp_path / "found" / name.format(number=number), mask_of(1))
    found = find_pairs(tmp_path / "found", tmp_path / "truth")
    assert [(pair.id, pair.prediction.name) for pair in found.pairs] == [
        (f"BraTS-GLI-{number}", name.format(number=number)) for number in ("00001-000", "00001-001")
    ]
    assert not found.missing
    assert not found.extra


def test_short_numbers_are_matched_too(tmp_path: Path) -> None:
    """Names as in 2026: four digits and a time point."""
    write_mask(tmp_path / "truth" / "BraTS-MET-0001-1-seg.nii.gz", mask_of(1))
    prediction = write_mask(tmp_path / "found" / "ours-0001-1.nii.gz", mask_of(1))
    (pair,) = find_pairs(prediction.parent, tmp_path / "truth").pairs
    assert (pair.id, pair.prediction) == ("BraTS-MET-0001-1", prediction)


def test_an_id_of_another_data_set_is_not_matched_by_its_number(truth: Path, tmp_path: Path) -> None:
    """The numbers of BraTS recur in its parts: BraTS-MET-00001-000 is not BraTS-GLI-00001-000."""
    for number, case in enumerate(("BraTS-GLI-00001-000", "BraTS-GLI-00002-000"), 1):
        write_mask(tmp_path / "gli" / f"{case}.nii.gz", mask_of(number))
    write_mask(tmp_path / "found" / "BraTS-MET-00001-000.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=r"no mask in .* has the same id"):
        find_pairs(tmp_path / "found", tmp_path / "gli")
    write_mask(tmp_path / "found" / "00002-000.nii.gz", mask_of(2))
    found = find_pairs(tmp_path / "found", tmp_path / "gli")
    assert [pair.id for pair in found.pairs] == ["BraTS-GLI-00002-000"]
    assert list(found.missing) == ["BraTS-GLI-00001-000"]
    assert list(found.extra) == ["BraTS-MET-00001-000"]
    assert "matched by the number at the end of the name: 00002-000 with BraTS-GLI-00002-000" in str(found.notes[0])


def test_a_number_of_several_cases_is_refused(tmp_path: Path) -> None:
    """A number that fits two cases, and two predictions of one case, are refused."""
    for kind in ("GLI", "MET"):
        write_mask(tmp_path / "truth" / f"BraTS-{kind}-00001-000-seg.nii.gz", mask_of(1))
    short = write_mask(tmp_path / "found" / "00001-000.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=r"00001-000\.nii\.gz: may belong to BraTS-GLI-00001-000, BraTS-MET-00001-000"):
        find_pairs(short.parent, tmp_path / "truth")
    (tmp_path / "truth" / "BraTS-MET-00001-000-seg.nii.gz").unlink()
    write_mask(tmp_path / "found" / "team_00001-000.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=r"team_00001-000\.nii\.gz: may belong to .*00001-000\.nii\.gz"):
        find_pairs(short.parent, tmp_path / "truth")


@pytest.mark.parametrize(
    ("error", "message"),
    [(MemoryError, "there is not enough memory"), (OverflowError, "OverflowError: no more")],
)
def test_an_exception_in_a_case_does_not_end_the_others(
    truth: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
    message: str,
) -> None:
    """The case is named with the reason, and the others are scored; the log has the traceback of a defect."""
    caplog.set_level(logging.INFO)
    for number, case in enumerate((ONE, TWO, THREE), 1):
        write_mask(tmp_path / "found" / f"{case}.nii.gz", mask_of(number, convention="brats2021", shift=case == TWO))

    def fails_on_two(
        truth: dict[str, Mask], prediction: dict[str, Mask], *rest: object, **more: object
    ) -> dict[str, dict[str, float]]:
        if not np.array_equal(truth["ET"], prediction["ET"]):
            raise error("no more")
        return {"WT": {}}

    monkeypatch.setattr(evaluation, "score_case", fails_on_two)
    found = evaluate(tmp_path / "found", truth)
    assert sorted(found.scores) == [ONE, THREE]
    [problem] = found.problems
    assert str(problem).startswith(f"{TWO}: could not be scored: {message}")
    assert ("fails_on_two" in caplog.text) == (error is OverflowError)


@pytest.mark.parametrize("names", [(ONE, TWO, THREE), ("a", "b", "c")], ids=["BraTS names", "any names"])
@pytest.mark.parametrize("side", ["found", "truth"])
def test_a_damaged_case_is_told_and_the_others_are_scored(tmp_path: Path, names: tuple[str, ...], side: str) -> None:
    """A truncated truth or prediction is a problem of its own case and enters no mean."""
    for place in ("found", "truth"):
        for number, name in enumerate(names):
            write_mask(tmp_path / place / f"{name}.nii.gz", mask_of(number, convention="brats2021"))
    cut = tmp_path / side / f"{names[0]}.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-40])
    seen: list[str] = []
    found = evaluate(tmp_path / "found", tmp_path / "truth", on_case=seen.append)
    assert sorted(seen) == sorted(names)
    assert sorted(found.scores) == sorted(names[1:])
    (problem,) = found.problems
    assert problem.where == names[0]
    assert str(cut) in problem.what
    assert [row["cases"] for row in found.summary()] == [2, 2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda v: replace(v, data=v.data[:, 1:]), "shape 16 x 18 x 14 and 15 x 18 x 14", id="shape"),
        pytest.param(
            lambda v: replace(v, affine=v.affine @ np.diag([-1, 1, 1, 1])), "orientation LPS and RPS", id="orientation"
        ),
        pytest.param(lambda v: replace(v, affine=v.affine * [[1], [1], [1.5], [1]]), "spacing", id="spacing"),
        pytest.param(
            lambda v: replace(v, affine=v.affine + np.array([[0, 0, 0, 5], *[[0] * 4] * 3])), "origin", id="origin"
        ),
    ],
)
def test_another_grid_is_a_problem(
    truth: Path, tmp_path: Path, change: Callable[[Volume], Volume], message: str
) -> None:
    """Masks on different grids are not compared; the message names both files and the difference."""
    for number, case in ((1, ONE), (3, THREE)):
        write_mask(tmp_path / "found" / f"{case}.nii.gz", mask_of(number, convention="brats2021"))
    moved = write_mask(tmp_path / "found" / f"{TWO}.nii.gz", change(mask_of(2, convention="brats2021")))
    found = evaluate(tmp_path / "found", truth)
    assert list(found.scores) == [ONE, THREE]
    (problem,) = found.problems
    assert problem.where == TWO
    assert all(part in problem.what for part in (str(moved), f"{TWO}_seg.nii.gz", message))


def test_the_order_of_a_files_axes_does_not_matter(truth: Path, tmp_path: Path) -> None:
    """A prediction that is stored in another orientation, with the affine that belongs to it, has the same scores."""
    for folder, axes in (("as it was", None), ("turned", "SAR")):
        for number, case in ((1, ONE), (2, TWO), (3, THREE)):
            mask = mask_of(number, convention="brats2021")
            mask = replace(mask, data=np.roll(mask.data, 1, axis=1))
            write_mask(tmp_path / folder / f"{case}.nii.gz", reorient(mask, axes) if axes else mask)
    assert evaluate(tmp_path / "turned", truth).scores == evaluate(tmp_path / "as it was", truth).scores


def test_a_mask_without_orientation_is_told_as_the_reason(truth: Path, tmp_path: Path) -> None:
    """Some programs write masks without qform and sform; the difference in orientation alone would mislead."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    content = bytearray(gzip.decompress((tmp_path / "found" / f"{ONE}.nii.gz").read_bytes()))
    content[252:256] = bytes(4)  # the codes of qform and sform
    (tmp_path / "found" / f"{ONE}.nii.gz").write_bytes(gzip.compress(bytes(content)))
    found = evaluate(tmp_path / "found", truth)
    (problem,) = found.problems
    assert f"{ONE}.nii.gz: its header says nothing about orientation" in problem.what


def test_two_masks_of_one_id_are_refused(truth: Path, tmp_path: Path) -> None:
    """Two masks of one case are refused; the message names both files."""
    write_mask(tmp_path / "found" / f"{ONE}.nii", mask_of(1))
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=rf"two masks for {ONE}: .*{ONE}\.nii and .*{ONE}\.nii\.gz\. Remove one"):
        evaluate(tmp_path / "found", truth)


def test_masks_named_by_the_id_alone_count_beside_others(truth: Path, tmp_path: Path) -> None:
    """One file called `ID_seg` does not make the others missing predictions; a second mask of a case is refused."""
    found = tmp_path / "found"
    for case, ending in ((ONE, "_seg"), (TWO, ""), (THREE, "")):
        write_mask(found / f"{case}{ending}.nii.gz", mask_of(1, convention="brats2021"))
    write_mask(found / "notes.nii.gz", mask_of(1))
    matched = find_pairs(found, truth)
    assert ([pair.id for pair in matched.pairs], dict(matched.missing)) == ([ONE, TWO, THREE], {})
    assert [problem.where for problem in matched.passed_over] == [str(found / "notes.nii.gz")]
    second = write_mask(found / f"{ONE}.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=re.escape(f"{second}: a second mask for {ONE} beside")):
        find_pairs(found, truth)
    assert [pair.id for pair in find_pairs(truth, found).pairs] == [ONE, TWO, THREE]


def test_nothing_in_common_is_refused_with_examples(truth: Path, tmp_path: Path) -> None:
    """The message shows ids of both places."""
    write_mask(tmp_path / "found" / "patient7.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=rf"no mask in .* same id .*patient7 and {ONE}, {TWO}"):
        evaluate(tmp_path / "found", truth)


@pytest.mark.parametrize(("place", "message"), [("nowhere", "no such file or folder"), ("empty", "no mask found")])
def test_places_without_masks_are_refused(truth: Path, tmp_path: Path, place: str, message: str) -> None:
    """A folder that does not exist, and one with images only, are refused on either side."""
    (tmp_path / "empty").mkdir()
    write_volume(tmp_path / "empty" / f"{ONE}_flair.nii.gz", mask_of(1))
    for sides in ((tmp_path / place, truth), (truth, tmp_path / place)):
        with pytest.raises(InputError, match=rf"{place}: {message}"):
            evaluate(*sides)


def test_unknown_names_are_refused_with_a_hint(truth: Path) -> None:
    """Unknown protocols and conventions are refused before any file is read."""
    with pytest.raises(InputError, match="unknown protocol 'brats2012'; did you mean 'brats2021'"):
        evaluate(truth, truth, protocol="brats2012")
    with pytest.raises(InputError, match="unknown label convention 'brats2032'; did you mean"):
        evaluate(truth, truth, labels="brats2032")
    with pytest.raises(InputError, match="unknown label convention 'mds'; did you mean 'msd'"):
        evaluate(truth, truth, truth_labels="mds")


def test_probabilities_are_no_masks(truth: Path, tmp_path: Path) -> None:
    """The 4-D probabilities that predict writes beside a mask are not taken for a mask."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    channels = Volume(np.full((3, 16, 18, 14), 0.5, np.float32), mask_of(1).affine)
    write_volume(tmp_path / "found" / f"{ONE}_probabilities.nii.gz", channels)
    found = find_pairs(tmp_path / "found", truth)
    assert [pair.id for pair in found.pairs] == [ONE]
    assert not found.extra


def test_masks_behind_links_are_found_and_what_is_no_mask_is_listed(truth: Path, tmp_path: Path) -> None:
    """A linked case folder is looked into as any other, and no file is passed over without being listed."""
    elsewhere = tmp_path / "annex" / TWO
    elsewhere.parent.mkdir()
    (truth / TWO).rename(elsewhere)
    try:
        (truth / TWO).symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    other = write_mask(truth / ONE / "notes.nii.gz", mask_of(1, convention="brats2021"))
    for case in (ONE, TWO):
        write_mask(tmp_path / "found" / f"{case}.nii.gz", mask_of(1, convention="brats2021"))
    found = find_pairs(tmp_path / "found", truth)
    assert [pair.id for pair in found.pairs] == [ONE, TWO]
    assert [problem.where for problem in found.passed_over] == [str(other)]


def test_a_folder_that_cannot_be_read_is_a_problem(
    truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named beside the masks that are found in the others."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == TWO:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("gliomask.cases.folders.os.scandir", refuse)
    found = find_pairs(tmp_path / "found", truth)
    assert [str(problem) for problem in found.problems] == [
        f"{truth / TWO}: the folder cannot be read: Permission denied."
    ]


def test_scores_are_in_millimetres_of_the_truths_grid(tmp_path: Path) -> None:
    """Distances and volumes use the voxel size of each axis."""
    truth = mask_of(0, convention="brats2021")
    along_z = np.roll(truth.data, 1, axis=3)
    for name, mask in (("x", mask_of(1, convention="brats2021", shift=1)), ("z", replace(truth, data=along_z))):
        write_mask(tmp_path / "found" / f"{name}.nii.gz", mask)
        write_mask(tmp_path / "truth" / f"{name}.nii.gz", truth)
    found = evaluate(tmp_path / "found", tmp_path / "truth")
    assert found.scores["x"]["WT"]["hd95_pooled_mm"] == 1
    assert found.scores["z"]["WT"]["hd95_pooled_mm"] == 2


def test_regions_for_which_the_truth_has_no_number_are_said(truth: Path) -> None:
    """RC is always empty in masks of 2021; it is scored by the protocol's rule, and a note says so."""
    found = evaluate(truth, truth, protocol="brats2024-gli")
    note, same = found.notes
    assert same.where == "truth"
    assert str(note) == "RC: the label convention of the truth (brats2021) has no value for it: always empty"
    assert {regions["RC"]["lesion_dice"] for regions in found.scores.values()} == {1.0}


@pytest.mark.parametrize(("convention", "region"), [("wt-only", "WT"), ("tc-only", "TC")])
@pytest.mark.parametrize("side", ["truth", "prediction"])
def test_a_region_that_a_mask_does_not_label_is_not_scored(
    truth: Path, tmp_path: Path, convention: str, region: str, side: str
) -> None:
    """Masks of one region alone give scores of this region alone; it is not taken for absent, and a note says so."""
    lone = mask_of(1, convention="brats2021")
    lone = replace(lone, data=np.isin(lone.data, list(get_convention("brats2021").regions[region])).astype(np.uint8))
    predictions = tmp_path / "predictions"
    for number, case in enumerate((ONE, TWO), 1):
        write_mask(predictions / f"{case}.nii.gz", mask_of(number, convention="brats2021"), "brats2021")
    changed = predictions / f"{ONE}.nii.gz" if side == "prediction" else truth / ONE / f"{ONE}_seg.nii.gz"
    write_mask(changed, lone, convention)
    shutil.rmtree(truth / THREE)
    for name in (TWO, *([ONE] if side == "prediction" else [])):
        write_mask(
            truth / name / f"{name}_seg.nii.gz",
            mask_of((ONE, TWO).index(name) + 1, convention="brats2021"),
            "brats2021",
        )
    found = evaluate(predictions, truth)
    assert found.problems == ()
    assert set(found.scores[ONE]) == {region}
    assert found.scores[ONE][region]["dice"] == 1
    assert set(found.scores[TWO]) == {"WT", "TC", "ET"}
    assert {row["region"]: row["cases"] for row in found.summary()} == {"WT": 1, "TC": 1, "ET": 1} | {region: 2}
    unknown = [name for name in ("WT", "TC", "ET") if name != region]
    assert [str(note) for note in found.notes] == [
        f"{name}: not scored in 1 of 2 cases, because {convention} masks do not label it" for name in unknown
    ]
    compared = compare_protocols(predictions, truth)
    assert all(set(each.scores[ONE]) == {region} for each in compared.evaluations)
    assert [row["region"] for row in found.rows()] == [region, "WT", "TC", "ET"]


def test_masks_without_a_common_region_are_a_problem(tmp_path: Path) -> None:
    """A prediction of the core against a truth of the whole tumour has no score, and the case is named."""
    prediction = write_mask(tmp_path / "out.nii", mask_of(1, convention="brats2021"))
    lone = replace(read_volume(prediction, mask=True), data=(mask_of(1).data > 0).astype(np.uint8))
    found = evaluate(
        write_mask(tmp_path / "out.nii", lone, "tc-only"), write_mask(tmp_path / f"{ONE}_seg.nii.gz", lone, "wt-only")
    )
    assert not found.scores
    assert [problem.where for problem in found.problems] == [ONE]
    assert "both" in found.problems[0].what


def test_tissues_are_scored_whatever_their_numbers(tmp_path: Path) -> None:
    """A protocol with single tissues reads them in the convention of each mask: Dice is 1 for each tissue."""
    write_mask(tmp_path / "found" / "a.nii.gz", mask_of(1, convention="msd"))
    write_mask(tmp_path / "truth" / "a.nii.gz", mask_of(1, convention="brats2024-ped"))
    found = evaluate(
        tmp_path / "found", tmp_path / "truth", protocol="brats2024-ped", labels="msd", truth_labels="brats2024-ped"
    )
    assert dice_of(found, "a") == dict.fromkeys(("WT", "TC", "ET", "NCR", "CC", "ED"), 1.0)
    assert found.scores["a"]["NCR"]["truth_ml"] > 0
    assert found.scores["a"]["ED"]["truth_ml"] > 0


def test_a_case_is_scored_as_its_masks_are(truth: Path, tmp_path: Path) -> None:
    """Scores of files equal those of `score_case` on the whole arrays, under every protocol."""
    prediction = write_mask(tmp_path / f"{ONE}.nii.gz", mask_of(1, convention="brats2021", shift=2))
    labels = [read_volume(path, mask=True) for path in (truth / ONE / f"{ONE}_seg.nii.gz", prediction)]
    numbers = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,), "NCR": (1,), "ED": (2,), "RC": (), "CC": ()}
    sides = [{region: np.isin(side.data[0], values) for region, values in numbers.items()} for side in labels]
    for protocol in PROTOCOLS:
        found = evaluate(prediction, truth / ONE / f"{ONE}_seg.nii.gz", protocol=protocol).scores[ONE]
        expected = score_case(*sides, labels[0].spacing_mm, protocol)
        assert list(found) == list(expected)
        for region, scores in expected.items():
            assert found[region] == pytest.approx(scores, nan_ok=True)


def test_when_no_case_can_be_scored_nothing_breaks(tmp_path: Path) -> None:
    """If every prediction is on another grid, there are problems, no rows, and a CSV file with its header only."""
    write_mask(tmp_path / "truth" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    mask = mask_of(1, convention="brats2021")
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", replace(mask, affine=mask.affine @ np.diag([-1, 1, 1, 1])))
    found = evaluate(tmp_path / "found", tmp_path / "truth")
    assert [problem.where for problem in found.problems] == [ONE]
    assert found.summary() == []
    found.save(tmp_path / "scores.csv")
    (head,) = (tmp_path / "scores.csv").read_text().splitlines()
    assert head.startswith("protocol,case,region,status,dice,hd95_pooled_mm,hd95_surface_mm,")


def test_scores_print_as_a_line_a_region(truth: Path) -> None:
    """One line per region with Dice and HD95 within 80 columns; without a case there is only the heading."""
    lines = str(evaluate(truth, truth, protocol="brats2023-gli")).splitlines()
    assert lines[0].startswith("brats2023-gli, ")
    assert lines[1].split() == ["lesion_dice", "lesion_hd95_surface_mm"]
    perfect = ["1.000", "[1.000", "1.000]", "0.000", "[0.000", "0.000]"]
    assert [line.split() for line in lines[2:]] == [[region, *perfect] for region in ("WT", "TC", "ET")]
    assert max(map(len, lines)) <= 80
    nothing = str(Evaluation(PROTOCOLS["brats2021"], {}, ()))
    assert nothing.splitlines()[0] == "brats2021, 0 cases: mean [95 % interval]"
    assert len(nothing.splitlines()) == 2


def test_the_table_for_a_paper_has_the_numbers_of_the_summary(truth: Path, tmp_path: Path) -> None:
    """Markdown and LaTeX have the same cells; a single case has a value, no deviation and no interval."""
    for number, case in enumerate((ONE, TWO, THREE), 1):
        shifted = mask_of(number, convention="brats2021", shift=number - 1)
        write_mask(tmp_path / "found" / f"{case}.nii.gz", shifted, "brats2021")
    found = evaluate(tmp_path / "found", truth)
    found.save(tmp_path / "t.md")
    found.save(tmp_path / "t.tex")
    text = (tmp_path / "t.md").read_text("utf-8")
    first = found.summary()[0]
    low, high = sorted(scores["WT"]["dice"] for scores in found.scores.values())[::2]
    assert (
        f"| WT | Dice | 3 | {first['dice_mean']:.3f} ± {first['dice_std']:.3f} | {first['dice_median']:.3f} "
        f"[{low:.3f}, {high:.3f}] | {first['dice_low']:.3f} to {first['dice_high']:.3f} |"
    ) in text.replace(f"[{found.summary()[0]['dice_median']:.3f}", f"[{low:.3f}")
    rows = [line for line in text.splitlines() if line.startswith(("| WT", "| TC", "| ET"))]
    latex = (tmp_path / "t.tex").read_text("utf-8").replace("$\\pm$", "±").replace("\\%", "%")
    assert all(row.strip("| ").replace(" | ", " & ") in latex for row in rows)
    (tmp_path / "found" / f"{TWO}.nii.gz").rename(tmp_path / "one.nii.gz")
    evaluate(tmp_path / "one.nii.gz", truth / TWO / f"{TWO}_seg.nii.gz", labels="brats2021").save(tmp_path / "one.md")
    assert re.search(r"\| WT \| Dice \| 1 \| 0\.\d+ \| – \| – \|", (tmp_path / "one.md").read_text("utf-8"))


def test_the_table_for_a_paper_says_which_cases_it_lacks(truth: Path, tmp_path: Path) -> None:
    """The caption has the remark of the screen: cases without a prediction, and cases that failed."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"), "brats2021")
    (tmp_path / "found" / f"{TWO}.nii.gz").write_bytes(b"damaged")
    found = evaluate(tmp_path / "found", truth, labels="brats2021")
    said = "brats2021, 2 cases (1 of them without a prediction, scored as worst; 1 more failed and enter no mean)"
    for name, first in (("t.md", f"{said}."), ("t.tex", f"\\caption{{{said}.}}")):
        found.save(tmp_path / name)
        assert first in (tmp_path / name).read_text("utf-8").splitlines()
    assert str(found).startswith(f"{said}: mean")
    assert replace(found, problems=(), missing=()).remark() == ""


def test_exchanged_prediction_and_truth_are_noticed(truth: Path, tmp_path: Path) -> None:
    """The JSON that `predict` writes lies beside the truth and not beside the prediction."""
    predicted = write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"), "brats2021")
    beside = predicted.with_name(f"{ONE}.json")
    facts = json.loads(beside.read_text()) | {"model": "m", "volumes_ml": {}, "versions": {}}
    beside.write_text(json.dumps(facts))
    true = truth / ONE / f"{ONE}_seg.nii.gz"
    assert "exchanged" in str(evaluate(true, predicted).notes)
    assert "exchanged" not in str(evaluate(predicted, true).notes)
    assert "exchanged" not in str(evaluate(predicted, predicted).notes)


def test_scores_never_replace_the_record_of_a_mask(tmp_path: Path) -> None:
    """`evaluate -o CASE.json` in the folder of the masks; other JSON files are replaced as ever."""
    record, other = tmp_path / "case.json", tmp_path / "scores.json"
    record.write_text(json.dumps({"model": "m", "volumes_ml": {}, "versions": {}}))
    other.write_text("{}")
    refuse_records([other, tmp_path / "new.csv"])
    with pytest.raises(InputError, match=r"case\.json: predict wrote this file"):
        refuse_records([other, record])


def test_a_summary_prints_as_a_table(truth: Path) -> None:
    """It is a list of dicts with every statistic, and printed as the part of `print(scores)` below its first line."""
    found = evaluate(truth, truth)
    assert isinstance(found.summary(), list)
    assert str(found.summary()) == str(found).split("\n", 1)[1]


def test_a_mask_with_its_axes_in_another_order_has_the_same_scores(tmp_path: Path) -> None:
    """It lies on the same grid once it is reoriented, which changes no voxel."""
    write_mask(tmp_path / "truth" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    shifted = mask_of(1, convention="brats2021", shift=2)
    plain = write_mask(tmp_path / "plain" / f"{ONE}.nii.gz", shifted)
    turned = write_mask(tmp_path / "turned" / f"{ONE}.nii.gz", reorient(shifted, "SRP"))
    assert evaluate(turned, tmp_path / "truth").scores == evaluate(plain, tmp_path / "truth").scores


def test_labels_with_rounding_noise_are_those_without(tmp_path: Path) -> None:
    """A mask stored as floats, such as 3.0000001, has the scores of the mask in whole numbers; 3.4 is refused."""
    mask = mask_of(1, convention="brats2021")
    truth = write_mask(tmp_path / "truth" / f"{ONE}.nii.gz", mask)
    noisy = Volume(mask.data.astype(np.float32) * np.float32(1.00001), mask.affine)
    found = evaluate(write_mask(tmp_path / "noisy" / f"{ONE}.nii.gz", noisy), truth)
    assert dice_of(found, ONE) == dict.fromkeys(("WT", "TC", "ET"), 1.0)
    between = Volume(mask.data.astype(np.float32) * np.float32(1.1), mask.affine)
    found = evaluate(write_mask(tmp_path / "between" / f"{ONE}.nii.gz", between), truth)
    assert "whole numbers" in str(found.problems[0])


ODD_NAMES = ("=1+1", "+a", "-b", "@c", "'=d", "\x1b[31mred", "caf\udce9", "tab\tbed", "a\\x41", "$^$")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow fewer names")
def test_odd_ids_are_written_as_text_and_read_back(tmp_path: Path) -> None:
    """CSV and JSON are valid UTF-8, hold no formula and no control character, and give the same ids when read back."""
    for name in ODD_NAMES:
        write_mask(tmp_path / "masks" / f"{name}.nii", mask_of(1, convention="brats2021"))
    found = evaluate(tmp_path / "masks", tmp_path / "masks", labels="brats2021", truth_labels="brats2021")
    assert set(found.scores) == set(ODD_NAMES)
    for ending in ("csv", "json"):
        path = tmp_path / f"scores.{ending}"
        found.save(path)
        text = path.read_text("utf-8")
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        assert not re.search(r'(^|[,"])[=+@]', text) or ending == "json"
        assert set(read_score_table(path).scores) == set(ODD_NAMES)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_survives_a_cell(text: str) -> None:
    """The cell is valid UTF-8, is no formula, has no control character, and gives the text back."""
    (row,) = list(csv.DictReader(io.StringIO(csv_text(["id", "n"], [{"id": text, "n": 1.5}]), newline="")))
    assert row["n"] == "1.500000"
    assert row["id"].isprintable() or not text.isprintable()
    assert not row["id"].startswith(tuple("=+-@"))
    row["id"].encode("utf-8")
    assert cell_text(row["id"]) == text


def test_a_folder_that_cannot_be_read_is_a_problem_and_its_case_is_not_missing(
    truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its prediction is not extra, and it is not scored as the worst: whether it was segmented is not known."""
    for case in (ONE, TWO, THREE):
        write_mask(tmp_path / "found" / f"{case}.nii.gz", mask_of(1, convention="brats2021"))
    scandir = os.scandir

    def refuse_two(path: os.PathLike[str]) -> object:
        if Path(path).name == TWO:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_two)
    for found in (evaluate(tmp_path / "found", truth), compare_protocols(tmp_path / "found", truth)):
        assert [str(problem) for problem in found.problems] == [
            f"{truth / TWO}: the folder cannot be read: Permission denied."
        ]
    assert sorted(evaluate(tmp_path / "found", truth).scores) == [ONE, THREE]


def test_parquet_scores_are_those_of_the_csv_file(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """One row for each case and region; an undefined score is null."""
    pytest.importorskip("pyarrow")
    truth = folder_of(count=2)
    found = evaluate(truth, truth, protocol="brats2023-gli")
    found.save(tmp_path / "scores.csv")
    found.save(tmp_path / "scores.parquet")
    columns, rows = read_parquet(tmp_path / "scores.parquet")
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert columns == list(lines[0])
    for row, line in zip(rows, lines, strict=True):
        for name, value in row.items():
            if isinstance(value, str):
                assert line[name] == value
            elif value is None:
                assert line[name] == "nan"
            else:
                assert float(line[name]) == pytest.approx(value, abs=1e-6)
