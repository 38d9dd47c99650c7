"""Evaluation: every prediction meets its own truth, in whatever numbers each uses, and nothing is left out unsaid."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import Case, get_layout
from gliomask.errors import InputError
from gliomask.evaluation import Evaluation, Pair, evaluate, find_pairs
from gliomask.labels import convert_labels, get_convention
from gliomask.metrics import PROTOCOLS
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
    """Three cases of BraTS 2021, masks alone."""
    for number, case in enumerate((ONE, TWO, THREE), 1):
        write_mask(tmp_path / "truth" / case / f"{case}_seg.nii.gz", mask_of(number, convention="brats2021"))
    return tmp_path / "truth"


def test_two_files_are_a_pair_whatever_they_are_called(tmp_path: Path) -> None:
    """The case takes the truth's id; nothing is noted."""
    prediction = write_mask(tmp_path / "out.nii", mask_of(1, convention="brats2021"))
    truth = write_mask(tmp_path / f"{ONE}_seg.nii.gz", mask_of(1, convention="brats2021"))
    assert find_pairs(prediction, truth) == ([Pair(ONE, prediction, truth)], ())
    assert dice_of(evaluate(prediction, truth), ONE) == TRUTH_DICE


@pytest.mark.parametrize("name", ["{id}.nii.gz", "{id}.nii", "{id}.NII.GZ", "{id}_seg.nii.gz", "{id}/{id}_seg.nii"])
def test_predictions_meet_their_truth_by_id(truth: Path, tmp_path: Path, name: str) -> None:
    """By their id alone, with `_seg`, in folders of their own, packed or not, each meets the case of its id."""
    masks = {case: tmp_path / "found" / name.format(id=case) for case in (TWO, ONE, THREE)}
    for path in masks.values():
        write_mask(path, mask_of(0, convention="brats2021"))
    pairs, notes = find_pairs(tmp_path / "found", truth)
    assert pairs == [Pair(case, masks[case], truth / case / f"{case}_seg.nii.gz") for case in (ONE, TWO, THREE)]
    assert notes == ()


def test_one_file_meets_its_case_in_a_folder(truth: Path, tmp_path: Path) -> None:
    """A single prediction against the whole data: its case is scored, the others are noted."""
    prediction = write_mask(tmp_path / f"{TWO}.nii.gz", mask_of(2, convention="brats2021"))
    pairs, notes = find_pairs(prediction, truth)
    assert [pair.id for pair in pairs] == [TWO]
    assert [note.where for note in notes] == [ONE, THREE]


