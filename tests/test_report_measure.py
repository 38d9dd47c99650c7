"""Measures of a region as laws: known ellipsoids, mirrored masks, rows of voxels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import AFFINE
from gliomask.report.measure import (
    MidPlane,
    axial_diameters,
    extents,
    left_share,
    longest_diameter,
    measure,
    mid_plane,
    volumes_above,
)

STRAIGHT = np.diag([-1.0, -1.0, 3.0, 1.0])
MIDDLE = MidPlane(0.0, 0.0, 0.0)


def ellipsoid(radii_mm: tuple[float, float, float], affine: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """An ellipsoid along the world axes in the middle of a grid, with the affine that puts its centre at zero."""
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    shape = tuple(int(2 * max(radii_mm) / edge) + 9 for edge in edges)
    affine = affine.copy()
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    return ((places / radii_mm) ** 2).sum(axis=-1) <= 1, affine


def test_an_ellipsoid_has_its_own_axes_on_an_anisotropic_grid() -> None:
    """Diameters are exact to a voxel, the volume to two percent; the slice is the middle one."""
    mask, affine = ellipsoid((20, 12, 33), STRAIGHT)
    found = measure(mask, affine, MIDDLE)
    assert found.axial is not None
    assert found.axial.longest_mm == pytest.approx(40, abs=1.5)
    assert found.axial.perpendicular_mm == pytest.approx(24, abs=1.5)
    assert found.axial.z_mm == pytest.approx(0, abs=3.1)
    assert found.longest_mm == pytest.approx(66, abs=3.1)
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 20 * 12 * 33 / 1000, rel=0.02)
    assert (found.lesions, found.largest_ml) == (1, found.volume_ml)
    assert [extent.length_mm for extent in found.extent] == pytest.approx([40, 24, 66], abs=3.1)


def test_a_ball_on_an_oblique_grid_is_as_wide_in_all_directions() -> None:
    """On an oblique, anisotropic grid, 30 mm are measured to within a voxel."""
    mask, affine = ellipsoid((15, 15, 15), AFFINE)
    found = axial_diameters(mask, affine)
    assert found is not None
    for length in (found.longest_mm, found.perpendicular_mm, longest_diameter(mask, affine)):
        assert length == pytest.approx(30, abs=3)


@pytest.mark.parametrize(("axis", "count"), [(0, 7), (1, 5), (2, 4), (0, 1)])
def test_a_row_of_voxels_is_as_long_as_its_number_times_their_size(axis: int, count: int) -> None:
    """The 3-D diameter is found along any axis, the axial one only within the slice."""
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    mask = np.zeros((9, 9, 9), bool)
    mask[tuple(slice(1, 1 + count) if other == axis else slice(2, 3) for other in range(3))] = True
    lengths = [2.0, 3.0, 5.0]
    lengths[axis] *= count
    assert longest_diameter(mask, affine) == pytest.approx(max(lengths))
    found = axial_diameters(mask, affine)
    assert found is not None
    assert (found.longest_mm, found.perpendicular_mm) == pytest.approx((max(lengths[:2]), min(lengths[:2])))


def test_a_diameter_stays_within_a_lesion() -> None:
    """For two separate rows of 3 and 5 voxels, the diameter is 5, with two lesions and the larger one's volume."""
    mask = np.zeros((20, 9, 3), bool)
    mask[1:4, 4, 1] = mask[12:17, 4, 1] = True
    found = measure(mask, np.eye(4), MIDDLE)
    assert found.axial is not None
    assert (found.lesions, found.longest_mm, found.axial.longest_mm) == (2, 5, 5)
    assert (found.volume_ml, found.largest_ml) == pytest.approx((0.008, 0.005))


def test_across_a_triangle() -> None:
    """The perpendicular chord of a staircase of 10 by 5 passes through its corner."""
    mask = np.zeros((12, 12, 3), bool)
    for height in range(5):
        mask[1 + height : 11 - height, 1 + height, 1] = True
    found = axial_diameters(mask, np.eye(4))
    assert found is not None
    assert (found.longest_mm, found.perpendicular_mm) == pytest.approx((10, 5), abs=0.6)


