"""Masks taken back to the grid on which a sequence was acquired: each region keeps its volume and its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomask.acquisition import answer as answers
from gliomask.acquisition.alignment import Alignment
from gliomask.acquisition.native import to_native
from gliomask.acquisition.prepare_study import PreparedStudy
from gliomask.acquisition.study import Study
from gliomask.cases import Case
from gliomask.inference.result import Prediction
from gliomask.labels import get_convention, to_labels, to_regions
from gliomask.model.plan import Plan
from gliomask.volume import Grid, Volume, voxel_volume_ml

GRID = Grid((64, 64, 56), np.array([[-1.0, 0, 0, 32], [0, -1.0, 0, 32], [0, 0, 1.0, -28], [0, 0, 0, 1.0]]))
REGIONS = ("WT", "TC", "ET")


def turned(degrees: float) -> np.ndarray:
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = (4, -3, 2)
    return matrix


def native_grid(slice_mm: float, slices: int) -> Grid:
    affine = np.array([[-0.9, 0, 0, 40], [0, -0.9, 0, 40], [0, 0, slice_mm, -40], [0, 0, 0, 1.0]])
    return Grid((90, 90, slices), affine)


def prediction(seed: int = 0) -> Prediction:
    """An irregular tumour with a thin rim of ET around a small core, and blurred probabilities."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij"), axis=-1) - (30, 33, 27)
    bumps = 2.0 * np.sin(places @ rng.normal(0, 0.25, 3)) + 1.5 * np.sin(places @ rng.normal(0, 0.4, 3))
    distance = np.linalg.norm(places * (1, 1.2, 0.9), axis=-1) + bumps
    rim = np.abs(distance - 7) - 1.5
    depth = np.stack([distance - 17, distance - 8.5, rim])
    probabilities = (1 / (1 + np.exp(depth))).astype(np.float32)
    convention = get_convention("brats2021")
    labels = to_labels(probabilities > 0.5, REGIONS, convention)
    return Prediction(
        case=Case("case", {}),
        labels=Volume(labels[None], GRID.affine),
        probabilities=Volume(probabilities, GRID.affine),
        plan=Plan(modalities=("t1c",), regions=REGIONS),
        convention="brats2021",
        model="model",
        engine="none 1",
        window="whole",
        seconds=0.0,
    )


def lies(degrees: float, slice_mm: float, slices: int | None = None) -> Alignment:
    matrix = turned(degrees)
    grid = native_grid(slice_mm, slices or round(80 / slice_mm))
    return Alignment("t1c", GRID, {"t1c": grid}, {"t1c": matrix}, {})


@pytest.mark.parametrize("slice_mm", [1.0, 5.5])
@pytest.mark.parametrize("degrees", [0.0, 13.0])
def test_every_region_keeps_its_volume_and_its_place(degrees: float, slice_mm: float) -> None:
    """Within 1 %, also a rim of ET thinner than the slices; and where the prepared mask fills most of a voxel."""
    found = prediction()
    alignment = lies(degrees, slice_mm)
    native = to_native(found, alignment)
    prepared = found.volumes_ml()
    for region in REGIONS:
        assert native.volumes_ml[region] == pytest.approx(prepared[region], rel=0.01)
    masks = to_regions(native.labels.data[0], get_convention("brats2021"), REGIONS)
    assert (masks[0] >= masks[1]).all()
    assert (masks[1] >= masks[2]).all()
    before = to_regions(found.labels.data[0], get_convention("brats2021"), REGIONS).astype(np.float32)
    filled = alignment.onto_native("t1c", Volume(before, GRID.affine)).data > 0.5
    for mask, expected, least in zip(masks, filled, (0.95, 0.9, 0.7), strict=True):
        assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) > least
    assert native.probabilities is None


def test_what_lies_outside_the_native_grid_is_not_made_up_for() -> None:
    """Of a tumour that the slices cover in part, the mask has the volume of that part."""
    found, alignment = prediction(), lies(0.0, 5.0)
    whole = to_native(found, alignment)
    cut = to_native(found, lies(0.0, 5.0, slices=8))
    part = whole.labels.data[..., :8]
    expected = np.count_nonzero(part) * voxel_volume_ml(whole.labels.affine)
    assert 0 < expected < 0.8 * whole.volumes_ml["WT"]
    assert cut.volumes_ml["WT"] == pytest.approx(expected, rel=0.05)


def test_without_a_tumour_the_mask_is_empty() -> None:
    """And the probabilities are given where they are wanted, on the same grid."""
    found = prediction()
    empty = replace(found, labels=Volume(np.zeros_like(found.labels.data), GRID.affine))
    native = to_native(empty, lies(5.0, 4.0), probabilities=True)
    assert not native.labels.data.any()
    assert set(native.volumes_ml.values()) == {0.0}
    assert native.probabilities is not None
    assert native.probabilities.data.shape == (3, *native.labels.data.shape[1:])


def test_an_older_mask_is_not_left_beside_new_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends between the two leaves no mask that looks as if it had been changed by hand."""
    found, alignment = prediction(), lies(0.0, 2.0)
    alignment.save(tmp_path / "prepared" / "transforms")
    prepared = PreparedStudy(found.case, tmp_path / "prepared", (), (), {}, {})
    path, study = tmp_path / "case.nii.gz", Study("case", ())

    def write(space: str) -> None:
        answers.write_answer(study, prepared, found, path, request={"space": space}, probabilities=False)

    write("reference")
    assert answers.find_answer(path, {"space": "reference"}, probabilities=False) == (True, "")
    with monkeypatch.context() as context:
        context.setattr(answers, "write_bytes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write("prepared")
    assert answers.find_answer(path, {"space": "prepared"}, probabilities=False)[0] is False
    write("prepared")
    assert answers.find_answer(path, {"space": "prepared"}, probabilities=False) == (True, "")
