"""Laws of plans made elsewhere: spline resampling, normalization of each sequence, other windows, and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import softmax as scipy_softmax
from torch import Tensor, nn

from gliomask.inference import windows
from gliomask.inference.averaging import decide
from gliomask.inference.loading import Model
from gliomask.inference.postprocessing import class_masks, clean, region_probabilities, softmax
from gliomask.inference.preprocessing import onto_frame, prepare, restore
from gliomask.inference.resampling import resize, target_shape
from gliomask.inference.windows import Inference
from gliomask.model.plan import Plan, Postprocessing, RegionRule
from gliomask.model.sampling import Resampling, Spline, Windows
from gliomask.volume import Volume

CLASSES = ("", "ED", "NCR", "ET")
REGIONS = ("WT", "TC", "ET")


def a_plan(**changes: Any) -> Plan:
    """Return a plan for two sequences."""
    return Plan(**({"modalities": ("t1c", "t2f"), "patch_size": (16, 16, 16)} | changes))


def examination(shape: tuple[int, int, int] = (20, 24, 18), spacing: tuple[float, ...] = (1, 1, 1)) -> Volume:
    """Return two channels that are zero outside an ellipsoid, and zero in one place within it."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1.3, 1.3, n) for n in shape), indexing="ij"))
    inside = (grid**2).sum(axis=0) < 1
    values = np.random.default_rng(0).integers(50, 400, (2, *shape)) * inside
    values[:, shape[0] // 2, shape[1] // 2, shape[2] // 2] = 0
    return Volume(values.astype(np.int16), np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]))


@pytest.mark.parametrize("order", [1, 3])
def test_resizing_keeps_a_linear_ramp(order: Any) -> None:
    """Between the outermost voxels a ramp stays a ramp at the new voxels' places; outer faces coincide."""
    ramp = np.broadcast_to(np.arange(12.0)[:, None, None], (1, 12, 6, 6))
    found = resize(ramp, (18, 6, 6), Spline(order=order), (1.5, 1, 1), (1, 1, 1))
    places = (np.arange(18) + 0.5) * 12 / 18 - 0.5
    within = (places > 2) & (places < 9)
    np.testing.assert_allclose(found[0, within, 3, 3], places[within], atol=0.02)
    assert found.min() >= 0
    assert found.max() <= 11


def test_thick_slices_are_resampled_separately() -> None:
    """Along the axis of slices that are more than three times as thick the nearest slice is taken."""
    slices = np.random.default_rng(0).normal(size=(1, 5, 8, 8))
    found = resize(slices, (20, 8, 8), Spline(), (4, 1, 1), (1, 1, 1))
    np.testing.assert_allclose(found[0], np.repeat(slices[0], 4, axis=0), atol=1e-6)
    blended = resize(slices, (20, 8, 8), Spline(separate=False), (4, 1, 1), (1, 1, 1))
    assert np.abs(blended - found).max() > 0.1
    finer = resize(slices, (25, 12, 12), Spline(order=1), (5, 1.5, 1.5), (1, 1, 1))
    np.testing.assert_array_equal(finer[0, 0], finer[0, 3])


def test_shapes_are_rounded_to_the_nearest_voxel() -> None:
    """A box keeps its extent."""
    assert target_shape((135, 170, 136), (1, 1, 1), (2, 1.5, 1.5)) == (68, 113, 91)
    assert target_shape((1, 1, 1), (1, 1, 1), (9, 9, 9)) == (1, 1, 1)


@pytest.mark.parametrize("axes", ["LPS", "SPL"])
def test_logits_come_back_to_the_images_grid(axes: str) -> None:
    """After resampling by splines in both directions a smooth blob lies where it was, on the exact affine."""
    volume = examination(spacing=(1, 1, 2))
    plan = a_plan(axes=axes, spacing_mm=(1.5, 1.2, 1.0), resampling=Resampling())
    prepared = prepare(volume, plan)
    assert prepared.data.shape[1:] != prepared.framed.data.shape[1:]
    back = restore(prepared, onto_frame(prepared, prepared.data, plan))
    np.testing.assert_array_equal(back.affine, volume.affine)
    assert back.data.shape == volume.data.shape
    inside = volume.data[0] > 0
    assert np.corrcoef(back.data[0][inside], volume.data[0][inside])[0, 1] > 0.5


def test_native_axes_keep_their_voxel_size() -> None:
    """A 2-D network's slices stay as they are."""
    plan = a_plan(spacing_mm=(2.0, 2.0, 1.0), resampling=Resampling(native_axes=(0,)))
    prepared = prepare(examination(), plan)
    framed = prepared.framed.data.shape[1:]
    assert prepared.data.shape[1:] == (framed[0], round(framed[1] / 2), framed[2])


