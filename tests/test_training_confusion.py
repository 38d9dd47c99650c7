"""Confusion: counts over several batches, and the scores computed from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gliomask.labels import convert_labels, get_convention, to_regions
from gliomask.metrics import accuracy, mean_iou
from gliomask.training.confusion import Confusion

REGIONS = ("WT", "TC", "ET")
# What the classes 0-3 (background, ED, NCR, ET) are called in MSD's numbers, which go from the outside inwards too.
MSD = get_convention("msd")
MAPS = arrays(np.uint8, (2, 3, 4, 2), elements=st.integers(0, 3))


def channels(classes: NDArray[np.uint8], regions: tuple[str, ...] = REGIONS) -> NDArray[np.bool_]:
    """Return the region channels `(B, R, X, Y, Z)` of maps of classes `(B, X, Y, Z)`."""
    return np.stack([to_regions(one, MSD, regions) for one in classes])


@given(MAPS, MAPS)
@settings(deadline=None, max_examples=60)
def test_scores_are_those_of_the_label_maps(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
    """Accuracy and mean IoU of the region channels are those of the same tissues as numbers, voxel by voxel."""
    confusion = Confusion()
    confusion.add(channels(truth), channels(prediction), REGIONS)
    assert confusion.counts.sum() == truth.size
    assert confusion.accuracy() == pytest.approx(accuracy(truth, prediction))
    assert confusion.mean_iou() == pytest.approx(mean_iou(truth, prediction, range(4)))
    assert confusion.background_accuracy() == pytest.approx(accuracy(truth, np.zeros_like(truth)))


@given(MAPS, MAPS)
@settings(deadline=None, max_examples=20)
def test_batches_add_up(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
    """One batch of two gives the counts of two batches of one, in either order."""
    whole, parts = Confusion(), Confusion()
    whole.add(channels(truth), channels(prediction), REGIONS)
    for one in (1, 0):
        parts.add(channels(truth[one : one + 1]), channels(prediction[one : one + 1]), REGIONS)
    np.testing.assert_array_equal(whole.counts, parts.counts)


def test_the_order_of_the_channels_is_the_callers() -> None:
    """Channels in another order, named in that order, are the same tissues."""
    generator = np.random.default_rng(0)
    truth, prediction = generator.integers(0, 4, (2, 1, 5, 5, 5), dtype=np.uint8)
    one, other = Confusion(), Confusion()
    one.add(channels(truth), channels(prediction), REGIONS)
    turned = ("ET", "WT", "TC")
    other.add(channels(truth, turned), channels(prediction, turned), turned)
    np.testing.assert_array_equal(one.counts, other.counts)


def test_counts_by_hand() -> None:
    """Four voxels: background found, ED missed, ET called NCR, ET found; rows are the truth, columns the prediction."""
    truth, prediction = np.zeros((2, 1, 4, 1, 1), np.uint8)
    truth[0, :, 0, 0] = [0, 1, 3, 3]
    prediction[0, :, 0, 0] = [0, 0, 2, 3]
    confusion = Confusion()
    confusion.add(channels(truth), channels(prediction), REGIONS)
    assert confusion.counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]
    assert confusion.accuracy() == 2 / 4
    assert confusion.background_accuracy() == 1 / 4
    assert confusion.mean_iou() == pytest.approx((1 / 2 + 0 + 0 + 1 / 2) / 4)


def test_a_class_on_neither_side_is_left_out_of_the_mean() -> None:
    """Background and ED alone, both right: 1, and not 1/2."""
    truth = np.zeros((1, 4, 4, 4), np.uint8)
    truth[:, 0] = 1
    confusion = Confusion()
    confusion.add(channels(truth), channels(truth), REGIONS)
    assert confusion.mean_iou() == confusion.accuracy() == 1
    assert confusion.background_accuracy() == 0.75


def test_accuracy_flatters_who_finds_nothing() -> None:
    """A missed tumour of 2 voxels in 100 has accuracy 0.98, as an empty mask has; the mean IoU is lower."""
    truth = np.zeros((1, 10, 10, 1), np.uint8)
    truth[0, 0, :2] = 3
    confusion = Confusion()
    confusion.add(channels(truth), channels(np.zeros_like(truth)), REGIONS)
    assert confusion.accuracy() == confusion.background_accuracy() == 0.98
    assert confusion.mean_iou() == pytest.approx(0.98 / 2)


def test_the_innermost_region_wins_where_channels_disagree() -> None:
    """Channels of a network need not be nested: a voxel of ET without TC or WT is enhancing tumour."""
    alone = np.zeros((1, 3, 2, 2, 2), bool)
    alone[:, REGIONS.index("ET")] = True
    nested = np.ones_like(alone)
    confusion = Confusion()
    confusion.add(nested, alone, REGIONS)
    assert confusion.accuracy() == 1


def test_a_model_of_one_region_has_two_classes() -> None:
    """Whole tumour alone: its voxels are one class, and the two classes without a channel are left out."""
    truth, prediction = np.zeros((2, 1, 1, 4, 1, 1), bool)
    truth[..., 2:, :, :] = prediction[..., 1:, :, :] = True
    confusion = Confusion()
    confusion.add(truth, prediction, ("WT",))
    assert confusion.accuracy() == 0.75
    assert confusion.mean_iou() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_classes_are_the_tissues_of_brats() -> None:
    """1 is oedema, 2 the core without enhancement, 3 enhancing tumour, whatever numbers a year writes for them."""
    for name, numbers in (("brats2021", (0, 2, 1, 4)), ("brats2023", (0, 2, 1, 3)), ("brats2024-ped", (0, 4, 2, 1))):
        convention = get_convention(name)
        labels = np.array(numbers, np.uint8).reshape(1, 4, 1, 1)
        masks = np.stack([to_regions(one, convention, REGIONS) for one in labels])
        confusion = Confusion()
        confusion.add(masks, masks, REGIONS)
        assert confusion.counts.tolist() == np.eye(4, dtype=int).tolist()
        assert convert_labels(labels, convention, MSD, "here").ravel().tolist() == [0, 1, 2, 3]
