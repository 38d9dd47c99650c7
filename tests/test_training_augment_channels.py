"""Changes of one channel: intensities, resolution and position."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gliomask.training.augment import Augmentation
from gliomask.training.augment.axes import multiply_axes
from gliomask.training.augment.brain import find_brain, moments
from gliomask.training.augment.faults import (
    BiasField,
    Shift,
    apply_bias_field,
    apply_shift,
    draw_bias_field,
    sample_shift,
)
from gliomask.training.augment.intensity import (
    Contrast,
    Gamma,
    Noise,
    apply_contrast,
    apply_gamma,
    apply_noise,
    sample_contrast,
)
from gliomask.training.augment.patch import Intensity, apply_intensity
from gliomask.training.augment.resolution import (
    Blur,
    LowResolution,
    apply_blur,
    apply_low_resolution,
    sample_low_resolution,
)
from round_brain import ANISOTROPIC, radius, seeded, some

Change = Callable[[Tensor, Tensor], Tensor]

INTENSITY: dict[str, Change] = {
    "bias field": lambda channel, brain: apply_bias_field(channel, brain, BiasField(0.2, seed=1)),
    "low resolution": lambda channel, brain: apply_low_resolution(channel, brain, LowResolution((1.5, 1.5, 4.0))),
    "blur": lambda channel, brain: apply_blur(channel, brain, Blur(0.8)),
    "contrast": lambda channel, brain: apply_contrast(channel, brain, Contrast(1.2, 0.3)),
    "inverted gamma": lambda channel, brain: apply_gamma(channel, brain, Gamma(1.4, inverted=True)),
    "gamma": lambda channel, brain: apply_gamma(channel, brain, Gamma(0.7)),
    "noise": lambda channel, brain: apply_noise(channel, brain, Noise(0.1, seed=3)),
}
"""In the order in which they are applied."""

IDENTITY: dict[str, Change] = {
    "bias field": lambda channel, brain: apply_bias_field(channel, brain, BiasField(0.0, seed=1)),
    "low resolution": lambda channel, brain: apply_low_resolution(channel, brain, LowResolution((1.0, 1.0, 1.0))),
    "blur": lambda channel, brain: apply_blur(channel, brain, Blur(0.1)),
    "contrast": lambda channel, brain: apply_contrast(channel, brain, Contrast()),
    "inverted gamma": lambda channel, brain: apply_gamma(channel, brain, Gamma(1.0, inverted=True)),
    "gamma": lambda channel, brain: apply_gamma(channel, brain, Gamma(1.0)),
    "noise": lambda channel, brain: apply_noise(channel, brain, Noise(0.0, seed=3)),
    "shift": lambda channel, brain: apply_shift(channel, brain, Shift(0, (0, 0, 0))),
    "shift beyond the patch": lambda channel, brain: apply_shift(channel, brain, Shift(0, (0, -99, 0))),
}

every_intensity = pytest.mark.parametrize("change", INTENSITY.values(), ids=INTENSITY)


@pytest.mark.parametrize("change", IDENTITY.values(), ids=IDENTITY)
def test_parameters_of_no_effect_have_none(change: Change) -> None:
    """The channel is the same up to rounding."""
    image, _ = some()
    assert torch.allclose(change(image[0], find_brain(image)), image[0], atol=2e-6)


@every_intensity
def test_the_background_stays_zero(change: Change) -> None:
    """Intensities change in the brain and only there."""
    image, _ = some()
    brain = find_brain(image)
    changed = change(image[0], brain)
    assert (changed[~brain] == 0).all()
    assert (changed[brain] != image[0][brain]).float().mean() > 0.9


@every_intensity
def test_a_flat_channel_stays_finite(change: Change) -> None:
    """A constant brain, one voxel, and no voxel have no range and no deviation to divide by."""
    for brain in (radius(ANISOTROPIC) < 7, radius((5, 5, 5)) < 1, radius(ANISOTROPIC) < 0):
        assert change(brain * 2.0, brain).isfinite().all()


@pytest.mark.parametrize("exponent", [0.7, 1.5])
@pytest.mark.parametrize("offset", [-3.0, 0.0, 3.0])
def test_gamma_keeps_order_mean_and_sd(exponent: float, offset: float) -> None:
    """The order of intensities of either sign, the mean and the deviation are kept; the distribution changes."""
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
    """A constant stays constant, also at the faces of the patch."""
    channel = torch.full(ANISOTROPIC, 2.5)
    assert torch.allclose(apply_blur(channel, channel != 0, Blur(1.0)), channel, atol=1e-5)
    channel[12:] = 0
    assert torch.allclose(apply_blur(channel, channel != 0, Blur(1.0))[:9], channel[:9], atol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    """A single bright voxel becomes a spot with the same sum and the given variance along each axis."""
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
    """Bias field, resolution, contrast, noise: the noise is not smoothed by the other changes."""
    image, _ = some()
    brain = find_brain(image)
    expected = image[0]
    for change in INTENSITY.values():
        expected = change(expected, brain)
    low, inverted = LowResolution((1.5, 1.5, 4.0)), Gamma(1.4, inverted=True)
    everything = Intensity(
        BiasField(0.2, seed=1), low, Blur(0.8), Contrast(1.2, 0.3), inverted, Gamma(0.7), Noise(0.1, seed=3)
    )
    assert torch.equal(apply_intensity(image[0], brain, everything), expected)


def test_brightness_comes_without_contrast() -> None:
    """Either of the two linear changes leaves the other as it was."""
    brighter = sample_contrast(seeded(), Augmentation(brightness_probability=1, contrast_probability=0))
    assert brighter is not None
    assert brighter.factor == 1
    assert brighter.shift != 0


def test_inverted_gamma_is_gamma_of_the_negative() -> None:
    """It does to the bright end what gamma does to the dark end."""
    image, _ = some()
    brain = find_brain(image)
    inverted = apply_gamma(image[0], brain, Gamma(0.7, inverted=True))
    assert torch.allclose(inverted, -apply_gamma(-image[0], brain, Gamma(0.7)), atol=1e-5)


def test_moments_are_those_of_the_brain() -> None:
    """Also far from 0 and for any fraction of background."""
    brain = radius((30, 30, 30)) < 6
    channel = (torch.randn(30, 30, 30, generator=seeded()) + 20) * brain
    mean, sd = moments(channel, brain)
    assert mean == pytest.approx(channel[brain].mean().item(), rel=1e-5)
    assert sd == pytest.approx(channel[brain].std(correction=0).item(), rel=1e-3)


@pytest.mark.parametrize("shape", [(64, 48, 40), (40, 7, 1)])
def test_a_matrix_an_axis_at_a_time(shape: tuple[int, int, int]) -> None:
    """Banded, dense or with rows of 0s, wider or narrower than the volume: the tensor product of the three."""
    volume = torch.randn(shape, generator=seeded())
    X = torch.randn(70, shape[0], generator=seeded(1)).triu(-2).tril(2)
    Z = torch.randn(5, shape[2], generator=seeded(2))
    Z[2] = 0
    X[32:64] = 0
    torch.full((70, *shape[1:]), math.nan)  # what memory may hold when it is handed out again
    product = multiply_axes(volume, [X, None, Z])
    assert torch.allclose(product, torch.einsum("xyz,ax,cz->ayc", volume, X, Z), atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 48, 40), (9, 33, 64)])
def test_a_bias_field_is_smooth_positive_and_about_1(shape: tuple[int, int, int]) -> None:
    """Its logarithm has the given deviation and the right mean, and neighbours differ little."""
    for seed in range(10):
        field = draw_bias_field(torch.Size(shape), BiasField(0.2, seed))
        assert field.min() > 0
        assert field.log().std().item() == pytest.approx(0.2, rel=0.01)
        assert field.log().mean().item() == pytest.approx(-(0.2**2) / 2, abs=1e-4)
        assert field.mean().item() == pytest.approx(1, abs=0.01)
        for axis, size in enumerate(shape):
            # The quickest wave, a whole one over the patch, rises by 2 pi / size of its height from voxel to voxel.
            assert field.log().diff(dim=axis).abs().max() < 3 * 0.2 * 2 * math.pi / size


def test_a_bias_field_multiplies_from_the_darkest_voxel_up() -> None:
    """The darkest voxel does not change; for others, the difference from it is multiplied by the field."""
    image, _ = some()
    brain, bias = find_brain(image), BiasField(0.2, seed=4)
    changed, dark = apply_bias_field(image[0], brain, bias), image[0][brain].min()
    gain = ((changed - dark) / (image[0] - dark))[brain & (image[0] > dark + 0.1)]
    assert torch.allclose(gain, draw_bias_field(image[0].shape, bias)[brain & (image[0] > dark + 0.1)], rtol=1e-3)
    assert changed[brain].min() == pytest.approx(dark.item(), abs=1e-5)


@pytest.mark.parametrize("edges", [(1.3, 1.3, 1.3), (2.0, 2.0, 2.0), (1.0, 4.0, 1.0), (50.0, 50.0, 50.0)])
@pytest.mark.parametrize("shape", [ANISOTROPIC, (7, 13, 1)])
def test_low_resolution_keeps_a_constant(edges: tuple[float, float, float], shape: tuple[int, int, int]) -> None:
    """Whether or not the large voxels fill the patch evenly."""
    channel = torch.full(shape, 2.5)
    changed = apply_low_resolution(channel, channel != 0, LowResolution(edges))
    assert torch.allclose(changed, channel, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_are_thick_along_one_axis(axis: int) -> None:
    """Stripes of one voxel vanish along the thick axis only, and a slope is kept."""
    shape = [16, 16, 16]
    everywhere = torch.ones(shape, dtype=torch.bool)
    along = torch.arange(16.0).reshape([16 if a == axis else 1 for a in range(3)]).expand(shape)
    stripes, slope = along % 2 * 2 - 1, along
    edges = [1.0, 1.0, 1.0]
    edges[axis] = 2.0
    thick, thin = LowResolution((edges[0], edges[1], edges[2])), LowResolution((edges[2], edges[0], edges[1]))
    assert apply_low_resolution(stripes, everywhere, thick).abs().max() < 1e-5
    assert torch.allclose(apply_low_resolution(stripes, everywhere, thin), stripes, atol=1e-5)
    inside = slope.narrow(axis, 1, 14)
    assert torch.allclose(apply_low_resolution(slope, everywhere, thick).narrow(axis, 1, 14), inside, atol=1e-4)


def test_low_resolution_is_even_and_thick_slices_are_not() -> None:
    """Each can be drawn alone; if both are, the larger edge is used along the axis."""
    generator = seeded()
    coarse = Augmentation(low_resolution_probability=1, thick_slices_probability=0)
    thick = Augmentation(low_resolution_probability=0, thick_slices_probability=1)
    axes = set()
    for _ in range(50):
        even, flat = sample_low_resolution(generator, coarse), sample_low_resolution(generator, thick)
        assert even is not None
        assert flat is not None
        assert 1 <= even.edges[0] <= 2
        assert len(set(even.edges)) == 1
        assert sorted(flat.edges)[:2] == [1, 1]
        assert 2 <= max(flat.edges) <= 5
        both = sample_low_resolution(
            generator, replace(thick, low_resolution_probability=1, low_resolution_range=(6, 7))
        )
        assert both is not None
        assert min(both.edges) >= 6
        axes.add(flat.edges.index(max(flat.edges)))
    assert axes == {0, 1, 2}


@pytest.mark.parametrize("voxels", [(1, 0, 0), (0, -2, 0), (2, -1, 1)])
def test_a_shift_is_a_roll_inside(voxels: tuple[int, int, int]) -> None:
    """It equals `torch.roll` where brain moves onto brain; other voxels do not change."""
    image, _ = some()
    image[:, :, :, -1] = torch.rand(3, 24, 20, generator=seeded(2)) + 1  # brain at one face of the patch
    brain = find_brain(image)
    moved = apply_shift(image[0], brain, Shift(0, voxels))
    rolled, rolled_brain = (one.roll(voxels, (0, 1, 2)) for one in (image[0], brain))
    onto = brain & rolled_brain
    for axis, by in enumerate(voxels):
        onto.narrow(axis, 0 if by > 0 else onto.shape[axis] + by, abs(by)).fill_(False)
    assert torch.equal(moved[onto], rolled[onto])
    assert torch.equal(moved[~onto], image[0][~onto])
    assert not torch.equal(moved, image[0])


def test_shifts_are_of_whole_voxels_within_the_range() -> None:
    """The largest is one or two voxels, of either sign, along any axis; missing channels are not shifted."""
    generator, settings = seeded(), Augmentation(shift_probability=1)
    shifts = [sample_shift(generator, settings, [0, 2, 3]) for _ in range(300)]
    drawn = [shift for shift in shifts if shift]
    assert len(drawn) == 300
    assert {shift.channel for shift in drawn} == {0, 2, 3}
    assert {max(map(abs, shift.voxels)) for shift in drawn} == {1, 2}
    assert all({shift.voxels[axis] for shift in drawn} == {-2, -1, 0, 1, 2} for axis in range(3))
    assert sample_shift(generator, settings, [1]) is None
    assert sample_shift(generator, settings, []) is None
