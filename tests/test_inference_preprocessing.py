"""Laws of preprocessing: `restore` undoes `prepare`, and a few extreme voxels do not change the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import expit

from conftest import AFFINE, SHAPE, nested_ellipsoids
from gliomask.cases import MODALITIES, Case, find_cases
from gliomask.errors import InputError
from gliomask.inference.preprocessing import (
    Prepared,
    brain_box,
    channel_moments,
    common_spacing,
    frame,
    normalize,
    onto_plan,
    prepare,
    replace_outliers,
    restore,
)
from gliomask.inspection import find_outliers
from gliomask.model.plan import Plan
from gliomask.volume import Volume, reorient

SPACING = tuple(np.linalg.norm(AFFINE[:3, :3], axis=0).tolist())


def examination(modalities: tuple[str, ...] = tuple(MODALITIES)) -> Volume:
    images, _ = nested_ellipsoids()
    return Volume(np.stack([images[modality] for modality in modalities]), AFFINE)


def a_plan(**changes: object) -> Plan:
    return Plan(**{"modalities": tuple(MODALITIES), "spacing_mm": SPACING, **changes})


def in_box(prepared: Prepared, whole: np.ndarray) -> np.ndarray:
    """Return the part of `(C, X, Y, Z)`, on the original grid, that lies on the prepared one."""
    framed = prepared.framed
    x, y, z = framed.box
    return reorient(Volume(whole, framed.original.affine), framed.grid.axes).data[:, x, y, z]


@pytest.mark.parametrize("given", ["LPS", "RAS", "SAL", "PIR", "ASR"])
@pytest.mark.parametrize("seen", ["LPS", "RAI", "IRP"])
def test_restoring_is_exact_without_resampling(given: str, seen: str) -> None:
    """For any orientation of the file and the network: grid, affine and every voxel of the brain's box."""
    volume = reorient(examination(), given)
    spacing = reorient(volume, seen).spacing_mm
    prepared = prepare(volume, a_plan(axes=seen, spacing_mm=spacing))
    box = prepared.framed
    assert box.grid.axes == seen
    back = restore(prepared, box.data.astype(np.float32))
    assert back.grid.difference(volume.grid) is None
    np.testing.assert_array_equal(back.affine, volume.affine)
    np.testing.assert_array_equal(back.data, volume.data)


def test_restored_channels_are_zero_outside_the_brain() -> None:
    """Inside the brain's box they are what the network returned."""
    volume = examination()
    prepared = prepare(volume, a_plan())
    answer = restore(prepared, np.ones((2, *prepared.data.shape[1:]), np.float32))
    x, y, z = brain_box(volume.data)
    expected = np.zeros((2, *SHAPE), np.float32)
    expected[:, x, y, z] = 1
    np.testing.assert_array_equal(answer.data, expected)
    assert answer.data.dtype == np.float32


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.2, 2.0), (1.0, 2.0, 4.0)])
@pytest.mark.parametrize("given", ["LPS", "SAR"])
def test_channels_at_another_spacing_are_restored_in_place(given: str, spacing: tuple[float, float, float]) -> None:
    """They are on the input's grid, and a region drawn on the network's grid lies at its place in space."""
    volume = reorient(examination(), given)
    tumour = reorient(Volume((nested_ellipsoids()[1] > 0)[None].astype(np.uint8), AFFINE), given)
    plan = a_plan(spacing_mm=spacing)
    prepared = prepare(volume, plan)
    x, y, z = prepared.framed.box
    seen = onto_plan(tumour, plan, nearest=True).data[:, x, y, z].astype(np.float32)
    assert seen.shape[1:] == prepared.data.shape[1:]
    np.testing.assert_allclose(prepared.framed.grid.spacing_mm, spacing, rtol=0.05)
    back = restore(prepared, seen)
    assert back.data.shape == (1, *volume.data.shape[1:])
    np.testing.assert_array_equal(back.affine, volume.affine)
    found, true = back.data[0] > 0.5, tumour.data[0] > 0
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9


