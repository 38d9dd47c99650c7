"""gliomask evaluate: its output, files and exit status."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gliomask.cases import find_cases
from gliomask.metrics import PROTOCOLS
from gliomask.volume import Volume, read_volume, write_volume

ONE, TWO, THREE = "BraTS2021_00001", "BraTS2021_00002", "BraTS2021_00003"


@pytest.fixture
def evaluate(gliomask: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, str]]:
    """Run the command in 80 columns."""
    return partial(gliomask, "evaluate", columns=80)


@pytest.fixture
def places(folder_of: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """Predictions of three cases, equal to the truth except for a distant voxel in the second; and the cases."""
    data = folder_of(3)
    for case in find_cases(data):
        assert case.mask is not None
        mask = read_volume(case.mask, mask=True)
        labels = mask.data.copy()
        if case.id == TWO:
            labels[0, 0, 0, 0] = 4
        write_volume(tmp_path / "found" / f"{case.id}.nii.gz", Volume(labels, mask.affine))
    return tmp_path / "found", data


def test_corrected_masks_are_scored_only_if_asked_for(evaluate, places, tmp_path: Path) -> None:
    """The output says which masks were scored; a correction without its prediction is scored for its case."""
    found, data = places
    good = read_volume(next(case.mask for case in find_cases(data) if case.id == TWO and case.mask), mask=True)
    write_volume(found / f"{TWO}_edited.nii.gz", good)
    table = tmp_path / "s.json"

    def false_pieces() -> float:
        rows = json.loads(table.read_text())["cases"]
        return float(sum(row["lesion_fp"] for row in rows if row["case"] == TWO))

    words = ("--protocol", "brats2023-gli", "-o", table)
    status, said = evaluate(*places, *words)
    assert (status, false_pieces() > 0) == (0, True), said
    assert f"the corrected masks of {TWO} are not scored" in " ".join(said.split())
    status, said = evaluate(*places, *words, "--edited")
    assert (status, false_pieces()) == (0, 0), said
    assert f"the corrected masks are scored: {TWO}; of 2 other" in " ".join(said.split())
    status, said = evaluate(*places, "--compare-protocols", "--edited")
    assert (status, "the corrected masks are scored" in " ".join(said.split())) == (0, True)
    (found / f"{TWO}.nii.gz").unlink()
    status, said = evaluate(*places, *words)
    assert (status, false_pieces()) == (0, 0), said
    assert f"only the corrected masks are there, and are scored, of {TWO}" in " ".join(said.split())
    status, said = evaluate(found / f"{TWO}_edited.nii.gz", data)
    assert status == 0, said
    (found / f"{TWO}_edited.nii.gz").unlink()
    status, said = evaluate(*places, "--edited")
    assert (status, "no corrected mask" in said) == (2, True)


def test_predictions_within_the_folder_of_the_truth_are_no_truth(evaluate, places) -> None:
    """A case without a true mask is not scored against its own prediction."""
    found, data = places
    found = found.rename(data / "masks")
    for case in find_cases(data):
        if case.id == THREE and case.mask:
            case.mask.unlink()
    status, said = evaluate(found, data)
    assert (status, f"1 prediction has no truth in {data}: {THREE}" in " ".join(said.split())) == (2, True), said
    status, said = evaluate(found, data, "--ignore-extra")
    assert (status, "brats2021, 2 cases" in said, "passed over" in said) == (0, True, False), said
    status, said = evaluate(data, found)  # exchanged
    assert (status, "without a prediction, scored as worst: 1" in said) == (0, True), said


def test_masks_that_are_compared_with_themselves_are_said(evaluate, places, tmp_path: Path) -> None:
    """The scores are perfect then, and say nothing."""
    found, data = places
    rows = [f"{ONE},{found}/{ONE}.nii.gz", *(f"{case.id},{case.mask}" for case in find_cases(data)[1:])]
    (tmp_path / "truth.csv").write_text("\n".join(["id,mask", *rows]))
    for truth, text in ((tmp_path / "truth.csv", "in 1 of 3 cases"), (found, "in 3 of 3 cases")):
        status, said = evaluate(found, truth)
        assert (status, f"is the same file as the prediction {text}" in " ".join(said.split())) == (0, True), said
    assert "is the same file" not in evaluate(*places)[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_prints_its_own_scores(evaluate, places, protocol: str) -> None:
    """The first line names the protocol; each region has the protocol's headline scores, within 80 columns."""
    status, said = evaluate(*places, "--protocol", protocol)
    assert status == 0, said
    lines = [line for line in said.splitlines() if not line.startswith("warning")]
    assert lines[0] == f"{protocol}, 3 cases"
    assert {line.split()[0] for line in lines[2:]} >= {*PROTOCOLS[protocol].regions, *PROTOCOLS[protocol].headline[1:]}
    assert max(map(len, lines)) <= 80