def test_the_masks_of_case_folders_are_taken_and_no_image(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """A folder as downloaded, images and all, is scored against itself: perfect, one mask a case."""
    data = folder_of(2)
    found = evaluate(data, data)
    assert sorted(found.scores) == [ONE, TWO]
    assert dice_of(found, ONE) == dice_of(found, TWO) == TRUTH_DICE
    assert found.problems == found.notes == ()


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_masks_are_found_in_labels_tr(write_case: Callable[..., Case], tmp_path: Path, layout: str) -> None:
    """Of a folder with imagesTr and labelsTr the labels alone are masks; what macOS leaves in MSD's archive is none."""
    case = write_case(layout)
    assert case.mask is not None
    (case.mask.parent / f"._{case.mask.name}").write_bytes(b"Mac OS X")
    prediction = write_mask(tmp_path / "found" / f"{case.id}.nii.gz", read_volume(case.mask, mask=True))
    pairs, notes = find_pairs(prediction.parent, tmp_path / "data")
    assert pairs == [Pair(case.id, prediction, case.mask)]
    assert notes == ()
    assert dice_of(evaluate(prediction.parent, tmp_path / "data", labels="msd", truth_labels="msd"), case.id) == (
        TRUTH_DICE
    )


@pytest.mark.parametrize("layout", ["brats2017", "brats2019", "brats2020", "brats2021", "brats2023", "brats2024"])
def test_the_ids_of_brats_tell_their_numbers(folder_of: Callable[..., Path], tmp_path: Path, layout: str) -> None:
    """Truth and predictions named as a year names them are read in that year's numbers, without being told."""
    data = folder_of(1, layout)
    (mask,) = data.rglob("*seg*")
    case = find_pairs(data, data)[0][0].id
    year = get_convention(get_layout(layout).convention or "")
    tissues = convert_labels(read_volume(mask, mask=True).data, year, get_convention("msd"), "here")
    write_mask(tmp_path / "found" / f"{case}.nii.gz", Volume(tissues, read_volume(mask).affine), told="msd")
    assert dice_of(evaluate(tmp_path / "found", data), case) == TRUTH_DICE


@pytest.mark.parametrize("numbers", ["brats2023", "brats2024", "msd", "brats2024-ped"])
def test_the_json_beside_a_prediction_tells_its_numbers(truth: Path, tmp_path: Path, numbers: str) -> None:
    """The same tissues in other numbers than the truth's are the same tissues: Dice 1, HD95 0."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention=numbers), told=numbers)
    found = evaluate(tmp_path / "found", truth)
    assert dice_of(found, ONE) == TRUTH_DICE
    assert {scores["hd95_pooled_mm"] for scores in found.scores[ONE].values()} == {0.0}


def test_asked_for_numbers_stand_over_what_the_json_tells(truth: Path, tmp_path: Path) -> None:
    """`labels` is for the predictions alone, and for all of them; without it and without JSON the id is believed."""
    path = write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2023"), told="msd")
    assert dice_of(evaluate(path.parent, truth, labels="brats2023"), ONE) == TRUTH_DICE
    assert dice_of(evaluate(path.parent, truth), ONE)["TC"] < 1
    path.with_name(f"{ONE}.json").unlink()
    (problem,) = evaluate(path.parent, truth).problems
    assert problem.where == ONE
    assert f"{path}: labels {{3}} are not in brats2021" in problem.what


def test_the_truths_numbers_can_be_told(tmp_path: Path) -> None:
    """Truth of no known name in MSD's numbers, predictions in those of 2023: each side is told its own."""
    prediction = write_mask(tmp_path / "found" / "a.nii.gz", mask_of(1, convention="brats2023"))
    truth = write_mask(tmp_path / "truth" / "a.nii.gz", mask_of(1, convention="msd"))
    found = evaluate(prediction.parent, truth.parent, labels="brats2023", truth_labels="msd")
    assert dice_of(found, "a") == TRUTH_DICE


def test_what_the_numbers_alone_cannot_tell_is_refused(tmp_path: Path) -> None:
    """{1, 2, 3} under a name of no layout: the conventions that would fit are named, and the way out."""
    for side in ("found", "truth"):
        write_mask(tmp_path / side / "patient.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=r"patient\.nii\.gz: .* ambiguous: brats2023 .* msd .*--labels"):
        evaluate(tmp_path / "found", tmp_path / "truth")


def test_all_masks_together_prove_their_numbers(tmp_path: Path) -> None:
    """A case without enhancing tumour is read like its neighbours, whose 4 proves BraTS 2021."""
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
    """Nothing on either side is all right: Dice 1, HD95 0."""
    empty = replace(mask_of(1), data=np.zeros((1, 16, 18, 14), np.uint8))
    for side in ("found", "truth"):
        write_mask(tmp_path / side / "a.nii.gz", empty)
    scores = evaluate(tmp_path / "found", tmp_path / "truth").scores["a"]
    assert all((s["dice"], s["hd95_pooled_mm"], s["sensitivity"]) == (1, 0, 1) for s in scores.values())


def test_a_json_with_an_unknown_convention_is_named(truth: Path, tmp_path: Path) -> None:
    """The file and the nearest known name are in the message."""
    path = write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1), told="brats2032")
    with pytest.raises(InputError, match=rf"{ONE}\.json: unknown label convention 'brats2032'; did you mean"):
        evaluate(path.parent, truth)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"labels": 3}', '{"labels": {"convention": [1, 2]}}'])
def test_any_other_json_beside_a_mask_tells_nothing(truth: Path, tmp_path: Path, content: str) -> None:
    """Cut, empty, or of another make: the id decides, as if it were not there."""
    path = write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    path.with_name(f"{ONE}.json").write_text(content)
    assert dice_of(evaluate(path.parent, truth), ONE) == TRUTH_DICE


def test_cases_on_one_side_are_noted_and_in_no_mean(truth: Path, tmp_path: Path) -> None:
    """A missing prediction and a missing truth are both said, and the mean is that of the pairs."""
    other = "BraTS2021_01666"
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    write_mask(tmp_path / "found" / f"{other}.nii.gz", mask_of(1, convention="brats2021", radius=4))
    found = evaluate(tmp_path / "found", truth)
    assert {note.where: note.what for note in found.notes} == {
        TWO: "has no prediction, and is not scored",
        THREE: "has no prediction, and is not scored",
        other: "has no truth, and is not scored",
    }
    assert [(row["cases"], row["dice_mean"]) for row in found.summary()] == [(1, 1.0)] * 3
    assert found.problems == ()


