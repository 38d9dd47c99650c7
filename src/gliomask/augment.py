"""Random changes of a training patch as functions of (arrays, generator): sample first, then apply.

Every change is a pair: `sample_x(generator, settings)` draws its parameters, a frozen record or None for "leave it",
and `apply_x(arrays, parameters)` does what they say and leaves its arguments unchanged.

An image is `(C, X, Y, Z)` float32 with the background at exactly 0, a target `(R, X, Y, Z)` bool. The brain is where
any channel is not 0. Outside it, and in a channel that is 0 throughout (a sequence that is missing), nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gliomask.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """How often and how strongly a patch is changed; probabilities and strengths are about those of nnU-Net.

    Each `*_probability` is in [0, 1], each `*_range` is (least, most), drawn from uniformly unless said. Changes of
    intensity are drawn for each channel by itself.

    Raises:
        InputError: A probability is not in [0, 1], or a range is upside down or reaches where it makes no sense.

    Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, and the code's ranges, without its low resolution.
    """

    flip_probability: float = 0.5
    """Of each axis by itself."""
    rotation_probability: float = 0.2
    rotation_range: Range = (-30.0, 30.0)
    """Degrees about each of the three axes."""
    scaling_probability: float = 0.2
    scaling_range: Range = (0.7, 1.4)
    """Size after / size before, the same along all axes; log-uniform, shrinking about as likely as growing."""
    blur_probability: float = 0.1
    blur_range: Range = (0.5, 1.0)
    """Standard deviation of the Gaussian in voxels."""
    brightness_probability: float = 0.15
    brightness_range: Range = (-0.25, 0.25)
    """What is added, in standard deviations of the channel over the brain."""
    contrast_probability: float = 0.15
    contrast_range: Range = (0.75, 1.25)
    """Factor on the distance from the channel's mean over the brain."""
    gamma_probability: float = 0.3
    gamma_range: Range = (0.7, 1.5)
    """Exponent on intensities rescaled to [0, 1]."""
    noise_probability: float = 0.1
    noise_range: Range = (0.0, 0.1)
    """Standard deviation, in standard deviations of the channel over the brain."""

    def __post_init__(self) -> None:
        problems = []
        for field in fields(self):
            value = getattr(self, field.name)
            least = _LEAST.get(field.name)
            if least is None and not 0 <= value <= 1:
                problems.append(f"{field.name} must lie in [0, 1]; got {value}")
            if least is not None and not least <= value[0] <= value[1] < math.inf:
                problems.append(f"{field.name} must be (least, most), both {least} or more; got {value}")
        if problems:
            raise InputError("; ".join(problems))

    @classmethod
    def none(cls) -> Augmentation:
        """Return the settings that change nothing."""
        never: dict[str, Any] = {field.name: 0.0 for field in fields(cls) if field.name not in _LEAST}
        return cls(**never)


_LEAST = {
    "rotation_range": -360.0,
    "scaling_range": 0.1,
    "blur_range": 0.1,
    "brightness_range": -10.0,
    "contrast_range": 0.0,
    "gamma_range": 0.1,
    "noise_range": 0.0,
}
"""The ranges, and how low each may reach; all other settings are probabilities."""

DEFAULT = Augmentation()


@dataclass(frozen=True)
class Flip:
    """A mirror image along some spatial axes: 0, 1, 2 for X, Y, Z."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class Turn:
    """A rotation and a scaling about the patch's centre, in voxels.

    Positive degrees turn Y towards Z, Z towards X, X towards Y; the rotation about Z comes first, that about X last.
    """

    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of one channel."""

    sigma_voxels: float


@dataclass(frozen=True)
class Contrast:
    """A linear change of one channel: the distance from its mean times `factor`, and `shift` of its sd added."""

    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Gamma:
    """A power law for one channel."""

    exponent: float


@dataclass(frozen=True)
class Noise:
    """Gaussian noise for one channel: its sd as a share of the channel's own, and the seed it is drawn with."""

    sd: float
    seed: int


@dataclass(frozen=True)
class Intensity:
    """What happens to one channel, in this order; None: nothing."""

    blur: Blur | None = None
    contrast: Contrast | None = None
    gamma: Gamma | None = None
    noise: Noise | None = None


def augment(
    image: Tensor, target: Tensor, generator: torch.Generator, settings: Augmentation = DEFAULT
) -> tuple[Tensor, Tensor]:
    """Return a changed patch, image and target alike, in memory of its own.

    The same state of the generator gives the same bits. Some 4 times the image's memory is needed beside it.

    Args:
        image, target: Of one grid `(X, Y, Z)`, any size, on the CPU, left unchanged; see the module.
        generator: On the CPU; it moves on.
        settings: How often and how strongly.
    """
    assert image.shape[1:] == target.shape[1:], f"one grid is needed; got {image.shape} and {target.shape}"
    flip = sample_flip(generator, settings)
    turn = sample_turn(generator, settings)
    intensities = [sample_intensity(generator, settings) for _ in image]
    image, target = apply_flip(image, target, flip)
    if turn is not None:
        image, target = apply_turn(image, target, turn)
    brain = find_brain(image)
    for channel, intensity in zip(image, intensities, strict=True):
        if intensity != Intensity():
            channel.copy_(apply_intensity(channel, brain, intensity))  # `image` is a copy by now, by `apply_flip`
    return image, target


