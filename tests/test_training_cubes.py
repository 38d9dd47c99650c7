"""Crops: cubes of one size, with a record of what they cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import AFFINE, SHAPE, nested_ellipsoids
from gliomask.cases import Case, find_cases
from gliomask.inference.preprocessing import common_spacing
from gliomask.model.plan import Plan
from gliomask.training.cubes import central_cube, write_crops
from gliomask.volume import Volume, write_volume


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return find_cases(folder_of(2))


def plan_for(cases: list[Case], *modalities: str) -> Plan:
    return Plan(modalities=modalities or ("t2f", "t1c"), spacing_mm=common_spacing(cases, "LPS"))


@pytest.mark.parametrize("edge", [12, 20, 32])
def test_each_case_is_a_cube_with_its_mask(cases: list[Case], tmp_path: Path, edge: int) -> None:
    """Images `(edge, edge, edge, C)` in 0 to 1, masks with 1 NCR, 2 ED, 3 ET, cut at the place that is reported."""
    crops, problems = write_crops(cases, tmp_path / "crops", plan_for(cases), edge)
    assert problems == []
    assert [crop.id for crop in crops] == [case.id for case in cases]
    for number, crop in enumerate(crops, 1):
        image = np.load(tmp_path / "crops" / f"{crop.id}_image.npy")
        mask = np.load(tmp_path / "crops" / f"{crop.id}_mask.npy")
        assert (image.shape, image.dtype) == ((edge, edge, edge, 2), np.float32)
        assert (mask.shape, mask.dtype) == ((edge, edge, edge), np.uint8)
        images, tissues = nested_ellipsoids(number)
        start, size = np.array(crop.start), np.minimum(edge, SHAPE)
        cut = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        inner = tuple(slice((edge - n) // 2, (edge - n) // 2 + n) for n in size)
        np.testing.assert_array_equal(mask[inner], tissues[cut])
        for channel, modality in enumerate(("t2f", "t1c")):
            scaled = images[modality] / images[modality].max()
            np.testing.assert_allclose(image[(*inner, channel)], scaled[cut], atol=1e-6)


def test_a_small_volume_is_padded_with_zeros(cases: list[Case], tmp_path: Path) -> None:
    """On both sides; an odd voxel is added at the end, and nothing is cut off."""
    crops, _ = write_crops(cases[:1], tmp_path / "crops", plan_for(cases), 31)
    image = np.load(tmp_path / "crops" / f"{crops[0].id}_image.npy")
    assert crops[0].start == (0, 0, 0)
    assert (crops[0].tumour_cut, crops[0].brain_cut) == (0, 0)
    outside = np.ones((31, 31, 31), bool)
    outside[3:27, 1:29, 5:25] = False  # 31 - 24 = 3 + 4, 31 - 28 = 1 + 2, 31 - 20 = 5 + 6
    assert not image[outside].any()
    assert np.count_nonzero(image[..., 0]) == np.count_nonzero(nested_ellipsoids(1)[0]["t2f"])


def test_the_fractions_cut_off_are_counted(tmp_path: Path, cases: list[Case]) -> None:
    """Computed by hand: a brain of 10 x 4 x 4 voxels with a tumour at its end, 8 of 24 voxels outside a cube of 8."""
    brain = np.zeros((1, *SHAPE), np.int16)
    brain[0, 4:14, 8:12, 6:10] = 100
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 11:14, 8:12, 6:8] = 2
    case = cases[0]
    for source in case.images.values():
        write_volume(source.path, Volume(brain, AFFINE))
    write_volume(case.mask, Volume(mask, AFFINE))
    (crop,), _ = write_crops([case], tmp_path / "crops", plan_for(cases), 8)
    assert crop.start == (5, 6, 4)  # the middle of 4 to 14 is 9, of 8 to 12 10, of 6 to 10 8
    assert crop.tumour_voxels == 24
    assert crop.tumour_cut == pytest.approx(8 / 24)
    assert crop.brain_cut == pytest.approx(2 / 10)
    header, row = (tmp_path / "crops" / "crops.csv").read_text().splitlines()
    assert header == "case,x,y,z,tumour_voxels,tumour_cut,brain_cut"
    assert row == f"{case.id},5,6,4,24,0.33333,0.20000"


def test_a_case_without_tumour_cuts_none_of_it(cases: list[Case], tmp_path: Path) -> None:
    """The fraction is 0, not a division by zero."""
    write_volume(cases[0].mask, Volume(np.zeros((1, *SHAPE), np.uint8), AFFINE))
    (crop,), _ = write_crops(cases[:1], tmp_path / "crops", plan_for(cases), 8)
    assert (crop.tumour_voxels, crop.tumour_cut) == (0, 0)
    assert crop.brain_cut > 0.5


@pytest.mark.parametrize(
    ("place", "start"),
    [(slice(0, 4), 0), (slice(6, 10), 4), (slice(16, 20), 12), (slice(0, 20), 6), (slice(5, 6), 1)],
)
def test_the_cube_lies_around_the_brain_and_within_the_grid(place: slice, start: int) -> None:
    """It is moved inwards if the brain lies at the edge of the grid."""
    brain = np.zeros((20, 20, 20), bool)
    brain[place, place, place] = True
    assert central_cube(brain, 8) == (slice(start, start + 8),) * 3
    assert central_cube(brain, 30) == (slice(0, 20),) * 3


def test_a_bad_case_is_a_problem_and_the_others_are_done(cases: list[Case], tmp_path: Path) -> None:
    """Every case is reported, and no file of the bad one is written."""
    bad = replace(cases[0], mask=None)
    done: list[str] = []
    crops, problems = write_crops([bad, cases[1]], tmp_path / "crops", plan_for(cases), 8, on_case=done.append)
    assert [crop.id for crop in crops] == [cases[1].id]
    assert [problem.where for problem in problems] == [bad.id]
    assert problems[0].what.startswith("has no mask")
    assert sorted(done) == [bad.id, cases[1].id]
    assert not list((tmp_path / "crops").glob(f"{bad.id}*"))
    assert bad.id not in (tmp_path / "crops" / "crops.csv").read_text()
