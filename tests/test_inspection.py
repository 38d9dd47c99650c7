"""Inspection: silence on what a model knows, a sentence with file and remedy on what it does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from gliomask.cases import MODALITIES, Case, Source
from gliomask.inspection import inspect, inspect_channels
from gliomask.phantom import make_phantom
from gliomask.volume import Volume, grid_at_spacing, reorient, resample

NAMES = tuple(MODALITIES)
FILES = {name: Path(f"patients/p_{name}.nii.gz") for name in NAMES}
SIZE = 80
MM = (3.0, 3.0, 3.0)


@cache
def phantom(seed: int = 1, size: int = SIZE) -> Volume:
    """An examination of four sequences on the grid of BraTS, with coarser voxels."""
    made = make_phantom(seed, size=size)
    return Volume(np.stack([made.images[name] for name in NAMES]), made.affine)


def said(volume: Volume, modalities: tuple[str, ...] = NAMES, spacing: tuple[float, float, float] = MM) -> list[str]:
    return list(inspect(volume, modalities, FILES, spacing_mm=spacing))


def changed(change: Callable[[np.ndarray], np.ndarray], volume: Volume | None = None) -> Volume:
    """Return the volume with changed voxels and the same header."""
    volume = volume or phantom()
    return Volume(change(volume.data), volume.affine)


@pytest.mark.parametrize("seed", range(1, 9))
def test_nothing_is_said_of_a_phantom(seed: int) -> None:
    """This is true of all four sequences, of three, and of a single one."""
    assert said(phantom(seed)) == []
    for kept in (*combinations(range(4), 3), (0,), (3,)):
        modalities = tuple(NAMES[place] for place in kept)
        assert said(Volume(phantom(seed).data[list(kept)], phantom(seed).affine), modalities) == []


def test_voxels_in_the_air_are_counted_and_nothing_else_is_said() -> None:
    """They are no part of the brain, so that its shape tells its orientation as before."""
    noisy = phantom().data.copy()
    noisy[1, :4, :4, :2] = [[[1, 0], [0, 0], [1, 0], [0, 0]]] * 4
    noisy[2, -1, -1, -1] = 9
    found = said(Volume(noisy, phantom().affine))
    assert len(found) == 1
    assert "t1c (p_t1c.nii.gz): 8 voxels; t2w (p_t2w.nii.gz): 1 voxel far from the brain" in found[0]


@pytest.mark.parametrize("axes", ["RAS", "SAL", "PIR", "LPS"])
def test_the_order_of_the_voxels_does_not_matter(axes: str) -> None:
    """Nor does a grid that is cropped to the brain, or an absent sequence."""
    turned = reorient(phantom(), axes)
    assert said(turned) == []
    inside = np.argwhere(turned.data.any(axis=0))
    (x, y, z), (to_x, to_y, to_z) = inside.min(axis=0), inside.max(axis=0) + 1
    assert said(changed(lambda data: data[:, x:to_x, y:to_y, z:to_z], turned)) == []
    without = turned.data.copy()
    without[0] = 0
    assert said(Volume(without, turned.affine)) == []


def _scalp(data: np.ndarray) -> np.ndarray:
    """Add a skull and fat around it, 6 mm each."""
    away = np.asarray(distance_transform_edt(~data.any(axis=0), sampling=3))
    made = data.copy()
    made[:, (away > 0) & (away <= 6)] = 20
    made[:, (away > 6) & (away <= 12)] = 1500
    return made


def _noise(data: np.ndarray) -> np.ndarray:
    return data + np.random.default_rng(0).integers(1, 9, data.shape).astype(data.dtype)


def _around_zero(data: np.ndarray) -> np.ndarray:
    brain = data != 0
    return np.where(brain, (data - data[brain].mean()) / data[brain].std(), 0).astype(np.float32)


def _all_around_zero(data: np.ndarray) -> np.ndarray:
    return ((data - data.mean()) / data.std()).astype(np.float32)


def _to_one(data: np.ndarray) -> np.ndarray:
    return (data / data.max(axis=(1, 2, 3), keepdims=True)).astype(np.float32)


def _slices_missing(data: np.ndarray) -> np.ndarray:
    made = data.copy()
    made[3, :, :, :22] = 0
    return made


def _ball(data: np.ndarray) -> np.ndarray:
    middle = np.argwhere(data.any(axis=0)).mean(axis=0)
    away = np.linalg.norm(np.moveaxis(np.indices(data.shape[1:]), 0, -1) - middle, axis=-1)
    return np.where(away < 12, data, 0)


FAULTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "noise": (_noise, r"t1n \(p_t1n.nii.gz\), .*100% of the field of view is not zero.*skull stripping"),
    "scalp": (_scalp, r"t1n \(p_t1n.nii.gz\).*bright rim.*skull stripping"),
    "background": (lambda data: data + np.int16(7), r"background is 7, not 0.*Set it to 0"),
    "normalized all": (_all_around_zero, r"the background is -0\.\d+, not 0"),
    "normalized": (_around_zero, r"negative intensities.*as they were before"),
    "fractions": (_to_one, r"intensities from 0 to 1.*as they were before"),
    "one twice": (lambda data: data[[0, 1, 2, 2]], r"t2w \(p_t2w.nii.gz\) and t2f \(p_t2f.nii.gz\): the same image"),
    "one twice, scaled": (
        lambda data: np.stack([data[0], data[0] * 2.5 + 3 * (data[0] != 0), *data[2:]]),
        "t1n .* and t1c .*: the same image twice",
    ),
    "slices missing": (_slices_missing, r"t2f \(p_t2f.nii.gz\): zero in \d\d% of the brain"),
    "half of it": (lambda data: data[:, :, :, 26:], "cut off at the bottom of the field of view"),
    "a side of it": (lambda data: data[:, 30:], "cut off at the right of the field of view"),
    "a bit of it": (_ball, r"\d+ mL are not zero, too little"),
    "upside down": (lambda data: data[:, :, :, ::-1], "upside down.*Repair the header"),
    "front to back": (lambda data: data[:, :, ::-1], "front and back seem swapped.*Repair the header"),
    "half a turn": (lambda data: data[:, :, ::-1, ::-1], "upside down"),
    "a quarter turn": (lambda data: data.swapaxes(1, 2), "axes seem swapped.*Repair the header"),
    "front up": (lambda data: data.swapaxes(2, 3)[:, :, ::-1], "axes seem swapped"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", [1, 4])
def test_one_fault_gets_one_sentence(fault: str, seed: int) -> None:
    """The sentence names the fault, the file, and what to do; consequences of the fault are not reported."""
    change, sentence = FAULTS[fault]
    (text,) = said(changed(change, phantom(seed)))
    assert re.search(sentence, text), text


def test_a_flip_of_left_and_right_cannot_be_seen() -> None:
    """A brain is symmetric, so this cannot be detected; docs/predicting.md says so."""
    assert said(changed(lambda data: data[:, ::-1])) == []


@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize(("one", "other"), list(combinations(NAMES, 2)))
def test_swapped_sequences_are_told(one: str, other: str, seed: int) -> None:
    """Swapped files are found among four and among three images, with what each looks like."""
    third = next(name for name in reversed(NAMES) if name not in (one, other))
    for given in (NAMES, (one, other, third)):
        places = [NAMES.index({one: other, other: one}.get(name, name)) for name in given]
        (text,) = said(Volume(phantom(seed).data[places], phantom(seed).affine), given)
        assert f"{one} (p_{one}.nii.gz) looks like {other}" in text
        assert f"{other} (p_{other}.nii.gz) looks like {one}" in text


def test_a_sequence_given_as_an_absent_one_is_told() -> None:
    """T1 without contrast is given as T1 with contrast."""
    (text,) = said(Volume(phantom().data[[0, 2, 3]], phantom().affine), ("t1c", "t2w", "t2f"))
    assert "t1c (p_t1c.nii.gz) looks like t1n" in text


def test_intensities_may_be_scaled_in_any_way() -> None:
    """Each sequence has its own factor and gamma, because intensities have no units."""
    data = phantom().data.astype(np.float32)
    made = np.stack(
        [(channel / channel.max()) ** gamma * 900 for channel, gamma in zip(data, (0.8, 1, 1.2, 1), strict=True)]
    )
    assert said(Volume(made, phantom().affine)) == []


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (MM, None),
        ((2.9, 3.1, 3.3), None),
        ((1.0, 1.0, 1.0), "interpolated"),
        ((3.0, 3.0, 6.0), "3 x 3 x 3 mm; the model expects 3 x 3 x 6"),
    ],
)
def test_another_voxel_size_is_said(known: tuple[float, float, float], words: str | None) -> None:
    """The voxel size is compared with the model's, and the consequence of thick slices is stated."""
    texts = said(phantom(), spacing=known)
    assert len(texts) == (words is not None)
    assert words is None or words in texts[0]