def find_brain(image: Tensor) -> Tensor:
    """Return where any channel is not 0, `(X, Y, Z)` bool."""
    brain = image[0] != 0
    for channel in image[1:]:
        brain |= channel != 0
    return brain


def sample_flip(generator: torch.Generator, settings: Augmentation) -> Flip:
    """Draw the axes to mirror, possibly none."""
    return Flip(tuple(axis for axis in range(3) if _chance(generator, settings.flip_probability)))


def apply_flip(image: Tensor, target: Tensor, flip: Flip) -> tuple[Tensor, Tensor]:
    """Return copies of image and target, mirrored."""
    axes = [axis + 1 for axis in flip.axes]
    return image.flip(axes), target.flip(axes)


def sample_turn(generator: torch.Generator, settings: Augmentation) -> Turn | None:
    """Draw the angles and the scale; either may come without the other."""
    rotates = _chance(generator, settings.rotation_probability)
    scales = _chance(generator, settings.scaling_probability)
    if not rotates and not scales:
        return None
    angles = [_uniform(generator, settings.rotation_range) if rotates else 0.0 for _ in range(3)]
    low, high = settings.scaling_range
    scale = math.exp(_uniform(generator, (math.log(low), math.log(high)))) if scales else 1.0
    return Turn((angles[0], angles[1], angles[2]), scale)


def apply_turn(image: Tensor, target: Tensor, turn: Turn) -> tuple[Tensor, Tensor]:
    """Return image and target rotated and scaled about the patch's centre.

    The image is interpolated linearly; the target and the brain's outline take the nearest voxel, so that the outline
    stays as sharp as it was. What comes in from beyond the patch is background.
    """
    grid = _sampling_grid(image.shape[1:], turn)[None]
    # With the channels innermost one voxel's neighbours lie together: 4 x 128^3 take 0.14 s instead of 0.6.
    channels_last = image[None].contiguous(memory_format=torch.channels_last_3d)
    turned = F.grid_sample(channels_last, grid, align_corners=False)[0]
    del channels_last
    # Brain and regions ride as the bits of one number: one channel to look up instead of 1 + R.
    code = find_brain(image).float()
    for bit, region in enumerate(target, 1):
        code.add_(region, alpha=2**bit)
    bits = F.grid_sample(code[None, None], grid, mode="nearest", align_corners=False)[0, 0].int()
    turned.masked_fill_(bits & 1 == 0, 0.0)
    return turned, torch.stack([bits & 2**bit != 0 for bit in range(1, len(target) + 1)])


def sample_intensity(generator: torch.Generator, settings: Augmentation) -> Intensity:
    """Draw what happens to one channel."""
    return Intensity(
        sample_blur(generator, settings),
        sample_contrast(generator, settings),
        sample_gamma(generator, settings),
        sample_noise(generator, settings),
    )


def apply_intensity(channel: Tensor, brain: Tensor, intensity: Intensity) -> Tensor:
    """Return one channel changed inside the brain; one of 0s stays, for strengths are measured in its own sd."""
    if intensity.blur is not None:
        channel = apply_blur(channel, brain, intensity.blur)
    if intensity.contrast is not None:
        channel = apply_contrast(channel, brain, intensity.contrast)
    if intensity.gamma is not None:
        channel = apply_gamma(channel, brain, intensity.gamma)
    if intensity.noise is not None:
        channel = apply_noise(channel, brain, intensity.noise)
    return channel


def sample_blur(generator: torch.Generator, settings: Augmentation) -> Blur | None:
    """Draw the width of the blur."""
    return Blur(_uniform(generator, settings.blur_range)) if _chance(generator, settings.blur_probability) else None


def apply_blur(channel: Tensor, brain: Tensor, blur: Blur) -> Tensor:
    """Return the channel blurred along all axes; the background counts as 0, the patch's outermost voxels go on.

    Each axis is a product with a banded matrix: a third of the time of adding shifted copies.
    """
    X, Y, Z = (_blur_matrix(size, blur.sigma_voxels) for size in channel.shape)
    blurred = (X @ channel.reshape(len(X), -1)).view(channel.shape)
    return _inside(Y @ blurred @ Z.T, brain)


def sample_contrast(generator: torch.Generator, settings: Augmentation) -> Contrast | None:
    """Draw the factor and the shift; either may come without the other."""
    stretches = _chance(generator, settings.contrast_probability)
    shifts = _chance(generator, settings.brightness_probability)
    if not stretches and not shifts:
        return None
    return Contrast(
        _uniform(generator, settings.contrast_range) if stretches else 1.0,
        _uniform(generator, settings.brightness_range) if shifts else 0.0,
    )


