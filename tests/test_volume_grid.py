"""Grids: voxels keep their places when axes are turned, grids that differ say in what, boxes hold what they should."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import AFFINE
from gliomask.volume import (
    Grid,
    Volume,
    bounding_box,
    grid_at_spacing,
    match_axes,
    reorient,
    resample,
    round_up_to_multiple,
    voxel_volume_ml,
)

SHAPE = (6, 7, 5)
AXES = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]


def some_volume(kind: str = "int16", channels: int = 1, seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).uniform(1, 250, (channels, *SHAPE))
    return Volume(data.astype(kind), AFFINE)


def world(grid: Grid, index: np.ndarray) -> np.ndarray:
    """Millimetres of voxel indices `(n, 3)`."""
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


@pytest.mark.parametrize("axes", AXES)
def test_voxels_keep_their_places_when_axes_are_turned(axes: str) -> None:
    """This is true for each of the 48 orientations, and turning back gives exactly the first volume."""
    volume = some_volume(channels=2)
    turned = reorient(volume, axes)
    assert turned.grid.axes == axes
    for index in ((0, 0, 0), (5, 6, 4), (1, 2, 3)):
        place = world(volume.grid, np.array([index]))
        there = np.linalg.inv(turned.affine) @ np.append(place, 1)
        x, y, z = there[:3].round().astype(int)
        np.testing.assert_allclose(there[:3], (x, y, z), atol=1e-9)
        np.testing.assert_array_equal(turned.data[:, x, y, z], volume.data[(slice(None), *index)])
    back = reorient(turned, volume.grid.axes)
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-12)


@pytest.mark.parametrize("axes", AXES)
def test_axes_are_matched_where_that_makes_grids_agree(axes: str) -> None:
    """This works for every order of axes; a moved grid is returned unchanged, so that its difference is reported."""
    volume = some_volume()
    matched = match_axes(reorient(volume, axes), volume.grid)
    assert volume.grid.difference(matched.grid) is None
    np.testing.assert_array_equal(matched.data, volume.data)
    moved = reorient(Volume(volume.data, changed(move=3).affine), axes)
    assert match_axes(moved, volume.grid) is moved
    assert volume.grid.difference(moved.grid) is not None


def test_a_rotation_about_the_diagonal_is_a_difference() -> None:
    """Such a rotation keeps two opposite corners in place; the others are compared too, and the angle is named."""
    axis = np.ones(3) / np.sqrt(3)
    angle = np.deg2rad(15)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(4)
    turn[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    grid = Grid((155, 155, 155), np.diag([1.0, 1, 1, 1]))
    corners = np.array([[0, 0, 0, 1], [154, 154, 154, 1]]).T
    np.testing.assert_allclose(turn @ corners, corners, atol=1e-9)
    difference = grid.difference(Grid(grid.shape, turn @ grid.affine))
    assert difference is not None
    assert "orientation (the axes are tilted by 12 degrees" in difference


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (np.diag([1.0008, 1, 1, 1]), "spacing 1 x 1 x 1 mm and 1.0008 x 1 x 1 mm"),
        (np.diag([1.0, 1, 1, 1]) + np.array([[0, 0, 0, -0.12], *[[0] * 4] * 3]), "origin 0 x 0 x 0 mm and -0.12 x"),
        (np.array([[1, -0.002, 0, 0], [0.002, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "tilted by 0.11 degrees"),
    ],
)
def test_a_small_difference_is_said_with_enough_digits(other: np.ndarray, difference: str) -> None:
    """Two numbers that are shown as different are written differently, and the reason is the true one."""
    found = Grid((240, 240, 155), np.eye(4)).difference(Grid((240, 240, 155), other))
    assert found is not None
    assert difference in found


def test_turning_copies_no_voxel() -> None:
    """The result is a view; 140 MB of an examination are not copied."""
    volume = some_volume()
    assert np.shares_memory(reorient(volume, "SAR").data, volume.data)
    assert reorient(volume, volume.grid.axes).data.strides == volume.data.strides


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 3.0, 2.2), (50.0, 50.0, 50.0)])
def test_another_spacing_covers_the_same_field_of_view(spacing: tuple[float, float, float]) -> None:
    """The outer faces stay where they are; the voxel size is as asked for, up to a whole number of voxels."""
    grid = some_volume().grid
    finer = grid_at_spacing(grid, spacing)
    for corner in itertools.product((0, 1), repeat=3):
        old, new = (
            world(g, np.array([[c * n - 0.5 for c, n in zip(corner, g.shape, strict=True)]])) for g in (grid, finer)
        )
        np.testing.assert_allclose(new, old, atol=1e-9)
    extent = np.array(grid.shape) * grid.spacing_mm
    np.testing.assert_array_equal(finer.shape, np.maximum(1, np.round(extent / spacing)))
    assert finer.axes == grid.axes


def test_a_ramp_stays_a_ramp_when_resampled() -> None:
    """Linear interpolation is exact on what is linear, wherever a new voxel lies between old ones."""
    slope = np.array([3.0, -2.0, 0.5])
    grid = some_volume().grid
    index = np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3)
    ramp = (world(grid, index) @ slope).reshape(1, *grid.shape)
    finer = grid_at_spacing(grid, (0.9, 1.1, 1.3))
    resampled = resample(Volume(ramp, AFFINE), finer)
    assert resampled.data.dtype == np.float32
    assert resampled.grid.difference(finer) is None
    index = np.moveaxis(np.indices(finer.shape), 0, -1).reshape(-1, 3)
    old_index = (world(finer, index) - AFFINE[:3, 3]) @ np.linalg.inv(AFFINE[:3, :3]).T
    inside = ((old_index >= 0) & (old_index <= np.array(grid.shape) - 1)).all(axis=1)
    assert 0.3 < inside.mean() < 1
    np.testing.assert_allclose(resampled.data.ravel()[inside], (world(finer, index) @ slope)[inside], atol=1e-3)


def test_labels_are_taken_from_the_nearest_voxel() -> None:
    """There are no new numbers and the type is kept; doubling the resolution repeats each voxel."""
    volume = some_volume("uint8")
    x, y, z = volume.spacing_mm
    finer = resample(volume, grid_at_spacing(volume.grid, (x / 2, y / 2, z / 2)), nearest=True)
    assert finer.data.dtype == np.uint8
    expected = volume.data
    for axis in (1, 2, 3):
        expected = expected.repeat(2, axis=axis)
    np.testing.assert_array_equal(finer.data, expected)


def changed(**changes: object) -> Grid:
    affine = AFFINE.copy()
    if "move" in changes:
        affine[:3, 3] += changes["move"]
    if "scale" in changes:
        affine[:3, :3] *= changes["scale"]
    if "turn" in changes:
        c, s = np.cos(changes["turn"]), np.sin(changes["turn"])
        affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    return Grid(changes.get("shape", SHAPE), affine)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (changed(), None),
        (changed(move=0.05), None),
        (changed(scale=1.0001), None),
        (changed(shape=(6, 7, 6)), "shape 6 x 7 x 5 and 6 x 7 x 6"),
        (Grid(SHAPE, AFFINE @ np.diag([-1, 1, 1, 1])), "orientation LPS and RPS"),
        (changed(scale=1.01), "spacing "),
        (changed(move=2), "origin 20 x 25 x -30 mm and 22 x 27 x -28 mm"),
        (changed(turn=0.1), "orientation (the axes are tilted by 5.7 degrees against each other)"),
    ],
)
def test_grids_that_differ_say_in_what(other: Grid, difference: str | None) -> None:
    """Rounding in a header is no difference; more than a tenth of a millimetre is one."""
    grid = Grid(SHAPE, AFFINE)
    found = grid.difference(other)
    if difference is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(difference)


def test_the_voxel_size_is_the_length_of_the_axes() -> None:
    """The diagonal of an oblique affine is not the voxel size."""
    np.testing.assert_allclose(some_volume().spacing_mm, np.sqrt((AFFINE[:3, :3] ** 2).sum(axis=0)))


@given(
    mask=arrays(bool, (4, 5, 3), elements=st.sampled_from([False, False, False, True])),
    margin=st.tuples(*[st.integers(0, 2)] * 3),
)
def test_a_bounding_box_is_the_smallest_that_holds_every_voxel(mask: np.ndarray, margin: tuple[int, int, int]) -> None:
    """With a margin it ends with the grid; an empty mask has no box."""
    box = bounding_box(mask, margin)
    places = np.argwhere(mask)
    if not len(places):
        assert box is None
        return
    first, last = places.min(axis=0), places.max(axis=0)
    assert box == tuple(
        slice(max(0, low - more), min(length, high + 1 + more))
        for low, high, more, length in zip(first, last, margin, mask.shape, strict=True)
    )


@given(size=st.tuples(*[st.integers(1, 300)] * 3), multiple=st.integers(1, 64))
def test_rounding_up_gives_the_next_multiple(size: tuple[int, int, int], multiple: int) -> None:
    """Not smaller than the size, and by less than one multiple larger."""
    for edge, rounded in zip(size, round_up_to_multiple(size, multiple), strict=True):
        assert rounded % multiple == 0
        assert edge <= rounded < edge + multiple


def test_the_volume_of_a_voxel_does_not_depend_on_how_the_grid_is_turned() -> None:
    """In mL: a BraTS voxel is a thousandth; shear keeps the volume."""
    assert voxel_volume_ml(np.diag([-1.0, -1, 1, 1])) == pytest.approx(0.001)
    assert voxel_volume_ml(AFFINE) == pytest.approx(voxel_volume_ml(reorient(some_volume(), "RAS").affine))
    sheared = np.diag([2.0, 3, 4, 1])
    sheared[0, 1] = 0.5
    assert voxel_volume_ml(sheared) == pytest.approx(0.024)