def test_axes_in_another_order_measure_the_same() -> None:
    """Measures do not depend on the voxel order."""
    mask, affine = ellipsoid((14, 9, 11), np.diag([-1.2, -1.0, 2.0, 1.0]))
    other = affine[:, [2, 0, 1, 3]]
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1, mask.shape[2] - 1
    plane = MidPlane(3.0, 0.1, 0.0)
    one = measure(mask, affine, plane)
    two = measure(mask.transpose(2, 0, 1)[::-1], other @ flip, plane)
    assert two.axial is not None
    assert one.axial is not None
    assert (two.axial.longest_mm, two.axial.perpendicular_mm, two.longest_mm, two.left) == pytest.approx(
        (one.axial.longest_mm, one.axial.perpendicular_mm, one.longest_mm, one.left)
    )
    for here, there in zip(two.extent, one.extent, strict=True):
        assert (here.low_mm, here.high_mm, here.length_mm) == pytest.approx(
            (there.low_mm, there.high_mm, there.length_mm)
        )


def test_a_mirrored_mask_swaps_left_and_right() -> None:
    """In a symmetrical brain, the fractions of a mask on both sides sum to one."""
    brain, affine = ellipsoid((30, 40, 33), STRAIGHT)
    plane = mid_plane(brain, affine)
    assert (plane.at, plane.back, plane.up) == pytest.approx((0, 0, 0), abs=0.3)
    mask = np.zeros_like(brain)
    mask[38:48, 40:45, 10:14] = True  # 89 voxels across: 3 of 10 are left of the middle one, which counts half
    assert left_share(mask, affine, MIDDLE) == pytest.approx(0.35)
    assert left_share(mask[::-1], affine, MIDDLE) == pytest.approx(0.65)
    one_sided = np.zeros_like(brain)
    one_sided[45:50, 40, 12] = True  # x grows to the left here
    assert left_share(one_sided, affine, plane) == 1
    assert left_share(one_sided[::-1], affine, plane) == 0


def test_the_mid_plane_follows_a_tilted_head() -> None:
    """The halves of a brain rotated by ten degrees about each axis are still found."""
    turn = np.deg2rad(10)
    yaw = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    roll = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    shape = (90, 110, 90)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) - (np.array(shape) - 1) / 2
    own = (places - (3, 0, 0)) @ (yaw @ roll)
    brain = ((own / (28, 45, 35)) ** 2).sum(axis=-1) <= 1
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(shape) - 1) / 2
    plane = mid_plane(brain, affine)
    half = brain & (own[..., 0] < 0)
    share = left_share(half, affine, plane)
    straight = left_share(half, affine, MidPlane(3.0, 0.0, 0.0))
    assert share is not None
    assert straight is not None
    assert share > 0.97 > straight


def test_the_box_is_told_in_the_files_voxels_and_in_millimetres() -> None:
    """The outer faces of a single voxel are half a voxel from its known position."""
    mask = np.zeros((10, 12, 8), bool)
    mask[2:4, 3, 5] = True
    affine = np.array([[-2.0, 0, 0, 10], [0, -1, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1]])
    across, forward, up = extents(mask, affine)
    assert (across.first, across.last, across.of, across.low_mm, across.high_mm) == (2, 3, 10, 3, 7)
    assert (forward.first, forward.last, forward.low_mm, forward.high_mm) == (3, 3, 16.5, 17.5)
    assert (up.first, up.last, up.low_mm, up.high_mm, up.length_mm) == (5, 5, -16.5, -13.5, 3)


def test_an_empty_region_has_nothing_to_measure() -> None:
    """An empty mask has zeros and empty measures."""
    found = measure(np.zeros((5, 6, 7), bool), STRAIGHT, MIDDLE)
    assert (found.volume_ml, found.lesions, found.longest_mm) == (0, 0, 0)
    assert (found.axial, found.left, found.extent) == (None, None, ())
    assert mid_plane(np.zeros((5, 6, 7), bool), np.eye(4)).at == 2


def test_the_volume_falls_with_the_threshold() -> None:
    """The volume is the number of voxels above the threshold times their volume."""
    probabilities = np.array([[[0.1, 0.4, 0.6, 0.9]]], np.float32)
    assert volumes_above(probabilities, (0.3, 0.5, 0.7), 2.0) == (6, 4, 2)