def test_each_sequence_has_its_own_normalization() -> None:
    """The brain with what it encloses, the box, a range or nothing; zero is an intensity like others there."""
    volume = examination()
    inside = volume.data[0] > 0
    hole = tuple(n // 2 for n in inside.shape)
    brain, box = (
        prepare(volume, a_plan(channel_normalization=pair))
        for pair in (("zscore_brain",) * 2, ("zscore_box", "rescale"))
    )
    x, y, z = brain.framed.box
    place = tuple(at - cut.start for at, cut in zip(hole, (x, y, z), strict=True))
    whole = inside[x, y, z].copy()
    whole[place] = True
    assert abs(brain.data[0][whole].mean()) < 1e-5
    assert abs(brain.data[0][whole].std() - 1) < 1e-5
    assert brain.data[0][place] < -1
    assert not brain.data[0][~whole].any()
    assert abs(box.data[0].mean()) < 1e-5
    assert (box.data[1].min(), box.data[1].max()) == (0, 1)
    plain = prepare(volume, a_plan(channel_normalization=("none", "zscore"), crop=False))
    np.testing.assert_array_equal(plain.data[0], volume.data[0])
    np.testing.assert_array_equal(plain.data[1], prepare(volume, a_plan(crop=False)).data[1])


def test_windows_lie_as_nnunets_and_monais() -> None:
    """Evenly spaced, or a fixed step with the last window moved to the end."""
    for length in range(16, 90):
        even = windows._starts(length, 16, Windows())
        count = int(np.ceil((length - 16) / 8)) + 1
        step = (length - 16) / (count - 1) if count > 1 else 0
        assert even == [int(np.round(step * i)) for i in range(count)]  # `compute_steps_for_sliding_window`
        fixed = windows._starts(length, 16, Windows(placement="fixed", overlap=0.25))
        assert fixed[-1] == length - 16
        assert fixed[:-1] == list(range(0, length - 16, 12))


def test_weights_are_nnunets() -> None:
    """A point in voxel `edge // 2` smoothed by a Gaussian of an eighth of the edge."""
    size = (12, 16, 8)
    point = np.zeros(size)
    point[6, 8, 4] = 1
    expected = gaussian_filter(point, [n / 8 for n in size], mode="constant")
    found = windows._weights(size, Windows(centre="voxel", least_weight=1e-9))
    np.testing.assert_allclose(found, expected / expected.max(), rtol=1e-3, atol=1e-7)
    assert (windows._weights(size, Windows(sigma=None)) == 1).all()


class Sideways(nn.Module):
    """Move the images by one voxel along X within each window."""

    divisor = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        return images.roll(1, dims=2) * self.scale


@pytest.mark.parametrize(("axes", "passes"), [((0, 1, 2), 8), ((0,), 2), ((), 1)])
def test_each_window_is_mirrored_along_the_allowed_axes(axes: tuple[int, ...], passes: int) -> None:
    """The mean over mirror images of a window is symmetric; without axes nothing is mirrored."""
    plan = a_plan(regions=("WT", "TC"), windows=Windows(mirror_windows=True), mirror_axes=axes)
    network = Sideways()
    data = np.random.default_rng(0).normal(size=(2, 16, 16, 16)).astype(np.float32)
    data = (data + data[:, ::-1]) / 2
    logits, _ = Model(plan, network, "sideways").run(data, Inference("sliding", True, "fp32"))
    assert network.seen == passes
    assert np.allclose(logits, logits[:, ::-1], atol=1e-5) == (passes > 1)


def test_the_most_probable_class_decides() -> None:
    """A voxel of three tumour classes together more probable than the background stays background."""
    logits = np.log(np.array([[0.4, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.1], [0.1, 0.1, 0.7]], np.float32))
    logits = logits[:, :, None, None]
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=0), atol=1e-6)
    plan = a_plan(classes=CLASSES)
    probabilities, masks = decide(logits, plan)
    np.testing.assert_allclose(
        probabilities[:, :, 0, 0], [[0.6, 0.9, 0.9], [0.3, 0.3, 0.8], [0.1, 0.1, 0.7]], atol=1e-6
    )
    assert masks[:, :, 0, 0].tolist() == [[False, True, True], [False, False, True], [False, False, True]]
    kept = clean(probabilities, REGIONS, Postprocessing(), (1, 1, 1), masks)
    np.testing.assert_array_equal(kept, masks)
    lower = Postprocessing(regions={"WT": RegionRule(threshold=0.55)})
    assert clean(probabilities, REGIONS, lower, (1, 1, 1), masks)[0, :, 0, 0].all()


def test_outside_the_brain_the_background_is_the_most_probable() -> None:
    """Where no probability is known all are zero."""
    nothing = np.zeros((4, 2, 2, 2), np.float32)
    assert not class_masks(nothing, CLASSES, REGIONS).any()
    rule = Postprocessing(regions={"WT": RegionRule(temperature=2)})
    assert not region_probabilities(nothing, CLASSES, REGIONS, rule).any()


def test_a_temperature_softens_a_regions_probability() -> None:
    """It divides the log odds of the sum of the region's classes."""
    probabilities = np.array([[0.1], [0.6], [0.2], [0.1]], np.float32)
    rule = Postprocessing(regions={"WT": RegionRule(temperature=2)})
    found = region_probabilities(probabilities, CLASSES, ("WT",), rule)
    odds = np.sqrt(0.9 / 0.1)
    np.testing.assert_allclose(found[0], odds / (1 + odds), rtol=1e-5)
