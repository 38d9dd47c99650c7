"""The probabilities and strengths of the augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from gliomask.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """The probabilities and strengths of the changes of a patch; most defaults are those of nnU-Net.

    Each `*_probability` is in [0, 1]. Each `*_range` is (minimum, maximum), from which values are drawn uniformly
    unless stated otherwise. From `bias_field_probability` on, everything except `thick_scan_probability` is drawn for
    each channel separately.

    Raises:
        InputError: A probability is not in [0, 1], or a range is reversed or outside its limits.

    Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, with the numbers of `nnUNetTrainer` (v2). Where nnU-Net
        draws for a whole patch and then for half of its channels, there is one probability per channel: .2 x .5 = .1.
        nnU-Net has no bias field, thick slices, shift or strength of elastic deformation; these values are our own.
    """

    flip_probability: float = 0.5
    """For each axis separately."""
    rotation_probability: float = 0.2
    rotation_range: Range = (-30.0, 30.0)
    """Degrees about each of the three axes."""
    scaling_probability: float = 0.2
    scaling_range: Range = (0.7, 1.4)
    """Size after / size before, the same along all axes; log-uniform, so shrinking is about as likely as growing."""
    elastic_probability: float = 0.0
    """Off, as in nnU-Net; in a patch that is not rotated it costs as much time as a rotation."""
    elastic_range: Range = (2.0, 8.0)
    """The largest displacement in voxels of a control point along an axis; the points are 32 voxels apart."""
    shift_probability: float = 0.1
    """For a patch: one of its sequences is displaced, as after an inexact registration."""
    shift_range: Range = (1.0, 2.0)
    """Whole voxels along the axis of the largest shift; along the other axes at most as many."""
    bias_field_probability: float = 0.15
    bias_field_range: Range = (0.05, 0.35)
    """Standard deviation of the field's logarithm; with 0.35, most of the field is between 0.5 and 2."""
    low_resolution_probability: float = 0.125
    low_resolution_range: Range = (1.0, 2.0)
    """Edge of the voxels in which it was acquired, in voxels of the patch; the same along all axes."""
    thick_slices_probability: float = 0.05
    thick_slices_range: Range = (2.0, 5.0)
    """The same along one axis only; clinical slices are up to 5 mm thick."""
    thick_scan_probability: float = 0.0
    """For a patch: all of its sequences have slices of the same thickness along one axis, as in older examinations.
    Training sets this probability from `TrainConfig.thick_slices`."""
    blur_probability: float = 0.1
    blur_range: Range = (0.5, 1.0)
    """Standard deviation of the Gaussian in voxels."""
    brightness_probability: float = 0.15
    brightness_range: Range = (-0.25, 0.25)
    """The offset in standard deviations of the channel over the brain."""
    contrast_probability: float = 0.15
    contrast_range: Range = (0.75, 1.25)
    """Factor on the deviations from the channel's mean over the brain."""
    inverted_gamma_probability: float = 0.1
    """Gamma of the negative image, which stretches the other end of the range."""
    gamma_probability: float = 0.3
    gamma_range: Range = (0.7, 1.5)
    """Exponent for intensities rescaled to [0, 1], inverted or not."""
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
                problems.append(f"{field.name} must be (minimum, maximum) within [{least:g}, {most:g}]; got {value}")
        if problems:
            raise InputError("; ".join(problems))

    @classmethod
    def none(cls) -> Augmentation:
        """Return settings without any change."""
        return cls().times(0)

    def times(self, factor: float) -> Augmentation:
        """Return the settings with every probability multiplied by a factor; the strengths do not change.

        Probabilities are limited to 1, and that of a flip to 0.5.

        Raises:
            InputError: The factor is negative or not finite.
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
    # With control points 32 voxels apart, moves of less than 0.4 x 32 cause no folding (Choi and Lee 2000, "Injectivity
    # conditions of 2D and 3D uniform cubic B-spline functions"); in a patch magnified 1.4 times, this is 9.
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
"""The limits of each range; all other settings are probabilities."""

DEFAULT = Augmentation()
