"""How often and how strongly a training patch is changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from gliomask.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """How often and how strongly a patch is changed; the defaults are about nnU-Net's, and a few of our own.

    Each `*_probability` is in [0, 1], each `*_range` is (least, most), drawn from uniformly unless said. From
    `bias_field_probability` on, everything but `thick_scan_probability` is drawn for each channel by itself.

    Raises:
        InputError: A probability is not in [0, 1], or a range is upside down or reaches where it makes no sense.

    Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, with the numbers of `nnUNetTrainer` (v2). What that
        draws for a whole patch and then for half its channels is here one probability of a channel: .2 x .5 = .1. Not
        from there, for it has none of them: bias field, thick slices, shift, and the strength of elastic.
    """

    flip_probability: float = 0.5
    """Of each axis by itself."""
    rotation_probability: float = 0.2
    rotation_range: Range = (-30.0, 30.0)
    """Degrees about each of the three axes."""
    scaling_probability: float = 0.2
    scaling_range: Range = (0.7, 1.4)
    """Size after / size before, the same along all axes; log-uniform, shrinking about as likely as growing."""
    elastic_probability: float = 0.0
    """Off, as in nnU-Net: where nothing else bends the patch, it costs as much as a rotation."""
    elastic_range: Range = (2.0, 8.0)
    """How far, in voxels, a control point moves at most along an axis; the points stand 32 voxels apart."""
    shift_probability: float = 0.1
    """Of a patch: one of its sequences lies beside the others, as after a registration that went wrong by a little."""
    shift_range: Range = (1.0, 2.0)
    """Whole voxels along the axis of the largest shift; along the others up to as many."""
    bias_field_probability: float = 0.15
    bias_field_range: Range = (0.05, 0.2)
    """Standard deviation of the field's logarithm; at 0.2 most of the field lies between 0.67 and 1.5."""
    low_resolution_probability: float = 0.125
    low_resolution_range: Range = (1.0, 2.0)
    """Edge of the voxels it was taken with, in those of the patch; the same along all axes."""
    thick_slices_probability: float = 0.05
    thick_slices_range: Range = (2.0, 5.0)
    """Likewise, along one axis only: in the clinic, slices are up to 5 mm thick."""
    thick_scan_probability: float = 0.0
    """Of a patch: all of its sequences have thick slices of one thickness along one axis, as in older examinations.
    Training sets this probability by itself (`TrainConfig.thick_slices`)."""
    blur_probability: float = 0.1
    blur_range: Range = (0.5, 1.0)
    """Standard deviation of the Gaussian in voxels."""
    brightness_probability: float = 0.15
    brightness_range: Range = (-0.25, 0.25)
    """What is added, in standard deviations of the channel over the brain."""
    contrast_probability: float = 0.15
    contrast_range: Range = (0.75, 1.25)
    """Factor on the distance from the channel's mean over the brain."""
    inverted_gamma_probability: float = 0.1
    """Gamma of the negative: it draws the other end of the range out."""
    gamma_probability: float = 0.3
    gamma_range: Range = (0.7, 1.5)
    """Exponent on intensities rescaled to [0, 1], inverted or not."""
    noise_probability: float = 0.1
    noise_range: Range = (0.0, 0.1)
    """Standard deviation, in standard deviations of the channel over the brain."""

    def __post_init__(self) -> None:
        problems = []
        for field in fields(self):
            value = getattr(self, field.name)
            least, most = _BOUNDS.get(field.name, (0.0, 1.0))
            if field.name not in _BOUNDS:
                if not least <= value <= most:
                    problems.append(f"{field.name} must lie in [0, 1]; got {value}")
            elif not least <= value[0] <= value[1] <= most:
                problems.append(f"{field.name} must be (least, most) within [{least:g}, {most:g}]; got {value}")
        if problems:
            raise InputError("; ".join(problems))

    @classmethod
    def none(cls) -> Augmentation:
        """Return the settings that change nothing."""
        return cls().times(0)

    def times(self, factor: float) -> Augmentation:
        """Return the settings with every probability times this: how often patches are changed, not how strongly.

        None comes above 1, and that of a flip not above 0.5, where flipped and not flipped are alike.

        Raises:
            InputError: The factor is below 0, or not a finite number.
        """
        if not 0 <= factor < math.inf:
            raise InputError(f"augmentation can be multiplied by a number of 0 or more; got {factor}")
        most = {"flip_probability": 0.5}
        chances = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _BOUNDS}
        multiplied: dict[str, Any] = {name: min(p * factor, max(p, most.get(name, 1.0))) for name, p in chances.items()}
        return replace(self, **multiplied)


_BOUNDS: dict[str, Range] = {
    "rotation_range": (-360.0, 360.0),
    "scaling_range": (0.1, 10.0),
    # With control points 32 voxels apart, moves of less than 0.4 x 32 fold nothing (Choi and Lee 2000, "Injectivity
    # conditions of 2D and 3D uniform cubic B-spline functions"); in a patch magnified 1.4 times that is 9.
    "elastic_range": (0.0, 9.0),
    "shift_range": (1.0, 10.0),
    "bias_field_range": (0.0, 1.0),
    "low_resolution_range": (1.0, 10.0),
    "thick_slices_range": (1.0, 20.0),
    "blur_range": (0.1, 10.0),
    "brightness_range": (-10.0, 10.0),
    "contrast_range": (0.0, 10.0),
    "gamma_range": (0.1, 10.0),
    "noise_range": (0.0, 10.0),
}
"""The ranges, and within what each must lie; all other settings are probabilities."""

DEFAULT = Augmentation()
