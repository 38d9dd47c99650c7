"""Laws of the random changes of a patch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gliomask.augment import (
    Augmentation,
    Blur,
    Contrast,
    Flip,
    Gamma,
    Intensity,
    Noise,
    Turn,
    apply_blur,
    apply_contrast,
    apply_flip,
    apply_gamma,
    apply_intensity,
    apply_noise,
    apply_turn,
    augment,
    drop_modalities,
    find_brain,
    sample_contrast,
    sample_flip,
    sample_intensity,
    sample_turn,
)
from gliomask.errors import InputError

ANISOTROPIC = (24, 20, 16)

ALWAYS = Augmentation(
    rotation_probability=1,
    scaling_probability=1,
    blur_probability=1,
    brightness_probability=1,
    contrast_probability=1,
    gamma_probability=1,
    noise_probability=1,
)

INTENSITY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "blur": lambda channel, brain: apply_blur(channel, brain, Blur(0.8)),
    "contrast": lambda channel, brain: apply_contrast(channel, brain, Contrast(1.2, 0.3)),
    "gamma": lambda channel, brain: apply_gamma(channel, brain, Gamma(0.7)),
    "noise": lambda channel, brain: apply_noise(channel, brain, Noise(0.1, seed=3)),
}

every_intensity = pytest.mark.parametrize("change", INTENSITY.values(), ids=INTENSITY)


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator of its own."""
    return torch.Generator().manual_seed(seed)


def radius(shape: tuple[int, ...], centre: tuple[float, ...] = (0, 0, 0)) -> Tensor:
    """Return each voxel's distance in voxels from a point given relative to the patch's centre."""
    x, y, z = (torch.arange(n) - (n - 1) / 2 - c for n, c in zip(shape, centre, strict=True))
    return (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2).sqrt()