def test_the_models_axes_are_those_of_its_voxel_size() -> None:
    """Thick slices fit a model for thick slices, in any order of the axes."""
    thick = resample(phantom(), grid_at_spacing(phantom().grid, (3, 3, 6)))
    assert said(reorient(thick, "SAL"), spacing=(3, 3, 6)) == []
    assert inspect(thick, NAMES, {}, spacing_mm=(6, 3, 3), axes="SPL") == ()


def test_a_wrong_voxel_size_in_the_header_is_said() -> None:
    """Twice the size is eight times the brain."""
    texts = said(Volume(phantom().data, phantom().affine @ np.diag([2, 2, 2, 1])), spacing=(6, 6, 6))
    assert len(texts) == 1
    assert "too much for a brain" in texts[0]


def test_nothing_at_all_is_said_to_be_nothing() -> None:
    """Nothing else is reported."""
    assert said(Volume(np.zeros_like(phantom().data), phantom().affine)) == ["every image is empty: nothing to find."]


def test_a_sequence_of_nothing_but_specks_is_said_to_lack_the_brain() -> None:
    """It is zero wherever the brain is, but for some voxels far from it."""
    data = phantom().data.copy()
    data[2] = 0
    data[2, :2, :2, :2] = 7
    texts = said(Volume(data, phantom().affine))
    assert any(f"{NAMES[2]} (p_{NAMES[2]}.nii.gz): zero in 100% of the brain" in text for text in texts), texts


