"""The augmentation of a patch: reproducibility, frequency, and what must not change."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gliomask.errors import InputError
from gliomask.training.augment import Augmentation, augment, drop_modalities
from gliomask.training.augment.brain import find_brain
from gliomask.training.augment.faults import sample_shift
from gliomask.training.augment.patch import sample_intensity
from gliomask.training.augment.spatial import sample_flip, sample_turn
from round_brain import ALWAYS, ANISOTROPIC, STILL, seeded, some

SCALED = replace(STILL, scaling_probability=1)
"""Scaling has a separate implementation if nothing is rotated or deformed."""


def test_the_preset_that_changes_nothing() -> None:
    """`Augmentation.none()` gives equal tensors in new memory."""
    image, target = some()
    new_image, new_target = augment(image, target, seeded(), Augmentation.none())
    assert torch.equal(new_image, image)
    assert torch.equal(new_target, target)
    assert new_image.data_ptr() != image.data_ptr()
    assert new_target.data_ptr() != target.data_ptr()


def test_times_multiplies_chances_alone() -> None:
    """A factor of 1 changes nothing, 0 is none, more is limited to 1, and to 0.5 for flips."""
    settings = Augmentation(gamma_probability=0.6)
    assert settings.times(1) == settings
    assert settings.times(0) == replace(Augmentation.none(), gamma_range=settings.gamma_range)
    twice = settings.times(2)
    assert (twice.rotation_probability, twice.gamma_probability) == (0.4, 1.0)
    assert twice.flip_probability == settings.flip_probability == 0.5
    assert twice.rotation_range == settings.rotation_range
    for factor in (-1, math.nan, math.inf):
        with pytest.raises(InputError, match="multiplied"):
            settings.times(factor)


@pytest.mark.parametrize("shape", [ANISOTROPIC, (7, 16, 33), (1, 8, 8)])
def test_arguments_stay_and_shapes_too(shape: tuple[int, int, int]) -> None:
    """Patches of any size keep it and stay finite, and the arguments are not changed."""
    image = torch.randn(3, *shape, generator=seeded())
    target = image[:2] > 1
    kept = image.clone(), target.clone()
    new_image, new_target = augment(image, target, seeded(), ALWAYS)
    assert torch.equal(image, kept[0])
    assert torch.equal(target, kept[1])
    assert (new_image.shape, new_image.dtype) == (image.shape, torch.float32)
    assert (new_target.shape, new_target.dtype) == (target.shape, torch.bool)
    assert new_image.isfinite().all()
    assert not torch.equal(new_image, image)


def test_the_seed_decides() -> None:
    """The same seed gives the same bits and leaves the generator in the same state; another seed, another patch."""
    image, target = some()
    one, other = seeded(5), seeded(5)
    first, again = augment(image, target, one, ALWAYS), augment(image, target, other, ALWAYS)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(one.get_state(), other.get_state())
    assert not torch.equal(first[0], augment(image, target, seeded(6), ALWAYS)[0])


@pytest.mark.parametrize("settings", [ALWAYS, SCALED], ids=["everything", "scaled"])
def test_threads_do_not_decide(settings: Augmentation) -> None:
    """One thread and three give the same bits on a patch large enough for several threads."""
    image, target = some((64, 48, 48))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(augment(image, target, seeded(1), settings))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_background_and_absent_channels_stay_zero_through_it_all() -> None:
    """Without geometric changes the brain mask is kept; a missing sequence stays missing in any case."""
    image, target = some()
    image[1] = 0
    assert torch.equal(find_brain(augment(image, target, seeded(), STILL)[0]), find_brain(image))
    for seed in range(5):
        changed, _ = augment(image, target, seeded(seed), ALWAYS)
        assert (changed[1] == 0).all()
        assert changed[0].any()
        assert changed[2].any()


def test_a_patch_of_background_stays_one() -> None:
    """A patch of zeros gives a patch of zeros."""
    image, target = torch.zeros(2, 8, 8, 8), torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    changed, regions = augment(image, target, seeded(), ALWAYS)
    assert not changed.any()
    assert not regions.any()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("shape", [(9, 9, 9), (1, 1, 1), (2, 33, 5)])
def test_a_brain_of_one_voxel_stays_finite(shape: tuple[int, int, int], channels: int) -> None:
    """For any number of channels and patch size, nothing is divided by a deviation or range of 0."""
    image, target = torch.zeros(channels, *shape), torch.zeros(1, *shape, dtype=torch.bool)
    middle = tuple(size // 2 for size in shape)
    image[0][middle], target[0][middle] = 3.0, True
    for seed in range(5):
        for settings in (ALWAYS, SCALED):
            changed, regions = augment(image, target, seeded(seed), settings)
            assert changed.isfinite().all()
            assert (changed.dtype, regions.dtype) == (torch.float32, torch.bool)
            assert torch.count_nonzero(changed) <= 4**3  # a voxel that is scaled up; nothing spreads from it


def test_a_shift_moves_one_sequence_and_no_target() -> None:
    """Exactly one of several sequences is shifted; a single present one is not."""
    image, target = some()
    settings = replace(Augmentation.none(), shift_probability=1)
    for seed in range(10):
        changed, regions = augment(image, target, seeded(seed), settings)
        assert (changed != image).flatten(1).any(1).sum() == 1
        assert torch.equal(regions, target)
    image[1:] = 0
    assert torch.equal(augment(image, target, seeded(), settings)[0], image)


def test_channels_are_drawn_each_for_itself() -> None:
    """Two equal channels receive different changes."""
    image, target = some()
    image[1] = image[0]
    changed, _ = augment(image, target, seeded(), ALWAYS)
    assert not torch.equal(changed[0], changed[1])
    generator = seeded()
    drawn = [sample_intensity(generator, Augmentation()).gamma is None for _ in range(50)]
    assert 0 < sum(drawn) < len(drawn)


def test_changes_come_as_often_as_asked_for() -> None:
    """Over 4000 draws each frequency lies within four standard errors, and each strength in its range."""
    settings, generator, count = Augmentation(), seeded(), 4000
    flips = [sample_flip(generator, settings).axes for _ in range(count)]
    turns = [sample_turn(generator, settings) for _ in range(count)]
    shifts = [sample_shift(generator, settings, [0, 1]) for _ in range(count)]
    drawn = [sample_intensity(generator, settings) for _ in range(count)]
    low = [d.low_resolution.edges for d in drawn if d.low_resolution]
    angles = [abs(angle) for turn in turns if turn for angle in turn.degrees]
    scales = [turn.scale for turn in turns if turn and turn.scale != 1]
    frequencies = [
        *((sum(axis in axes for axes in flips), 0.5) for axis in range(3)),
        (sum(any(turn.degrees) for turn in turns if turn), 0.2),
        (len(scales), 0.2),
        (sum(turn is None for turn in turns), 0.8**2),
        (sum(shift is not None for shift in shifts), 0.1),
        (sum(d.bias_field is not None for d in drawn), 0.15),
        (sum(min(edges) > 1 for edges in low), 0.125),
        (sum(len(set(edges)) > 1 and min(edges) == 1 for edges in low), 0.05 * 0.875),
        (sum(d.blur is not None for d in drawn), 0.1),
        (sum(d.contrast is not None and d.contrast.factor != 1 for d in drawn), 0.15),
        (sum(d.contrast is not None and d.contrast.shift != 0 for d in drawn), 0.15),
        (sum(d.inverted_gamma is not None for d in drawn), 0.1),
        (sum(d.gamma is not None for d in drawn), 0.3),
        (sum(d.noise is not None for d in drawn), 0.1),
    ]
    for happened, p in frequencies:
        assert abs(happened / count - p) < 4 * math.sqrt(p * (1 - p) / count)
    assert 29 < max(angles) <= 30
    assert 0.7 <= min(scales) < 0.71 < 1.39 < max(scales) <= 1.4
    assert all(turn.elastic is None for turn in turns if turn)
    assert all(0.05 <= d.bias_field.strength <= 0.35 for d in drawn if d.bias_field)
    assert all(0.5 <= d.blur.sigma_voxels <= 1 for d in drawn if d.blur)
    assert all(0.7 <= d.gamma.exponent <= 1.5 for d in drawn if d.gamma)
    assert all(0 <= d.noise.sd <= 0.1 for d in drawn if d.noise)
    assert len({d.noise.seed for d in drawn if d.noise}) == sum(d.noise is not None for d in drawn)


def test_settings_out_of_range_are_refused_together() -> None:
    """One message names everything that is wrong."""
    with pytest.raises(InputError, match=r"flip_probability .* got 1\.5; .*blur_range .* got \(1\.0, 0\.5\)"):
        Augmentation(flip_probability=1.5, blur_range=(1.0, 0.5))
    with pytest.raises(InputError, match=r"scaling_range must be .* within \[0\.1, 10\]; got \(0, 1\)"):
        Augmentation(scaling_range=(0, 1))
    with pytest.raises(InputError, match=r"elastic_range .* within \[0, 9\]; got \(2, 20\)"):
        Augmentation(elastic_range=(2, 20))
    with pytest.raises(InputError, match="noise_range"):
        Augmentation(noise_range=(0.0, math.nan))


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.9, 1.0])
def test_modalities_drop_as_often_as_asked_for_but_never_all(probability: float) -> None:
    """Each of n present channels is removed with p - p^n / n, as one is always kept; the others do not change."""
    image = torch.rand(4, 2, 2, 2, generator=seeded()) + 1
    image[2] = 0  # a sequence the case does not have
    generator, count = seeded(1), 3000
    gone = torch.zeros(4)
    for _ in range(count):
        changed = drop_modalities(image, generator, probability)
        dropped = (changed == 0).flatten(1).all(1)
        assert not dropped.all()
        assert torch.equal(changed[~dropped], image[~dropped])
        gone += dropped
    expected = probability - probability**3 / 3
    bound = 4 * math.sqrt(expected * (1 - expected) / count)
    assert all(abs(gone[channel] / count - expected) <= bound for channel in (0, 1, 3))
    assert gone[2] == count


def test_dropping_leaves_the_argument_and_an_empty_patch() -> None:
    """The argument and a patch without any sequence are not changed, and p must be a probability."""
    image = torch.ones(2, 2, 2, 2)
    assert drop_modalities(image, seeded(), 1.0).sum() == 8
    assert image.sum() == 16
    assert not drop_modalities(image * 0, seeded(), 1.0).any()
    with pytest.raises(InputError, match=r"\[0, 1\]; got 1\.2"):
        drop_modalities(image, seeded(), 1.2)