def test_csv_and_json_are_written_together(evaluate, places, tmp_path: Path) -> None:
    """Both formats are written, and both contain the score of the stray voxel."""
    status, said = evaluate(*places, "--protocol", "brats2023-gli", "-o", tmp_path / "s.csv", "-o", tmp_path / "s.json")
    assert status == 0, said
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert {row["lesion_fp"] for row in rows if row["case"] == TWO} == {"1"}
    content = json.loads((tmp_path / "s.json").read_text())
    assert [row["lesion_fp_mean"] for row in content["summary"]] == [pytest.approx(1 / 3)] * 3


def test_a_list_of_masks_is_not_replaced_by_the_scores(evaluate, places, tmp_path: Path) -> None:
    """The output must not be a file of the input."""
    found, data = places
    rows = [f"{case.id},{case.mask}" for case in find_cases(data)]
    (tmp_path / "list.csv").write_text(text := "\n".join(["id,mask", *rows]))
    for words in ((found, tmp_path / "list.csv"), (tmp_path / "list.csv", data)):
        status, said = evaluate(*words, "-o", tmp_path / "list.csv")
        assert (status, "is a file of the input" in " ".join(said.split())) == (2, True), said
        assert (tmp_path / "list.csv").read_text() == text


def test_an_unknown_convention_beside_a_mask_fails_its_case_only(evaluate, places) -> None:
    """The other cases are scored; a single case is refused."""
    found, data = places
    (found / f"{ONE}.json").write_text(json.dumps({"case": ONE, "labels": {"convention": "brats2022"}}))
    status, said = evaluate(found, data)
    said = " ".join(said.split())
    assert (status, "1 failed, 2 done" in said, f"{ONE}: " in said) == (1, True, True), said
    assert "unknown label convention 'brats2022'" in said
    assert ".." not in said
    assert "without a prediction" not in said
    status, said = evaluate(found / f"{ONE}.nii.gz", data)
    assert (status, "unknown label convention" in " ".join(said.split())) == (2, True), said


def test_a_missing_prediction_is_named(evaluate, places) -> None:
    """A missing case is scored as worst, which is printed twice, and the status is 0."""
    (places[0] / f"{THREE}.nii.gz").unlink()
    status, said = evaluate(*places)
    assert status == 0, said
    assert f"without a prediction, scored as worst: 1 ({THREE})" in said.replace("\n", " ")
    assert "3 cases (1 of them without a prediction, scored as worst)" in said
    assert "0.667" in said


def test_an_extra_prediction_is_refused_or_left_aside(evaluate, places) -> None:
    """The status is 2 and the option is named; with the option, the case is noted and the others are scored."""
    write_volume(places[0] / "BraTS2021_00009.nii.gz", read_volume(places[0] / f"{ONE}.nii.gz", mask=True))
    status, said = evaluate(*places)
    assert status == 2
    assert "BraTS2021_00009" in said
    assert "--ignore-extra" in said
    status, said = evaluate(*places, "--ignore-extra")
    assert status == 0
    assert "BraTS2021_00009: has no truth and was skipped" in said
    assert "brats2021, 3 cases" in said


@pytest.mark.parametrize("flags", [(), ("--compare-protocols",)])
def test_a_case_that_fails_is_named_and_the_status_is_1(evaluate, places, flags: tuple[str, ...]) -> None:
    """For a damaged prediction, the others are scored; the heading counts it and the last lines name it."""
    path = places[0] / f"{ONE}.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    status, said = evaluate(*places, *flags)
    assert status == 1
    assert "2 cases (1 more failed and enter no mean)" in said.replace("\n", " ")
    assert "1 failed, 2 done:" in said
    assert str(path) in said.replace("\n", "")


def test_all_years_side_by_side(evaluate, places, tmp_path: Path) -> None:
    """Each region has one row per protocol, with the reason and the case where they differ; files are written."""
    picture = tmp_path / "scores.png"
    status, said = evaluate(*places, "--compare-protocols", "-o", tmp_path / "all.csv", "--picture", picture)
    assert status == 0, said
    text = said[: said.index("where they disagree")]
    for name in ("brats2021", "brats2023-gli", "brats2024-gli", "brats2026-gli"):
        assert text.count(f" {name} ") >= 3
    assert f"stray piece, 1 case, such as WT of {TWO}:" in said
    assert "1 component of 1 voxel predicted where the truth has no voxel" in said
    assert "brats2023-gli 0.500, brats2024-gli 1.000" in said
    assert max(len(line) for line in text.splitlines()) <= 80
    assert picture.stat().st_size > 5000


def test_years_that_agree_say_so(evaluate, places) -> None:
    """For one perfect case, no reason is printed."""
    status, said = evaluate(
        places[0] / f"{ONE}.nii.gz", places[1], "--compare-protocols", "--protocol", "brats2023-men"
    )
    assert status == 0
    assert "the protocols agree in every case" in said
    assert "brats2024-men" in said
    assert "brats2024-gli" not in said