@pytest.mark.parametrize(
    ("spacing", "tilt"), [((2.0, 1.0, 1.5), (12, -9, 20)), ((2.0, 1.0, 1.5), (80, 5, 10)), ((0.8, 0.8, 4.0), (0, 0, 0))]
)
def test_a_volume_in_ml_survives_an_oblique_anisotropic_grid(
    spacing: tuple[float, float, float], tilt: tuple[float, float, float]
) -> None:
    """A sphere of 15 mm, segmented at 1 mm by its brightness, keeps its volume and its position."""
    shape = tuple(int(60 // mm) for mm in spacing)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() * np.multiply(spacing, [-1, -1, 1])
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T
    away = np.linalg.norm(places - affine[:3, :3] @ np.divide(shape, 2.1), axis=-1)
    volume = Volume(np.where(away < 15, 900, 300)[None].astype(np.int16), affine)
    prepared = prepare(volume, a_plan(modalities=("t1c",), spacing_mm=(1.0, 1.0, 1.0)))
    halfway = (prepared.data.min() + prepared.data.max()) / 2
    found = restore(prepared, expit((prepared.data - halfway) * 6).astype(np.float32)).data[0]
    true = away < 15
    voxel_ml = np.prod(spacing) / 1000
    assert (found > 0.5).sum() * voxel_ml == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.03)
    assert found.sum() * voxel_ml == pytest.approx(true.sum() * voxel_ml, rel=0.03)
    assert 2 * ((found > 0.5) & true).sum() / ((found > 0.5).sum() + true.sum()) > 0.98


def test_spacings_that_differ_by_rounding_are_equal() -> None:
    """BraTS headers hold 1.0 and 0.99999; such volumes are not resampled."""
    volume = examination()
    x, y, z = SPACING
    close = onto_plan(volume, a_plan(spacing_mm=(x * 1.009, y * 0.991, z)))
    assert np.shares_memory(close.data, volume.data)
    other = onto_plan(volume, a_plan(spacing_mm=(x * 1.02, y, z)))
    assert not np.shares_memory(other.data, volume.data)


@pytest.mark.parametrize("kind", ["int16", "uint16", "float32", ">i2"])
def test_zscores_have_mean_0_and_deviation_1_over_the_brain(kind: str) -> None:
    """Each sequence's non-zero voxels have zero mean and unit variance; the background stays zero."""
    volume = examination()
    prepared = prepare(Volume(volume.data.astype(kind), AFFINE), a_plan())
    assert prepared.data.dtype == np.float32
    assert prepared.present == (True,) * 4
    zero = in_box(prepared, volume.data) == 0
    assert zero.any()
    assert not prepared.data[zero].any()
    for channel, outside in zip(prepared.data, zero, strict=True):
        assert channel[~outside].mean() == pytest.approx(0, abs=1e-4)
        assert channel[~outside].std() == pytest.approx(1, abs=1e-4)


def test_minmax_lies_in_0_to_1() -> None:
    """The minimum of a sequence, its background, becomes 0 and the maximum 1; between them it is linear."""
    volume = examination()
    prepared = prepare(volume, a_plan(normalization="minmax"))
    assert (prepared.data.min(), prepared.data.max()) == (0, 1)
    raw = in_box(prepared, volume.data)
    for channel, stored in zip(prepared.data, raw, strict=True):
        np.testing.assert_allclose(channel, stored / stored.max(), atol=1e-6)


@pytest.mark.parametrize("normalization", ["zscore", "minmax"])
def test_a_missing_sequence_stays_zero_and_is_reported(normalization: str) -> None:
    """The other sequences are the same as without it."""
    volume = examination()
    without = volume.data.copy()
    without[1] = 0
    prepared = prepare(Volume(without, AFFINE), a_plan(normalization=normalization))
    assert prepared.present == (True, False, True, True)
    assert not prepared.data[1].any()
    others = [0, 2, 3]
    np.testing.assert_array_equal(
        prepared.data[others], prepare(volume, a_plan(normalization=normalization)).data[others]
    )


@pytest.mark.parametrize("normalization", ["zscore", "minmax"])
@pytest.mark.parametrize("level", [7, -3])
def test_a_constant_sequence_stays_finite(normalization: str, level: int) -> None:
    """A failed export or a mask given as an image must not lead to a division by zero."""
    data = np.full((1, 6, 6, 6), level, np.int16)
    for volume in (data, np.where(np.arange(6) < 3, data, 0)):
        prepared = prepare(Volume(volume, AFFINE), a_plan(modalities=("t2f",), normalization=normalization))
        assert np.isfinite(prepared.data).all()
        assert np.abs(prepared.data).max() <= 1


def test_a_part_is_normalized_like_the_whole() -> None:
    """Training cuts patches from stored intensities and normalizes each by itself."""
    framed = frame(examination(), a_plan())
    moments = [channel_moments(channel) for channel in framed.data]
    whole = normalize(framed.data, moments, "zscore")
    part = np.s_[:, 3:9, 5:6, 2:12]
    np.testing.assert_array_equal(normalize(framed.data[part], moments, "zscore"), whole[part])


def test_moments_are_those_of_the_non_zero_voxels() -> None:
    """Computed by hand; sums over many voxels stay precise."""
    moments = channel_moments(np.array([0, 0, 2, 4, 0, -1], np.int16))
    assert (moments.mean, moments.least, moments.most) == (pytest.approx(5 / 3), -1, 4)
    assert moments.std == pytest.approx(np.std([2, 4, -1]))
    many = np.full(2_000_000, 1000.1, np.float32)
    assert channel_moments(many).mean == pytest.approx(float(np.float32(1000.1)), rel=1e-9)
    empty = channel_moments(np.zeros(5))
    assert (empty.mean, empty.std) == (0, 1)


def test_the_box_is_the_smallest_around_the_brain() -> None:
    """The box holds every non-zero voxel of every channel; without any it is the whole grid."""
    data = np.zeros((2, 9, 8, 7), np.int16)
    assert brain_box(data) == (slice(0, 9), slice(0, 8), slice(0, 7))
    data[0, 2, 3, 4] = 5
    assert brain_box(data) == (slice(2, 3), slice(3, 4), slice(4, 5))
    data[1, 8, 1, 6] = -5
    assert brain_box(data) == (slice(2, 9), slice(1, 4), slice(4, 7))


def test_a_few_voxels_in_the_air_change_nothing() -> None:
    """Noise of 1 in the corners would make the box as large as the field of view; a second half of a brain is kept."""
    data = np.zeros((2, 60, 50, 40), np.int16)
    data[:, 20:50, 20:44, 10:30] = np.random.default_rng(0).integers(300, 500, (2, 30, 24, 20))
    clean = Volume(data, np.diag([-1.0, -1.0, 1.0, 1.0]))
    noisy = Volume(data.copy(), clean.affine)
    noisy.data[0, ::12, ::14, 0] = 1
    noisy.data[1, 2, 2, 2] = -1
    noisy.data[0, 4:6, 4:6, 34:36] = 7
    noisy.data[0, 18, 30, 20] = noisy.data[1, 30, 46, 32] = 1
    frames = [frame(volume, a_plan(spacing_mm=(1.0, 1.0, 1.0))) for volume in (clean, noisy)]
    assert frames[0].box == frames[1].box
    np.testing.assert_array_equal(frames[0].data, frames[1].data)
    data[0, 2:12, 2:12, 2:12] = 400
    assert brain_box(data) == (slice(2, 50), slice(2, 44), slice(2, 30))


def test_framing_keeps_the_data_type() -> None:
    """int16 halves the size of a cache; only resampling needs floats."""
    framed = frame(examination(), a_plan())
    assert framed.data.dtype == np.int16
    assert frame(examination(), a_plan(spacing_mm=(1.0, 1.0, 1.0))).data.dtype == np.float32
    assert framed.original.shape == SHAPE


def test_the_input_is_not_changed() -> None:
    """Normalization does not change its argument."""
    volume = examination()
    before = volume.data.copy()
    prepare(volume, a_plan())
    np.testing.assert_array_equal(volume.data, before)


def test_the_common_spacing_is_the_median_along_the_networks_axes(
    folder_of: Callable[..., Path], write_case: Callable[..., Case]
) -> None:
    """Rounded to 0.01 mm, in the order of the network's axes."""
    cases = find_cases(folder_of(2))
    x, y, z = (round(mm, 2) for mm in SPACING)
    assert common_spacing(cases, "LPS") == (x, y, z)
    assert common_spacing(cases, "SLP") == (z, x, y)
    with pytest.raises(InputError, match="nothing to prepare"):
        common_spacing([], "LPS")


def spiked(value: float, *, count: int = 1, channel: int = 1, where: str = "brain") -> Volume:
    """Return the examination, as float32, with a few neighbouring voxels of one channel set to a value."""
    volume = examination()
    data = volume.data.astype(np.float32)
    inside = np.argwhere((data[channel] != 0) == (where != "background"))
    if where == "tumour":
        inside = np.argwhere(nested_ellipsoids()[1] == 3)
    data[channel][tuple(inside[len(inside) // 2 :][:count].T)] = value
    return Volume(data, volume.affine)


@pytest.mark.parametrize("normalization", ["zscore", "minmax"])
@pytest.mark.parametrize("where", ["brain", "tumour", "background"])
@pytest.mark.parametrize(("value", "count"), [(1e7, 1), (-1e7, 1), (65535, 20), (-32768, 5), (3e38, 2), (-3e38, 2)])
def test_a_few_extreme_voxels_do_not_change_the_others(
    normalization: str, where: str, value: float, count: int
) -> None:
    """All other voxels stay the same but for a small change of the moments; the extreme ones become ordinary."""
    plan = a_plan(normalization=normalization)
    clean, found = prepare(examination(), plan), prepare(spiked(value, count=count, where=where), plan)
    assert found.framed.replaced == (0, count, 0, 0)
    assert found.framed.box == clean.framed.box
    changed = np.abs(found.data - clean.data) > 0.05
    assert np.count_nonzero(changed) <= count
    assert np.abs(found.data - clean.data).max() < np.ptp(clean.data[1])
    np.testing.assert_array_equal(found.data[[0, 2, 3]], clean.data[[0, 2, 3]])


def test_ordinary_images_are_not_touched() -> None:
    """Without extreme voxels the volume is the same object, also with the brightest voxel seen in real images."""
    volume = examination()
    low, middle, high = np.percentile(volume.data[1][volume.data[1] != 0], (1, 50, 99))
    for value in (middle + 10 * (high - middle), middle - 3 * (middle - low)):
        for one in (volume, spiked(value)):
            same, counts = replace_outliers(one)
            assert same is one
            assert counts == (0, 0, 0, 0)


def test_many_voxels_far_away_are_a_distribution() -> None:
    """More than one voxel in a hundred is not an accident: nothing is replaced."""
    volume = spiked(1e6, count=400)
    assert replace_outliers(volume)[0] is volume


def test_larger_holes_are_filled_from_outside_inwards() -> None:
    """In a channel that increases linearly every voxel of a cube gets a value of its surroundings."""
    data = np.broadcast_to(np.arange(100, 140, dtype=np.int16)[:, None, None], (1, 40, 40, 40)).copy()
    before = data.copy()
    data[0, 18:22, 18:22, 18:22] = 30000
    filled, counts = replace_outliers(Volume(data, np.eye(4)))
    assert counts == (64,)
    assert filled.data.dtype == np.int16
    assert np.abs(filled.data - before).max() <= 3
    assert (data == 30000).sum() == 64


def test_sparse_and_empty_channels_have_no_outliers() -> None:
    """Too few voxels to judge by, or all of the same value."""
    channel = np.zeros((10, 10, 10), np.float32)
    assert find_outliers(channel) is None
    channel[0, 0, :5] = (1, 2, 3, 4, 1e9)
    assert find_outliers(channel) is None
    channel[:] = 7
    channel[5, 5, 5] = 8
    assert find_outliers(channel) is None


@pytest.mark.parametrize("mm", [10.0, 200.0, 1e5, 0.001, 1e-6])
def test_a_voxel_size_that_is_no_heads_is_refused(mm: float) -> None:
    """Resampling it would need all memory, or leave a single voxel; the message names the size."""
    volume = Volume(examination().data[:1].repeat(8, 1).repeat(8, 2), np.diag([-mm, -mm, mm, 1]))
    with pytest.raises(InputError, match=r"voxels of .* mm and a field of view of .* mm"):
        prepare(volume, a_plan(modalities=("t1c",)))


@pytest.mark.parametrize("shift_mm", [0.01, 0.0001])
def test_small_voxels_that_are_resampled_are_restored_to_their_grid(shift_mm: float) -> None:
    """Also where two grids differ by less than the tolerance for rounding in headers."""
    spacing = 0.2 + shift_mm
    volume = Volume(np.ones((1, 30, 30, 30), np.float32), np.diag([-spacing, -spacing, spacing, 1]))
    prepared = prepare(volume, a_plan(modalities=("t1c",), spacing_mm=(0.2, 0.2, 0.2)))
    assert restore(prepared, prepared.data).data.shape == volume.data.shape