def some(shape: tuple[int, int, int] = ANISOTROPIC, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return z-scores of three channels in a ball of brain, and two nested balls of tumour in it."""
    r = radius(shape)
    size = min(shape) / 2
    image = torch.randn(3, *shape, generator=seeded(seed)) * (r < 0.9 * size)
    return image, torch.stack([r < 0.5 * size, r < 0.3 * size])


def centroid(weights: Tensor) -> Tensor:
    """Return the centre of mass `(3,)` in voxels."""
    axes = torch.meshgrid(*(torch.arange(n).double() for n in weights.shape), indexing="ij")
    return torch.stack([(axis * weights).sum() / weights.sum() for axis in axes])


def test_the_preset_that_changes_nothing() -> None:
    """`Augmentation.none()` gives equal tensors, in memory of their own."""
    image, target = some()
    new_image, new_target = augment(image, target, seeded(), Augmentation.none())
    assert torch.equal(new_image, image)
    assert torch.equal(new_target, target)
    assert new_image.data_ptr() != image.data_ptr()
    assert new_target.data_ptr() != target.data_ptr()


@pytest.mark.parametrize("shape", [ANISOTROPIC, (7, 16, 33), (1, 8, 8)])
def test_arguments_stay_and_shapes_too(shape: tuple[int, int, int]) -> None:
    """Any size goes in and comes out, finite, with the arguments unchanged though everything is done."""
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


def test_threads_do_not_decide() -> None:
    """One thread and three give the same bits, on a patch that is large enough to be shared out."""
    image, target = some((64, 48, 48))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(augment(image, target, seeded(1), ALWAYS))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_two_flips_are_none(axes: tuple[int, ...]) -> None:
    """The same flip twice gives the original back."""
    image, target = some()
    image[0, 2, 3, 4], target[0, 2, 3, 4] = 9, True  # something that is not symmetric
    twice = apply_flip(*apply_flip(image, target, Flip(axes)), Flip(axes))
    assert torch.equal(twice[0], image)
    assert torch.equal(twice[1], target)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_take_image_and_target_along(axis: int) -> None:
    """A marked voxel ends up at the other end of the axis, and only of that one, in both."""
    image, target = torch.zeros(2, *ANISOTROPIC), torch.zeros(1, *ANISOTROPIC, dtype=torch.bool)
    place = [1, 2, 3]
    image[:, 1, 2, 3], target[:, 1, 2, 3] = 1, True
    place[axis] = ANISOTROPIC[axis] - 1 - place[axis]
    for changed in apply_flip(image, target, Flip((axis,))):
        assert all(channel.nonzero().tolist() == [place] for channel in changed)


def test_no_turn_is_no_change() -> None:
    """By 0 degrees and at scale 1 the image stays within 1e-4, the target exactly."""
    image, target = some()
    new_image, new_target = apply_turn(image, target, Turn())
    assert (new_image - image).abs().max() < 1e-4
    assert torch.equal(new_target, target)


@pytest.mark.parametrize(("axis", "dims"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_moves_voxels_to_voxels(axis: int, dims: tuple[int, int]) -> None:
    """By 90 degrees about X, Y, Z: `torch.rot90` of Y to Z, Z to X, X to Y."""
    image = torch.randn(2, 12, 12, 12, generator=seeded())
    target = image > 0.5
    degrees = [0.0, 0.0, 0.0]
    degrees[axis] = 90.0
    new_image, new_target = apply_turn(image, target, Turn((degrees[0], degrees[1], degrees[2])))
    moved = [dim + 1 for dim in dims]
    assert (new_image - image.rot90(1, moved)).abs().max() < 1e-4
    assert torch.equal(new_target, target.rot90(1, moved))


def test_the_turn_about_z_comes_first() -> None:
    """90 degrees about Z and about X carry a voxel on the X axis to Y, and on to Z."""
    image = torch.zeros(1, 9, 9, 9)
    image[0, 8, 4, 4] = 1
    turned, _ = apply_turn(image, image > 0, Turn((90.0, 0.0, 90.0)))
    assert turned[0].argmax() == torch.tensor([4 * 81 + 4 * 9 + 8])


@pytest.mark.parametrize("turn", [Turn((-25, 10, 15)), Turn((0, 0, 30), 1.2), Turn((-30, 30, 20), 0.8)])
def test_image_and_target_turn_together(turn: Turn) -> None:
    """A bright ball off the centre and its region keep one centre of mass, within half a voxel, and do move."""
    shape = (32, 28, 24)
    ball = radius(shape, (5, -3, 2)) < 4
    image, target = apply_turn(ball[None].float(), ball[None], turn)
    assert (centroid(image[0]) - centroid(target[0])).norm() < 0.5
    assert (centroid(target[0]) - centroid(ball)).norm() > 0.5


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
def test_scale_is_size_after_over_size_before(scale: float) -> None:
    """A ball's volume grows with the cube of the scale, about the patch's centre, and a turn does not change it."""
    shape = (40, 36, 32)
    ball = radius(shape) < 9
    _, target = apply_turn(ball[None].float(), ball[None], Turn((20, 10, -15), scale))
    assert target.sum() / ball.sum() == pytest.approx(scale**3, rel=0.03)
    assert (centroid(target[0]) - centroid(ball)).norm() < 0.1


def test_regions_turn_each_for_itself() -> None:
    """Overlapping, disjoint and empty regions come out as if each had been turned alone."""
    shape = (20, 18, 16)
    regions = [radius(shape) < 6, radius(shape, (2, 0, 0)) < 4, radius(shape, (-6, 4, 0)) < 2, radius(shape) < 0]
    image, turn = torch.ones(1, *shape), Turn((20, 30, -10), 1.1)
    together = apply_turn(image, torch.stack(regions), turn)[1]
    alone = [apply_turn(image, region[None], turn)[1][0] for region in regions]
    assert torch.equal(together, torch.stack(alone))
    assert together.flatten(1).any(1).tolist() == [True, True, True, False]


def test_the_outline_stays_sharp() -> None:
    """A turned brain of 1s is no larger than before: interpolation leaves no faint shell around it."""
    shape = (40, 36, 32)
    brain = radius(shape) < 12
    image, _ = apply_turn(brain[None].float(), brain[None], Turn((20, 10, -15)))
    assert find_brain(image).sum() == pytest.approx(int(brain.sum()), rel=0.02)
    assert image[image != 0].min() > 0.1


@every_intensity
def test_the_background_stays_zero(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Whatever happens to the intensities happens in the brain, and something does."""
    image, _ = some()
    brain = find_brain(image)
    changed = change(image[0], brain)
    assert (changed[~brain] == 0).all()
    assert (changed[brain] != image[0][brain]).float().mean() > 0.9


def test_background_and_absent_channels_stay_zero_through_it_all() -> None:
    """Without geometry the brain stays the brain; a missing sequence stays missing, with geometry too."""
    image, target = some()
    image[1] = 0
    still = replace(ALWAYS, flip_probability=0, rotation_probability=0, scaling_probability=0)
    assert torch.equal(find_brain(augment(image, target, seeded(), still)[0]), find_brain(image))
    for seed in range(5):
        changed, _ = augment(image, target, seeded(seed), ALWAYS)
        assert (changed[1] == 0).all()
        assert changed[0].any()
        assert changed[2].any()


def test_a_patch_of_background_stays_one() -> None:
    """Nothing but zeros in, nothing but zeros out."""
    image, target = torch.zeros(2, 8, 8, 8), torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    changed, regions = augment(image, target, seeded(), ALWAYS)
    assert not changed.any()
    assert not regions.any()


@every_intensity
def test_a_flat_channel_stays_finite(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """One value all over the brain has no range and no sd to divide by."""
    brain = radius(ANISOTROPIC) < 7
    assert change(brain * 2.0, brain).isfinite().all()


@pytest.mark.parametrize("exponent", [0.7, 1.5])
@pytest.mark.parametrize("offset", [-3.0, 0.0, 3.0])
def test_gamma_keeps_order_mean_and_sd(exponent: float, offset: float) -> None:
    """Brighter stays brighter for intensities of either sign; mean and sd are what they were, the shape is not."""
    image, _ = some()
    brain = find_brain(image)
    channel = (image[0] + offset) * brain
    before, after = channel[brain], apply_gamma(channel, brain, Gamma(exponent))[brain]
    assert (after[before.argsort()].diff() >= 0).all()
    assert after.mean().item() == pytest.approx(before.mean().item(), abs=1e-4)
    assert after.std().item() == pytest.approx(before.std().item(), rel=1e-4)
    # An exponent above 1 draws the bright end out, one below 1 the dark end.
    skew = ((after - after.mean()) ** 3).mean() - ((before - before.mean()) ** 3).mean()
    assert math.copysign(1, skew) == math.copysign(1, exponent - 1)


def test_gamma_does_not_see_the_background() -> None:
    """A brain far from 0 changes as it would if it filled the patch."""
    image = torch.randn(12, 12, 12, generator=seeded()) + 10
    padded = torch.nn.functional.pad(image, (3,) * 6)
    whole = apply_gamma(image, image != 0, Gamma(1.4))
    assert torch.allclose(apply_gamma(padded, padded != 0, Gamma(1.4))[3:-3, 3:-3, 3:-3], whole, atol=1e-5)


def test_contrast_sets_mean_and_sd() -> None:
    """The sd is multiplied by the factor, the mean moved by the shift in units of the old sd."""
    image, _ = some()
    brain = find_brain(image)
    channel = (3 * image[0] + 5) * brain
    before, after = channel[brain], apply_contrast(channel, brain, Contrast(0.8, 0.2))[brain]
    assert after.std().item() == pytest.approx(0.8 * before.std().item(), rel=1e-4)
    assert (after.mean() - before.mean()).item() == pytest.approx(0.2 * before.std().item(), rel=1e-2)


@pytest.mark.parametrize("sd", [0.02, 0.1])
def test_noise_has_the_sd_asked_for(sd: float) -> None:
    """The difference has mean 0 and the asked-for share of the channel's own sd, and another seed gives another."""
    channel = 3 * torch.randn(40, 40, 40, generator=seeded())
    brain = radius(channel.shape) < 19
    channel *= brain
    noise = (apply_noise(channel, brain, Noise(sd, seed=1)) - channel)[brain]
    assert noise.std().item() == pytest.approx(sd * channel[brain].std().item(), rel=0.03)  # 29 000 voxels: 5 errors
    assert abs(noise.mean().item()) < 5 * noise.std().item() / math.sqrt(len(noise))
    assert not torch.equal(noise, (apply_noise(channel, brain, Noise(sd, seed=2)) - channel)[brain])


def test_blur_keeps_a_constant() -> None:
    """A value that is the same all around stays, up to the patch's own faces."""
    channel = torch.full(ANISOTROPIC, 2.5)
    assert torch.allclose(apply_blur(channel, channel != 0, Blur(1.0)), channel, atol=1e-5)
    channel[12:] = 0
    assert torch.allclose(apply_blur(channel, channel != 0, Blur(1.0))[:9], channel[:9], atol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    """A single bright voxel becomes a spot of the same sum and the asked-for variance along each axis."""
    channel = torch.zeros(15, 17, 19)
    channel[7, 8, 9] = 1
    spot = apply_blur(channel, torch.ones_like(channel, dtype=torch.bool), Blur(sigma))
    assert spot.sum().item() == pytest.approx(1, abs=1e-5)
    for axis in range(3):
        profile = spot.sum([other for other in range(3) if other != axis])
        away = torch.arange(len(profile)) - (len(profile) - 1) / 2
        # A Gaussian read off at whole voxels and cut off at 3 sigma is narrower: by 14 % at half a voxel.
        assert (profile * away**2).sum().item() == pytest.approx(sigma**2, rel=0.15 if sigma < 0.6 else 0.05)
        assert torch.allclose(profile, profile.flip(0), atol=1e-6)


def test_changes_of_intensity_come_in_order() -> None:
    """Blur, contrast, gamma, noise: so the noise stays as grainy as it was drawn."""
    image, _ = some()
    brain = find_brain(image)
    expected = image[0]
    for change in INTENSITY.values():
        expected = change(expected, brain)
    everything = Intensity(Blur(0.8), Contrast(1.2, 0.3), Gamma(0.7), Noise(0.1, seed=3))
    assert torch.equal(apply_intensity(image[0], brain, everything), expected)


def test_channels_are_drawn_each_for_itself() -> None:
    """Two equal channels come out different, and so does which of them is changed at all."""
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
    drawn = [sample_intensity(generator, settings) for _ in range(count)]
    angles = [abs(angle) for turn in turns if turn for angle in turn.degrees]
    scales = [turn.scale for turn in turns if turn and turn.scale != 1]
    frequencies = [
        *((sum(axis in axes for axes in flips), 0.5) for axis in range(3)),
        (sum(any(turn.degrees) for turn in turns if turn), 0.2),
        (len(scales), 0.2),
        (sum(turn is None for turn in turns), 0.8**2),
        (sum(d.blur is not None for d in drawn), 0.1),
        (sum(d.contrast is not None and d.contrast.factor != 1 for d in drawn), 0.15),
        (sum(d.contrast is not None and d.contrast.shift != 0 for d in drawn), 0.15),
        (sum(d.gamma is not None for d in drawn), 0.3),
        (sum(d.noise is not None for d in drawn), 0.1),
    ]
    for happened, p in frequencies:
        assert abs(happened / count - p) < 4 * math.sqrt(p * (1 - p) / count)
    assert 29 < max(angles) <= 30
    assert 0.7 <= min(scales) < 0.71 < 1.39 < max(scales) <= 1.4
    assert all(0.5 <= d.blur.sigma_voxels <= 1 for d in drawn if d.blur)
    assert all(0.7 <= d.gamma.exponent <= 1.5 for d in drawn if d.gamma)
    assert all(0 <= d.noise.sd <= 0.1 for d in drawn if d.noise)
    assert len({d.noise.seed for d in drawn if d.noise}) == sum(d.noise is not None for d in drawn)


def test_brightness_comes_without_contrast() -> None:
    """Either of the two linear changes leaves the other as it was."""
    brighter = sample_contrast(seeded(), Augmentation(brightness_probability=1, contrast_probability=0))
    assert brighter is not None
    assert brighter.factor == 1
    assert brighter.shift != 0


def test_settings_out_of_range_are_refused_together() -> None:
    """One message names everything that is wrong."""
    with pytest.raises(InputError, match=r"flip_probability .* got 1\.5; .*blur_range .* got \(1\.0, 0\.5\)"):
        Augmentation(flip_probability=1.5, blur_range=(1.0, 0.5))
    with pytest.raises(InputError, match=r"scaling_range must be .* 0\.1 or more; got \(0, 1\)"):
        Augmentation(scaling_range=(0, 1))


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.9, 1.0])
def test_modalities_drop_as_often_as_asked_for_but_never_all(probability: float) -> None:
    """A channel goes with p - p^n / n of n present ones (the last stays), each alike; what stays is unchanged."""
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
    """The image given stays whole, a patch without any sequence stays what it is, and p must be a probability."""
    image = torch.ones(2, 2, 2, 2)
    assert drop_modalities(image, seeded(), 1.0).sum() == 8
    assert image.sum() == 16
    assert not drop_modalities(image * 0, seeded(), 1.0).any()
    with pytest.raises(InputError, match=r"\[0, 1\]; got 1\.2"):
        drop_modalities(image, seeded(), 1.2)