def apply_contrast(channel: Tensor, brain: Tensor, contrast: Contrast) -> Tensor:
    """Return the channel with its sd over the brain times the factor, and its mean moved by the shift."""
    mean, sd = _moments(channel, brain)
    return _inside(channel * contrast.factor + (mean * (1 - contrast.factor) + contrast.shift * sd), brain)


def sample_gamma(generator: torch.Generator, settings: Augmentation) -> Gamma | None:
    """Draw the exponent."""
    return Gamma(_uniform(generator, settings.gamma_range)) if _chance(generator, settings.gamma_probability) else None


def apply_gamma(channel: Tensor, brain: Tensor, gamma: Gamma) -> Tensor:
    """Return the channel with its brain's range rescaled to [0, 1], raised, and given its old mean and sd again."""
    mean, sd = _moments(channel, brain)
    filled = torch.where(brain, channel, mean)  # the background must not widen the range
    low, high = (bound.item() for bound in filled.aminmax())
    if low == high:
        return channel
    raised = _inside(((filled - low) / (high - low)).pow(gamma.exponent), brain)
    raised_mean, raised_sd = _moments(raised, brain)
    return _inside((raised - raised_mean) * (sd / raised_sd) + mean, brain)


def sample_noise(generator: torch.Generator, settings: Augmentation) -> Noise | None:
    """Draw the strength and a seed."""
    if not _chance(generator, settings.noise_probability):
        return None
    seed = int(torch.randint(2**62, (), generator=generator).item())
    return Noise(_uniform(generator, settings.noise_range), seed)


def apply_noise(channel: Tensor, brain: Tensor, noise: Noise) -> Tensor:
    """Return the channel with independent Gaussian noise in each voxel of the brain."""
    _, sd = _moments(channel, brain)
    drawn = torch.randn(channel.shape, generator=torch.Generator().manual_seed(noise.seed))
    return _inside(channel + drawn * (noise.sd * sd), brain)


def drop_modalities(image: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Return a copy of the image with each channel set to 0 with this probability, but never with all of them.

    Where the draw would leave nothing, one of the channels that are there (not 0 throughout) stays, each as likely.

    Raises:
        InputError: The probability is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise InputError(f"the probability of dropping a modality must lie in [0, 1]; got {probability}")
    present = [index for index, channel in enumerate(image) if torch.count_nonzero(channel) > 0]
    dropped = sample_dropped(generator, present, probability)
    result = image.clone()
    result[dropped] = 0.0
    return result


def sample_dropped(generator: torch.Generator, present: list[int], probability: float) -> list[int]:
    """Draw which of the channels that are there go; at least one of them stays."""
    dropped = [channel for channel in present if _chance(generator, probability)]
    if present and dropped == present:
        dropped.pop(int(torch.randint(len(present), (), generator=generator).item()))
    return dropped


def _chance(generator: torch.Generator, probability: float) -> bool:
    return torch.rand((), generator=generator).item() < probability


def _uniform(generator: torch.Generator, bounds: Range) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand((), generator=generator).item()


def _inside(channel: Tensor, brain: Tensor) -> Tensor:
    return torch.where(brain, channel, 0.0)


def _moments(channel: Tensor, brain: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over the brain, of a channel that is 0 outside it."""
    count = max(int(torch.count_nonzero(brain)), 1)
    mean = _total(channel) / count
    return mean, math.sqrt(_total(_inside((channel - mean).square(), brain)) / count)


def _total(channel: Tensor) -> float:
    """The sum, an axis at a time: in one go its last bits would depend on the number of threads."""
    return float(channel.sum(-1).double().sum(-1).sum())


def _blur_matrix(size: int, sigma: float) -> Tensor:
    """The Gaussian cut off at 3 sigma, a row for each voxel; what would reach past the end falls on the end."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    columns = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, columns, (weights / weights.sum()).expand(size, -1))


def _sampling_grid(shape: torch.Size, turn: Turn) -> Tensor:
    """For each voxel of the result the place to read, `(X, Y, Z, 3)`, as `grid_sample` wants it: Z first, in [-1, 1].

    The three coordinates are sums of one term an axis; `F.affine_grid` multiplies matrices for them, 0.13 s at 128^3.
    """
    back = _rotation(turn.degrees).T / turn.scale  # from a voxel of the result to where it comes from
    x, y, z = (torch.arange(size) - (size - 1) / 2 for size in shape)
    grid = torch.empty(*shape, 3)
    for axis, size in enumerate(shape):
        a, b, c = (back[axis] * (2 / size)).tolist()
        torch.add((a * x[:, None] + b * y)[:, :, None], c * z, out=grid[..., 2 - axis])
    return grid


def _rotation(degrees: tuple[float, float, float]) -> Tensor:
    matrix = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(degrees):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turn = torch.eye(3, dtype=torch.float64)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = cos, -sin, sin, cos
        matrix = matrix @ turn
    return matrix
