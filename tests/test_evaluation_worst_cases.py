"""The worst cases: their selection, order, mistakes, and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import find_cases
from gliomask.evaluation import evaluate, find_worst
from gliomask.volume import Volume, read_volume, write_volume

ONE, TWO, THREE, FOUR = (f"BraTS2021_0000{number}" for number in (1, 2, 3, 4))


@pytest.fixture
def places(folder_of: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """Four cases whose predictions are perfect, shifted by two voxels, with ET and NCR swapped, and missing."""
    data = folder_of(4)
    for case in find_cases(data):
        assert case.mask is not None
        mask = read_volume(case.mask, mask=True)
        labels = mask.data.copy()
        if case.id == TWO:
            labels = np.roll(labels, 2, 1)
        if case.id == THREE:
            labels = np.array([0, 4, 2, 3, 1], np.uint8)[labels]
        if case.id != FOUR:
            write_volume(tmp_path / "found" / f"{case.id}.nii.gz", Volume(labels, mask.affine))
    return tmp_path / "found", data


def test_the_worst_come_first_with_their_reason(places) -> None:
    """Neither the perfect case nor the missing one is among them."""
    found = evaluate(*places)
    worst = find_worst(found, *places)
    reasons = {finding.case: finding.mistakes[0].kind for finding in worst}
    assert reasons == {TWO: "shifted", THREE: "ET/NCR swapped"}
    means = [np.mean(list(finding.dice.values())) for finding in worst]
    assert means == sorted(means)
    assert [finding.case for finding in find_worst(found, *places, count=1)] == [worst[0].case]


def test_the_image_is_that_of_the_region(places) -> None:
    """ET is shown on T1 with contrast; image and masks are on one grid, and the masks differ at the place."""
    by_case = {finding.case: finding for finding in find_worst(evaluate(*places), *places)}
    swapped = by_case[THREE]
    assert swapped.sequence == "t1c"
    assert swapped.image is not None
    assert swapped.image.shape == swapped.truth.shape == swapped.prediction.shape
    assert swapped.truth[swapped.mistakes[0].place] != swapped.prediction[swapped.mistakes[0].place]
    case = next(case for case in find_cases(places[1]) if case.id == THREE)
    assert np.array_equal(swapped.image, read_volume(case.images["t1c"].path).data[0])


def test_masks_alone_are_shown_alone(places, tmp_path: Path) -> None:
    """If an image is damaged or on another grid, the next sequence is used; without any there is no error."""
    prediction, data = places
    image = data / THREE / f"{THREE}_t1ce.nii.gz"
    volume = read_volume(image)
    for spoil in (
        lambda: write_volume(image, replace(volume, data=volume.data[:, 1:])),
        lambda: image.write_bytes(b"no NIfTI"),
    ):
        spoil()
        by_case = {finding.case: finding for finding in find_worst(evaluate(*places), *places)}
        assert by_case[THREE].sequence == "t2f"
    for case in find_cases(data):
        assert case.mask is not None
        write_volume(tmp_path / "masks" / f"{case.id}.nii.gz", read_volume(case.mask, mask=True))
    sides = (prediction, tmp_path / "masks")
    assert {finding.image is None for finding in find_worst(evaluate(*sides), *sides)} == {True}


def test_one_mask_against_one_case(places) -> None:
    """For two files, the image is found beside the truth."""
    sides = (places[0] / f"{TWO}.nii.gz", places[1] / TWO / f"{TWO}_seg.nii.gz")
    (finding,) = find_worst(evaluate(*sides), *sides)
    assert finding.case == TWO
    assert finding.image is not None


def test_the_command_draws_them_all(gliomask, places, tmp_path: Path) -> None:
    """The command writes three pictures and prints the mistakes, for any protocol."""
    folder = tmp_path / "pictures"
    words = ("--pictures", folder, "--compare-protocols", "--protocol", "brats2023-gli")
    status, said = gliomask("evaluate", *places, *words)
    assert status == 0, said
    assert sorted(path.name for path in folder.iterdir()) == ["scores.png", "volumes.png", "worst.png"]
    assert min(path.stat().st_size for path in folder.iterdir()) > 5000
    assert f"{THREE}: ET and NCR swapped" in said
    assert f"{TWO}: " in said
    assert ONE not in said.partition("pictures: ")[2]
