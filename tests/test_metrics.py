"""Metrics against geometry solved by hand, published values, general laws, and slow reference implementations."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gliomask.errors import InputError
from gliomask.metrics import (
    PROTOCOLS,
    Mask,
    accuracy,
    dice,
    hausdorff_95_pooled,
    hausdorff_95_surface,
    iou,
    mean_iou,
    score_case,
    sensitivity,
    specificity,
    surface,
    surface_dice,
    volume_ml,
)

ISOTROPIC = (1.0, 1.0, 1.0)
OBLONG = (0.9, 1.3, 4.0)
PENALTY = 373.128664
PENALTY_EXACT = math.hypot(240, 240, 155)
NOWHERE: tuple[tuple[int, int], ...] = ((0, 0), (0, 0), (0, 0))
A = ((4, 10), (4, 10), (4, 10))
B = ((30, 36), (30, 36), (30, 36))


def boxes(*spans: tuple[tuple[int, int], ...], side: int = 48) -> Mask:
    """Return a cubic mask with half-open boxes of voxels."""
    mask = np.zeros((side, side, side), bool)
    for (x0, x1), (y0, y1), (z0, z1) in spans:
        mask[x0:x1, y0:y1, z0:z1] = True
    return mask


def along_x(start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Return a box with the extent of A along Y and Z, and another one along X."""
    return ((start, stop), *A[1:])


def ball(radius: float, centre: tuple[int, int, int] = (32, 32, 32), side: int = 64) -> Mask:
    """Return a ball, including its border."""
    axes = np.ogrid[:side, :side, :side]
    return sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius**2


