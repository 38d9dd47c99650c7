"""Surface elements: their areas, the area-weighted HD95, and the surface Dice."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gliomask.errors import InputError
from gliomask.metrics import Mask, hausdorff_95_pooled, hausdorff_95_surface, surface_dice
from gliomask.metrics.surfels import surfel_areas, surfel_codes

ONE_MM = (1.0, 1.0, 1.0)
OBLONG = (0.9, 1.3, 4.0)
CORNERS = list(itertools.product((0, 1), repeat=3))


def code_of(*corners: tuple[int, int, int]) -> int:
    """Return the code of a cube with these corners in the mask."""
    return sum(1 << CORNERS.index(corner) for corner in corners)


def ball(radius: float, centre: tuple[int, int, int] = (32, 32, 32), side: int = 64) -> Mask:
    """Return a ball, including its border."""
    axes = np.ogrid[:side, :side, :side]
    return sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius**2


def box(*spans: tuple[int, int], side: int = 48) -> Mask:
    """Return a cubic mask with one half-open box."""
    mask = np.zeros((side,) * 3, bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def blobs(seed: int, shape: tuple[int, int, int] = (16, 18, 14)) -> Mask:
    """Return an irregular mask that touches the border of its array."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    for axis, times in itertools.product(range(3), range(3)):
        noise = noise + np.roll(noise, 1 + times, axis)
    return noise > 1.2 * noise.std()


def test_the_areas_on_a_unit_cube_are_those_of_geometry() -> None:
    """There are 14 kinds of cut, each with a closed form for its area, and the expected number of codes for each."""
    corner, edge = math.sqrt(3) / 8, math.sqrt(0.5)  # a triangle with sides of sqrt(1/2), a rectangle of 1 by sqrt(1/2)
    bent = 0.5 + 3 * corner  # three corners in a row: half a square and, leaning on it, a trapezoid of three triangles
    path = 4 * corner + 2 * edge / 2  # four corners in a winding row: a triangle of side 2, and two that fold from it
    expected = {
        0.0: 2,
        corner: 8 * 2,  # one corner
        edge: 12 * 2,  # two along an edge
        2 * corner: (12 + 4) * 2,  # two across a face or the cube
        bent: 24 * 2,
        edge + corner: 24 * 2,
        3 * corner: 8 * 2,
        1.0: 6,  # the four of a face: a square
        6 * corner: 8,  # one and its three neighbours: a regular hexagon
        path: 24,
        bent + corner: 24,
        2 * edge: 6,
        4 * corner: 2,
    }
    found = Counter(np.round(surfel_areas(ONE_MM), 9).tolist())
    assert found == Counter({round(area, 9): count for area, count in expected.items()})


@pytest.mark.parametrize(
    ("corners", "expected_mm2"),
    [
        pytest.param([(0, 0, 0)], math.hypot(0.9 * 1.3, 1.3 * 4.0, 0.9 * 4.0) / 8, id="a corner"),
        pytest.param([(0, 0, 0), (1, 0, 0)], 0.9 * math.hypot(1.3, 4.0) / 2, id="an edge along X"),
        pytest.param([(0, 0, 0), (0, 0, 1)], 4.0 * math.hypot(0.9, 1.3) / 2, id="an edge along Z"),
        pytest.param([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)], 0.9 * 1.3, id="a face across Z"),
        pytest.param([(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)], 1.3 * 4.0, id="a face across X"),
    ],
)
def test_the_areas_follow_the_spacing(corners, expected_mm2):
    """Planar cuts have the area of their rectangle or triangle in mm²."""
    assert surfel_areas(OBLONG)[code_of(*corners)] == pytest.approx(expected_mm2)


@pytest.mark.parametrize(
    ("corners", "expected_mm2"),
    [
        pytest.param([(1, 0, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)], 5.494771, id="winding, first along Y"),
        pytest.param([(1, 0, 0), (1, 0, 1), (1, 1, 1), (0, 1, 1)], 5.743410, id="winding, first along Z"),
        pytest.param([(0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 0, 1)], 6.129572, id="winding, Z, X, Y"),
    ],
)
def test_a_bent_cut_has_the_published_area(corners, expected_mm2):
    """Cuts with several triangulations have the areas of the surface-distance package."""
    assert surfel_areas(OBLONG)[code_of(*corners)] == pytest.approx(expected_mm2, abs=1e-6)