@pytest.mark.parametrize("names", [(ONE, TWO, THREE), ("a", "b", "c")], ids=["BraTS names", "any names"])
@pytest.mark.parametrize("side", ["found", "truth"])
def test_a_damaged_case_is_told_and_the_others_are_scored(tmp_path: Path, names: tuple[str, ...], side: str) -> None:
    """A mask cut short on either side costs its own case alone, and no mean."""
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
        pytest.param(lambda v: reorient(v, "RPS"), "orientation LPS and RPS", id="orientation"),
        pytest.param(lambda v: replace(v, affine=v.affine * [[1], [1], [1.5], [1]]), "spacing", id="spacing"),
        pytest.param(
            lambda v: replace(v, affine=v.affine + np.array([[0, 0, 0, 5], *[[0] * 4] * 3])), "origin", id="origin"
        ),
    ],
)
def test_another_grid_is_a_problem(
    truth: Path, tmp_path: Path, change: Callable[[Volume], Volume], message: str
) -> None:
    """Voxels of different grids are never compared; both files and the difference are named."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    moved = write_mask(tmp_path / "found" / f"{TWO}.nii.gz", change(mask_of(2, convention="brats2021")))
    found = evaluate(tmp_path / "found", truth)
    assert list(found.scores) == [ONE]
    (problem,) = found.problems
    assert problem.where == TWO
    assert all(part in problem.what for part in (str(moved), f"{TWO}_seg.nii.gz", message))


def test_two_masks_of_one_id_are_refused(truth: Path, tmp_path: Path) -> None:
    """Which of them counts is not guessed: both files are named."""
    write_mask(tmp_path / "found" / f"{ONE}.nii", mask_of(1))
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=rf"two masks for {ONE}: .*{ONE}\.nii and .*{ONE}\.nii\.gz\. Remove one"):
        evaluate(tmp_path / "found", truth)


def test_nothing_in_common_is_refused_with_examples(truth: Path, tmp_path: Path) -> None:
    """The ids of both sides are shown, so that the difference is seen."""
    write_mask(tmp_path / "found" / "patient7.nii.gz", mask_of(1))
    with pytest.raises(InputError, match=rf"no mask in .* same id .*patient7 and {ONE}, {TWO}"):
        evaluate(tmp_path / "found", truth)


@pytest.mark.parametrize(("place", "message"), [("nowhere", "no such file or folder"), ("empty", "no mask found")])
def test_places_without_masks_are_refused(truth: Path, tmp_path: Path, place: str, message: str) -> None:
    """A folder that is not there, and one with images alone, on either side."""
    (tmp_path / "empty").mkdir()
    write_volume(tmp_path / "empty" / f"{ONE}_flair.nii.gz", mask_of(1))
    for sides in ((tmp_path / place, truth), (truth, tmp_path / place)):
        with pytest.raises(InputError, match=rf"{place}: {message}"):
            evaluate(*sides)


def test_unknown_names_are_refused_with_a_hint(truth: Path) -> None:
    """Protocol and conventions alike, before any file is read."""
    with pytest.raises(InputError, match="unknown protocol 'brats2012'; did you mean 'brats2021'"):
        evaluate(truth, truth, protocol="brats2012")
    with pytest.raises(InputError, match="unknown label convention 'brats2032'; did you mean"):
        evaluate(truth, truth, labels="brats2032")
    with pytest.raises(InputError, match="unknown label convention 'mds'; did you mean 'msd'"):
        evaluate(truth, truth, truth_labels="mds")


def test_probabilities_are_no_masks(truth: Path, tmp_path: Path) -> None:
    """The 4-D file that predict writes beside a mask is neither a second mask of the case nor a case of its own."""
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    channels = Volume(np.full((3, 16, 18, 14), 0.5, np.float32), mask_of(1).affine)
    write_volume(tmp_path / "found" / f"{ONE}_probabilities.nii.gz", channels)
    found = evaluate(tmp_path / "found", truth)
    assert list(found.scores) == [ONE]
    assert [note.where for note in found.notes] == [TWO, THREE]


def test_scores_are_in_millimetres_of_the_truths_grid(tmp_path: Path) -> None:
    """A tumour moved by one voxel along X and one twice as thick along Z are measured by their voxels' size."""
    truth = mask_of(0, convention="brats2021")
    along_z = np.roll(truth.data, 1, axis=3)
    for name, mask in (("x", mask_of(1, convention="brats2021", shift=1)), ("z", replace(truth, data=along_z))):
        write_mask(tmp_path / "found" / f"{name}.nii.gz", mask)
        write_mask(tmp_path / "truth" / f"{name}.nii.gz", truth)
    found = evaluate(tmp_path / "found", tmp_path / "truth")
    assert found.scores["x"]["WT"]["hd95_pooled_mm"] == 1
    assert found.scores["z"]["WT"]["hd95_pooled_mm"] == 2