def blobs(seed: int, shape: tuple[int, int, int] = (24, 28, 20)) -> Mask:
    """Return an irregular mask that touches the border of its array."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    for axis, times in itertools.product(range(3), range(3)):
        noise = noise + np.roll(noise, 1 + times, axis)
    return noise > 1.2 * noise.std()


def every_region(mask: Mask) -> dict[str, Mask]:
    """Return the same mask for each region."""
    return dict.fromkeys(("WT", "TC", "ET"), mask)


def surface_points(mask: Mask) -> list[tuple[int, int, int]]:
    """Return the surface voxels by checking the six neighbours of each voxel."""
    inside = {tuple(int(i) for i in point) for point in np.argwhere(mask)}
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    return [p for p in inside if any((p[0] + x, p[1] + y, p[2] + z) not in inside for x, y, z in steps)]


def slow_hausdorff_95(truth: Mask, prediction: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """Return the pooled HD95 computed from all pairs of surface voxels."""
    ours, theirs = surface_points(truth), surface_points(prediction)
    if not ours or not theirs:
        return math.inf if ours or theirs else 0.0
    size = np.array(spacing_mm)
    pairs = np.linalg.norm(np.array(ours)[:, None] * size - np.array(theirs)[None] * size, axis=-1)
    pooled = sorted([*pairs.min(axis=1), *pairs.min(axis=0)])
    place = 0.95 * (len(pooled) - 1)
    below, above = pooled[math.floor(place)], pooled[math.ceil(place)]
    return float(below + (above - below) * (place - math.floor(place)))


@pytest.mark.parametrize(
    ("truth", "prediction", "expected_dice", "expected_mm"),
    [
        pytest.param([NOWHERE], [NOWHERE], 1, 0, id="both empty"),
        pytest.param([A], [NOWHERE], 0, PENALTY, id="all missed"),
        pytest.param([NOWHERE], [A], 0, PENALTY, id="all invented"),
        pytest.param([A], [A], 1, 0, id="equal"),
        pytest.param([A], [along_x(5, 11)], 0.833333, 1, id="shifted by one"),
        pytest.param([A, B], [A], 0.666667, 42.778499, id="one of two missed"),
        pytest.param([A], [A, B], 0.666667, 42.778499, id="one of two invented"),
        pytest.param([A], [A, ((40, 41), (40, 41), (40, 41))], 0.997691, 0, id="one voxel too many"),
        pytest.param([((4, 7), (4, 7), (4, 7))], [NOWHERE], 0, PENALTY, id="a small one missed"),
        pytest.param([A, along_x(15, 21)], [A], 0.666667, 11, id="gap of 5"),
        pytest.param([A, along_x(16, 22)], [A], 0.666667, 12, id="gap of 6"),
        pytest.param([A, along_x(17, 23)], [A], 0.666667, 13, id="gap of 7"),
        pytest.param([A], [along_x(12, 18)], 0, 8, id="2 voxels apart"),
        pytest.param([A], [along_x(13, 19)], 0, 9, id="3 voxels apart"),
        pytest.param([A, along_x(24, 30)], [along_x(4, 30)], 0.631579, 6, id="bridge"),
    ],
)
def test_golden_values_of_brats(truth, prediction, expected_dice, expected_mm):
    """Dice and pooled HD95 equal those of the BraTS scripts for the same boxes, with the penalty of 2017-2022."""
    regions = every_region(boxes(*truth)), every_region(boxes(*prediction))
    for scores in score_case(*regions, ISOTROPIC, "brats2021").values():
        assert scores["dice"] == pytest.approx(expected_dice, abs=1e-6)
        assert scores["hd95_pooled_mm"] == pytest.approx(expected_mm, abs=1e-6)


@pytest.mark.parametrize(
    ("prediction", "expected_mm"),
    [
        pytest.param(ball(16) | ball(5, (56, 56, 56)), 0, id="a far island is not seen"),
        pytest.param(ball(12), 4.242641, id="concentric"),
    ],
)
def test_golden_values_of_balls(prediction, expected_mm):
    """Against a ball of radius 16, the pooled variant has its published values."""
    assert hausdorff_95_pooled(ball(16), prediction, ISOTROPIC) == pytest.approx(expected_mm, abs=1e-6)


def test_edges_of_overlap():
    """Empty and full masks have the scores of BraTS, without a division by zero."""
    empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    scores = {
        (first, second): (dice(t, p), iou(t, p), sensitivity(t, p), specificity(t, p))
        for (first, t), (second, p) in itertools.product((("empty", empty), ("full", full)), repeat=2)
    }
    assert scores == {
        ("empty", "empty"): (1, 1, 1, 1),
        ("empty", "full"): (0, 0, 0, 0),
        ("full", "empty"): (0, 0, 0, 1),
        ("full", "full"): (1, 1, 1, 1),
    }


def test_overlap_of_nested_boxes():
    """A box of 8 voxels inside one of 27, in a grid of 1000 voxels: every score is a known fraction."""
    inner, outer = boxes(((1, 3),) * 3, side=10), boxes(((1, 4),) * 3, side=10)
    assert dice(outer, inner) == dice(inner, outer) == 16 / 35
    assert iou(outer, inner) == iou(inner, outer) == 8 / 27
    assert sensitivity(outer, inner) == 8 / 27
    assert sensitivity(inner, outer) == 1
    assert specificity(outer, inner) == 1
    assert specificity(inner, outer) == 973 / 992


@given(arrays(bool, (3, 4, 5)), arrays(bool, (3, 4, 5)))
@settings(deadline=None, max_examples=50)
def test_dice_and_iou_say_the_same(truth, prediction):
    """Dice = 2 IoU / (1 + IoU), both symmetric and between 0 and 1."""
    jaccard = iou(truth, prediction)
    assert dice(truth, prediction) == pytest.approx(2 * jaccard / (1 + jaccard))
    assert jaccard == iou(prediction, truth)
    assert 0 <= jaccard <= 1


def test_volume():
    """60 voxels of 1 x 2 x 2.5 mm have 0.3 mL, an empty mask has 0."""
    assert volume_ml(np.ones((3, 4, 5), bool), (1, 2, 2.5)) == pytest.approx(0.3)
    assert volume_ml(np.zeros((3, 4, 5), bool), (1, 2, 2.5)) == 0


def test_accuracy_misleads():
    """A prediction without tumour is correct in 992 of 1000 voxels."""
    truth = np.zeros((10, 10, 10), np.uint8)
    truth[:2, :2, :2] = 4
    nothing = np.zeros_like(truth)
    assert accuracy(truth, nothing) == 0.992
    assert accuracy(truth, truth) == 1
    assert dice(truth > 0, nothing > 0) == 0


def test_mean_iou_leaves_out_a_class_that_is_in_neither():
    """Classes 0, 1, 2 have IoU 1/2, 1/2, 1; class 4 is in neither map and is not counted."""
    truth, prediction = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    assert mean_iou(truth, prediction, (0, 1, 2, 4)) == mean_iou(truth, prediction, (0, 1, 2)) == pytest.approx(2 / 3)


def test_mean_iou_counts_a_class_that_one_side_invents():
    """A class that is only in the prediction has IoU 0."""
    assert mean_iou(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 3]), (0, 3)) == pytest.approx((3 / 4 + 0) / 2)


@pytest.mark.parametrize(("axis", "size_mm"), [(0, 0.9), (1, 1.3), (2, 4.0)])
def test_two_voxels_apart(axis, size_mm):
    """Two single voxels, two steps apart on one axis, are twice the voxel size of that axis apart."""
    truth, prediction = np.zeros((5, 5, 5), bool), np.zeros((5, 5, 5), bool)
    truth[1, 1, 1] = True
    prediction[tuple(1 + 2 * (i == axis) for i in range(3))] = True
    assert hausdorff_95_pooled(truth, prediction, OBLONG) == pytest.approx(2 * size_mm)


@pytest.mark.parametrize("empty_mm", [math.inf, 374.0])
def test_one_empty_mask_costs_what_the_caller_says(empty_mm):
    """The caller sets the penalty, which applies in both directions; two empty masks have distance 0."""
    empty, some = np.zeros((4, 4, 4), bool), boxes(((1, 2),) * 3, side=4)
    assert hausdorff_95_pooled(some, empty, ISOTROPIC, empty_mm=empty_mm) == empty_mm
    assert hausdorff_95_pooled(empty, some, ISOTROPIC, empty_mm=empty_mm) == empty_mm
    assert hausdorff_95_pooled(empty, empty, ISOTROPIC, empty_mm=empty_mm) == 0


def test_nothing_lies_beyond_the_border_of_the_array():
    """Voxels at the border of the array are surface: a ball cut off there has the same score in a larger array."""
    cut = ball(10, (3, 12, 12), side=25), ball(7, (3, 12, 12), side=25)
    padded = [np.pad(mask, 2) for mask in cut]
    full, hole = np.ones((7, 7, 7), bool), boxes(((3, 4),) * 3, side=7)
    assert hausdorff_95_pooled(*cut, OBLONG) == pytest.approx(hausdorff_95_pooled(*padded, OBLONG), abs=1e-12)
    assert hausdorff_95_pooled(full, hole, ISOTROPIC) == pytest.approx(slow_hausdorff_95(full, hole, ISOTROPIC))


@pytest.mark.parametrize("seed", range(3))
def test_the_view_does_not_matter(seed):
    """HD95 does not change if the masks are exchanged or flipped, or their axes and spacing are permuted."""
    truth, prediction = blobs(seed), blobs(seed + 10)
    expected = hausdorff_95_pooled(truth, prediction, OBLONG)
    assert expected > 0
    assert hausdorff_95_pooled(prediction, truth, OBLONG) == pytest.approx(expected, abs=1e-12)
    for axes in ((0,), (1,), (2,), (0, 1, 2)):
        flipped = np.flip(truth, axes), np.flip(prediction, axes)
        assert hausdorff_95_pooled(*flipped, OBLONG) == pytest.approx(expected, abs=1e-12)
    for order in itertools.permutations(range(3)):
        x, y, z = (OBLONG[axis] for axis in order)
        turned = truth.transpose(order), prediction.transpose(order)
        assert hausdorff_95_pooled(*turned, (x, y, z)) == pytest.approx(expected, abs=1e-12)


def test_distance_grows_with_the_voxels():
    """Voxels 2.5 times as large make HD95 2.5 times as large."""
    truth, prediction = blobs(1), blobs(2)
    x, y, z = (2.5 * size for size in OBLONG)
    expected = 2.5 * hausdorff_95_pooled(truth, prediction, OBLONG)
    assert hausdorff_95_pooled(truth, prediction, (x, y, z)) == pytest.approx(expected)


def test_masks_are_left_as_they_were():
    """Neither mask is written to; read-only arrays are accepted."""
    truth, prediction = blobs(1), blobs(2)
    before = truth.copy(), prediction.copy()
    truth.flags.writeable = prediction.flags.writeable = False
    hausdorff_95_pooled(truth, prediction, OBLONG)
    assert np.array_equal(truth, before[0])
    assert np.array_equal(prediction, before[1])


PAIRS = st.tuples(*[st.integers(1, 6)] * 3).flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))
SIZES = st.floats(0.25, 6)


@given(PAIRS, st.tuples(SIZES, SIZES, SIZES))
@settings(deadline=None, max_examples=150)
def test_hd95_of_any_small_masks_is_that_of_all_pairs(masks, spacing_mm):
    """For any two masks and any spacing, HD95 is the percentile computed from all pairs of surface voxels."""
    truth, prediction = masks
    expected = slow_hausdorff_95(truth, prediction, spacing_mm)
    assert hausdorff_95_pooled(truth, prediction, spacing_mm) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("crowded", [0, 1], ids=["transform", "tree"])
@pytest.mark.parametrize("seed", range(3))
def test_both_routes_give_the_same(seed, crowded, monkeypatch):
    """The tree and the distance transform both give the HD95 of all pairs."""
    truth, prediction = blobs(seed), blobs(seed + 10)
    monkeypatch.setattr(surface, "_LARGEST_FRACTION_FOR_TREE", crowded)
    expected = slow_hausdorff_95(truth, prediction, OBLONG)
    assert hausdorff_95_pooled(truth, prediction, OBLONG) == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI 1.6 calls itself with an argument it has deprecated
@pytest.mark.parametrize("spacing_mm", [ISOTROPIC, OBLONG])
def test_monai_measures_the_same_distances(spacing_mm):
    """MONAI's directed distances, pooled, give this HD95; its own HD95, the larger of both directions, is a bound."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monai = pytest.importorskip("monai.metrics")
        utils = pytest.importorskip("monai.metrics.utils")
    torch = pytest.importorskip("torch")
    pairs = [(blobs(3), blobs(4)), (ball(10, side=40), ball(6, side=40)), (boxes(A, B), boxes(A))]
    for truth, prediction in pairs:
        t, p = torch.from_numpy(truth), torch.from_numpy(prediction)
        _, directed, _ = utils.get_edge_surface_distance(p, t, spacing=list(spacing_mm), symmetric=True)
        ours = hausdorff_95_pooled(truth, prediction, spacing_mm)
        assert ours == pytest.approx(np.percentile(np.concatenate([d.numpy() for d in directed]), 95), rel=1e-5)
        larger = monai.compute_hausdorff_distance(
            p[None, None], t[None, None], include_background=True, percentile=95, spacing=list(spacing_mm)
        )
        assert ours <= larger.item() * (1 + 1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # as above
@pytest.mark.parametrize(
    ("truth", "prediction", "expected_mm"),
    [
        pytest.param(boxes(A), boxes(along_x(5, 11)), 0.9, id="shifted by one"),
        pytest.param(boxes(A), boxes(along_x(7, 13)), 2.7, id="shifted by three"),
        pytest.param(boxes(A), boxes(A), 0, id="equal"),
    ],
)
def test_monai_agrees_where_both_directions_are_alike(truth, prediction, expected_mm):
    """Masks that mirror each other have equal directed distances, so all definitions give the same HD95."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monai = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    t, p = (torch.from_numpy(mask)[None, None] for mask in (truth, prediction))
    larger = monai.compute_hausdorff_distance(p, t, include_background=True, percentile=95, spacing=list(OBLONG))
    assert larger.item() == pytest.approx(expected_mm, abs=1e-6)
    assert hausdorff_95_pooled(truth, prediction, OBLONG) == pytest.approx(expected_mm)


def test_case_scores_are_those_of_the_whole_grid():
    """Each score of a case equals that of its public function on the uncropped masks, in the protocol's order."""
    one, two, three, four, five = (np.pad(blobs(seed), ((2, 3), (4, 0), (0, 5))) for seed in range(5))
    truth = {"WT": one, "TC": two, "ET": np.zeros_like(one), "RC": one}
    prediction = {"ET": three, "TC": four, "WT": np.asfortranarray(five)}
    scores = score_case(truth, prediction, OBLONG, PROTOCOLS["brats2021"])
    assert list(scores) == ["WT", "TC", "ET"]
    for region, found in scores.items():
        pair = truth[region], prediction[region]
        expected = {
            "dice": dice(*pair),
            "hd95_pooled_mm": hausdorff_95_pooled(*pair, OBLONG, empty_mm=PENALTY_EXACT),
            "hd95_surface_mm": hausdorff_95_surface(*pair, OBLONG, empty_mm=PENALTY_EXACT),
            "nsd_0.5mm": surface_dice(*pair, OBLONG, 0.5),
            "nsd_1mm": surface_dice(*pair, OBLONG, 1),
            "sensitivity": sensitivity(*pair),
            "specificity": specificity(*pair),
            "voxel_accuracy": accuracy(pair[0].astype(int), pair[1].astype(int)),
            "voxel_accuracy_of_nothing": accuracy(pair[0].astype(int), np.zeros(pair[0].shape, int)),
            "iou": iou(*pair),
            "truth_ml": volume_ml(pair[0], OBLONG),
            "prediction_ml": volume_ml(pair[1], OBLONG),
        }
        assert {name: found[name] for name in expected} == expected
    assert scores["ET"]["hd95_pooled_mm"] == pytest.approx(PENALTY, abs=1e-6)


MASK = np.zeros((4, 4, 4), bool)


@pytest.mark.parametrize("metric", [dice, iou, sensitivity, specificity])
@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (MASK, MASK[1:], r"one shape; got \(4, 4, 4\) and \(3, 4, 4\)"),
        (MASK.astype(np.uint8), MASK, "truth must be a boolean mask of shape .* got uint8"),
        (MASK, MASK[0], r"prediction must be a boolean mask .* \(4, 4\)"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(metric, truth, prediction, message):
    """Masks of different shapes, other types or other numbers of axes are refused by all functions."""
    with pytest.raises(InputError, match=message):
        metric(truth, prediction)
    with pytest.raises(InputError, match=message):
        hausdorff_95_pooled(truth, prediction, ISOTROPIC)
    with pytest.raises(InputError, match=f"WT: .*{message}"):
        score_case(every_region(truth), every_region(prediction), ISOTROPIC, "brats2021")


@pytest.mark.parametrize("spacing_mm", [(1, 1), (1, 1, 0), (1, -1, 1), (1, math.nan, 1), (math.inf, 1, 1), 1.0])
def test_spacing_must_be_three_positive_numbers(spacing_mm):
    """Every function that returns millimetres refuses other spacings."""
    with pytest.raises(InputError, match="three positive numbers"):
        hausdorff_95_pooled(MASK, MASK, spacing_mm)
    with pytest.raises(InputError, match="three positive numbers"):
        volume_ml(MASK, spacing_mm)
    with pytest.raises(InputError, match="three positive numbers"):
        score_case({}, {}, spacing_mm, "brats2021")


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros(3, int), np.zeros(4, int), "one shape"),
        (np.zeros(3), np.zeros(3, int), "truth must be an integer label map .* float64"),
        (np.zeros(3, int), np.zeros(3, bool), "prediction must be an integer label map .* bool"),
        (np.zeros(0, int), np.zeros(0, int), "at least one voxel"),
    ],
)
def test_label_maps_that_cannot_be_compared_are_refused(truth, prediction, message):
    """Different shapes, other types and empty arrays are refused."""
    with pytest.raises(InputError, match=message):
        accuracy(truth, prediction)
    with pytest.raises(InputError, match=message):
        mean_iou(truth, prediction, (0, 1))


def test_mean_iou_refuses_a_label_it_was_not_told_of():
    """A value that is not among the classes is named, instead of being left out of the mean."""
    with pytest.raises(InputError, match=r"prediction: labels \[3\] are not among the classes \[0, 1\]"):
        mean_iou(np.array([0, 1, 1]), np.array([0, 1, 3]), (0, 1))