@pytest.mark.parametrize("spacing_mm", [ONE_MM, OBLONG])
def test_inside_and_outside_have_one_surface(spacing_mm):
    """A mask and its complement have the same areas."""
    areas = surfel_areas(spacing_mm)
    assert areas == pytest.approx(areas[::-1])


def test_the_areas_of_a_box_add_up() -> None:
    """The surface of a box is that of its faces minus the bevels at its edges and corners."""
    codes = surfel_codes(np.ones((4, 5, 6), bool))
    edge, corner = math.sqrt(0.5), math.sqrt(3) / 8
    faces, edges = 2 * (3 * 4 + 4 * 5 + 3 * 5), 4 * (3 + 4 + 5)
    assert surfel_areas(ONE_MM)[codes].sum() == pytest.approx(faces + edges * edge + 8 * corner)


def slow_directed(start: Mask, goal: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """Return a directed 95th percentile by area, from all pairs of cubes that a surface passes through."""
    areas, size = surfel_areas(spacing_mm), np.array(spacing_mm)
    places, weights = [], []
    for side in (start, goal):
        padded = np.pad(side, 1)
        found = {}
        for x, y, z in np.ndindex(*(n - 1 for n in padded.shape)):
            code = sum(1 << bit for bit, (i, j, k) in enumerate(CORNERS) if padded[x + i, y + j, z + k])
            if code not in (0, 255):
                found[x, y, z] = areas[code]
        places.append(np.array(list(found)) * size)
        weights.append(list(found.values()))
    nearest = np.linalg.norm(places[0][:, None] - places[1][None], axis=-1).min(axis=1)
    reached = 0.0
    for distance, area in sorted(zip(nearest, weights[0], strict=True)):
        reached += area
        if reached >= (0.95 - 1e-9) * sum(weights[0]):
            return float(distance)
    raise AssertionError("all of the surface is within some distance")


SMALL = st.tuples(*[st.integers(1, 5)] * 3).flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))
SIZES = st.floats(0.25, 6)


@given(SMALL, st.tuples(SIZES, SIZES, SIZES))
@settings(deadline=None, max_examples=60)
def test_hd95_of_any_small_masks_is_that_of_all_pairs(masks, spacing_mm):
    """For any masks and spacing, HD95 is the larger distance within which 95 % of a surface lies."""
    truth, prediction = masks
    found = hausdorff_95_surface(truth, prediction, spacing_mm)
    if not (truth.any() and prediction.any()):
        assert found == (math.inf if truth.any() or prediction.any() else 0)
    else:
        both = (slow_directed(truth, prediction, spacing_mm), slow_directed(prediction, truth, spacing_mm))
        assert found == pytest.approx(max(both), abs=1e-9)