def test_the_voxels_stay_as_they_were() -> None:
    """Inspecting does not change the data."""
    before = phantom().data.copy()
    said(phantom())
    np.testing.assert_array_equal(phantom().data, before)


def test_channels_of_any_voxel_size_are_inspected_alike() -> None:
    """`check` inspects so, without a model."""
    channels = {
        name: Volume(channel[None], phantom().affine) for name, channel in zip(NAMES, phantom().data, strict=True)
    }
    case = Case("p", {name: Source(path) for name, path in FILES.items()})
    assert inspect_channels(case, channels) == ()
    (text,) = inspect_channels(case, channels | {"t2f": Volume(channels["t2f"].data + 3, phantom().affine)})
    assert "t2f (p_t2f.nii.gz): the background is 3" in text


@pytest.mark.parametrize(("count", "words"), [(1, "1 voxel (the farthest is 1e+06)"), (3, "3 voxels (the farthest is")])
def test_voxels_far_outside_the_range_are_reported(count: int, words: str) -> None:
    """With the sequence, their number and the farthest; the same images without them give no such warning."""
    data = np.random.default_rng(0).integers(100, 900, (2, 30, 30, 30)).astype(np.float32)
    grid = Volume(data, np.diag([-5.0, -5.0, 5.0, 1.0]))
    names = ("t1c", "t2f")
    assert not [text for text in inspect(grid, names, {}) if "far outside" in text]
    data[1, 10, 10, 10 : 10 + count] = 1e6
    [found] = [text for text in inspect(grid, names, {}) if "far outside" in text]
    assert found.startswith(f"t2f: {words}")