def evaluation_of(*dices: float) -> Evaluation:
    """Return an evaluation of made-up cases; HD95 is ten times what Dice lacks."""
    protocol = PROTOCOLS["brats2021"]
    scores = {
        f"case{number}": {
            region: {"dice": dice, "hd95_pooled_mm": 10 * (1 - dice), "sensitivity": dice, "specificity": 1.0}
            for region in protocol.regions
        }
        for number, dice in reversed(list(enumerate(dices)))
    }
    return Evaluation(protocol, scores, ())


def test_the_summary_is_that_of_the_hand() -> None:
    """Mean, sample standard deviation and median over the cases, for each region in the protocol's order."""
    dices = [0.9, 0.5, 0.7, 0.1]
    table = evaluation_of(*dices).summary()
    assert [row["region"] for row in table] == ["WT", "TC", "ET"]
    for row in table:
        assert row["cases"] == 4
        assert row["dice_mean"] == pytest.approx(0.55)
        assert row["dice_std"] == pytest.approx(statistics.stdev(dices))
        assert row["dice_median"] == pytest.approx(0.6)
        assert row["hd95_pooled_mm_mean"] == pytest.approx(4.5)
        assert row["specificity_std"] == 0


def test_the_summary_of_one_case_and_of_none() -> None:
    """One case has no spread; without a case there is no row, and no mean of nothing."""
    assert [(row["cases"], row["dice_mean"], row["dice_std"]) for row in evaluation_of(0.5).summary()] == (
        [(1, 0.5, 0.0)] * 3
    )
    assert evaluation_of().summary() == evaluation_of().rows() == []


def test_the_csv_holds_every_score_and_its_protocol(tmp_path: Path) -> None:
    """A row a case and region, sorted, each with the protocol's name; read back, the numbers are the same."""
    found = evaluation_of(0.123456, 2 / 3)
    found.save(tmp_path / "new" / "scores.csv")
    with (tmp_path / "new" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["protocol", "case", "region", "dice", "hd95_pooled_mm", "sensitivity", "specificity"]
    assert {row["protocol"] for row in rows} == {"brats2021"}
    assert [(row["case"], row["region"]) for row in rows] == [
        (case, region) for case in ("case0", "case1") for region in ("WT", "TC", "ET")
    ]
    for row, (dice, distance) in zip(rows, [(0.123456, 8.76544)] * 3 + [(2 / 3, 10 / 3)] * 3, strict=True):
        assert float(row["dice"]) == pytest.approx(dice, abs=5e-7)
        assert float(row["hd95_pooled_mm"]) == pytest.approx(distance, abs=5e-7)


def test_a_csv_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A file where a folder is needed: an InputError that names the place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*scores\.csv"):
        evaluation_of(1.0).save(tmp_path / "file" / "scores.csv")


def test_when_no_case_can_be_scored_nothing_breaks(tmp_path: Path) -> None:
    """Every prediction on another grid: problems, no row, and a CSV with its head alone."""
    write_mask(tmp_path / "truth" / f"{ONE}.nii.gz", mask_of(1, convention="brats2021"))
    write_mask(tmp_path / "found" / f"{ONE}.nii.gz", reorient(mask_of(1, convention="brats2021"), "RAS"))
    found = evaluate(tmp_path / "found", tmp_path / "truth")
    assert [problem.where for problem in found.problems] == [ONE]
    assert found.summary() == []
    found.save(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "protocol,case,region,dice,hd95_pooled_mm,sensitivity,specificity"
    ]