@pytest.mark.parametrize(
    ("prediction", "expected_pooled_mm", "expected_surface_mm"),
    [
        pytest.param(ball(16) | ball(5, (56, 56, 56)), 0.0, 24.413111, id="a far island"),
        pytest.param(ball(16) | ball(5, (55, 55, 55)), 0.0, 22.693611, id="an island a voxel nearer"),
        pytest.param(ball(6, (32, 32, 42)), 19.104973, 18.973666, id="small and beside the middle"),
        pytest.param(ball(12), 4.242641, 4.242641, id="concentric"),
        pytest.param(ball(16), 0.0, 0.0, id="the same"),
    ],
)
def test_the_two_definitions_differ_where_they_should(prediction, expected_pooled_mm, expected_surface_mm):
    """Compared with a ball of radius 16, a far island raises the area-weighted HD95 but not the pooled one."""
    assert hausdorff_95_pooled(ball(16), prediction, ONE_MM) == pytest.approx(expected_pooled_mm, abs=1e-6)
    assert hausdorff_95_surface(ball(16), prediction, ONE_MM) == pytest.approx(expected_surface_mm, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_view_does_not_matter(seed):
    """HD95 and surface Dice do not change if masks are exchanged or flipped, or axes and spacing are permuted."""

    def both(truth: Mask, prediction: Mask, spacing_mm: tuple[float, float, float]) -> list[float]:
        return [
            hausdorff_95_surface(truth, prediction, spacing_mm),
            surface_dice(truth, prediction, spacing_mm, 1.5),
        ]

    truth, prediction = blobs(seed), blobs(seed + 10)
    expected = both(truth, prediction, OBLONG)
    assert expected[0] > 0
    assert 0 < expected[1] < 1
    assert both(prediction, truth, OBLONG) == pytest.approx(expected)
    for axes in ((0,), (1,), (2,), (0, 1, 2)):
        assert both(np.flip(truth, axes), np.flip(prediction, axes), OBLONG) == pytest.approx(expected)
    for order in itertools.permutations(range(3)):
        x, y, z = (OBLONG[axis] for axis in order)
        assert both(truth.transpose(order), prediction.transpose(order), (x, y, z)) == pytest.approx(expected)


def test_distance_grows_with_the_voxels() -> None:
    """Voxels 2.5 times as large make HD95 2.5 times as large, and a tolerance as much larger the same surface Dice."""
    truth, prediction = blobs(1), blobs(2)
    x, y, z = (2.5 * size for size in OBLONG)
    assert hausdorff_95_surface(truth, prediction, (x, y, z)) == pytest.approx(
        2.5 * hausdorff_95_surface(truth, prediction, OBLONG)
    )
    assert surface_dice(truth, prediction, (x, y, z), 2.5) == surface_dice(truth, prediction, OBLONG, 1.0)


@pytest.mark.parametrize(("axis", "size_mm"), [(0, 0.9), (1, 1.3), (2, 4.0)])
def test_a_shift_is_measured_along_its_axis(axis, size_mm):
    """A box moved by three voxels is three voxel sizes of that axis away, by both definitions of HD95."""
    truth = box((10, 20), (10, 20), (10, 20))
    moved = np.roll(truth, 3, axis)
    assert hausdorff_95_surface(truth, moved, OBLONG) == pytest.approx(3 * size_mm)
    assert hausdorff_95_pooled(truth, moved, OBLONG) == pytest.approx(3 * size_mm)


def test_surface_dice_of_a_shifted_box_is_counted_by_hand() -> None:
    """Of a 6-voxel cube's 152 surface voxels 100 meet those of the cube moved by one, and the others are a voxel away.

    Where a voxel is 2 mm in the direction of the shift, 1 mm takes only those 12 beside that lie within the face.
    """
    truth, moved = box((4, 10), (4, 10), (4, 10)), box((5, 11), (4, 10), (4, 10))
    assert surface_dice(truth, moved, ONE_MM, 0.5) == pytest.approx(100 / 152)
    assert surface_dice(truth, moved, ONE_MM, 1.0) == 1
    assert surface_dice(truth, moved, (2.0, 1.0, 1.0), 1.0) == pytest.approx(112 / 152)


def test_surface_dice_is_the_mean_of_both_shares() -> None:
    """For a cube and the same cube with a second one far away, surface Dice is the mean of 1 and 1/2: 0.75."""
    truth, both = box((4, 10), (4, 10), (4, 10)), box((4, 10), (4, 10), (4, 10)) | box((30, 36), (30, 36), (30, 36))
    assert surface_dice(truth, both, ONE_MM, 1.0) == surface_dice(both, truth, ONE_MM, 1.0) == 0.75


def test_empty_masks() -> None:
    """One empty mask: infinity or the caller's value, and surface Dice 0. Both empty: 0 and 1."""
    empty, some = np.zeros((4, 4, 4), bool), box((1, 2), (1, 2), (1, 2), side=4)
    for truth, prediction in ((empty, some), (some, empty)):
        assert hausdorff_95_surface(truth, prediction, ONE_MM) == math.inf
        assert hausdorff_95_surface(truth, prediction, ONE_MM, empty_mm=374) == 374
        assert surface_dice(truth, prediction, ONE_MM, 100) == 0
    assert hausdorff_95_surface(empty, empty, ONE_MM) == 0
    assert surface_dice(empty, empty, ONE_MM, 0) == 1


@pytest.mark.parametrize(
    ("truth", "prediction", "spacing_mm", "message"),
    [
        (np.zeros((4, 4, 4), bool), np.zeros((3, 4, 4), bool), ONE_MM, "one shape"),
        (np.zeros((4, 4, 4)), np.zeros((4, 4, 4), bool), ONE_MM, "truth must be a boolean mask"),
        (np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool), (1, 0, 1), "three positive numbers"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(truth, prediction, spacing_mm, message):
    """Both functions refuse different shapes, other types, and invalid spacings."""
    with pytest.raises(InputError, match=message):
        hausdorff_95_surface(truth, prediction, spacing_mm)
    with pytest.raises(InputError, match=message):
        surface_dice(truth, prediction, spacing_mm, 1.0)
