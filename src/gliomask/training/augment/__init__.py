"""Random changes of a training patch (augmentation): parameters are sampled first and then applied.

Every change is a pair of functions: `sample_x(generator, settings)` draws its parameters, a frozen record, or None for
no change; `apply_x(arrays, parameters)` returns the changed arrays and leaves its arguments unchanged.

An image is `(C, X, Y, Z)` float32 with a background of exactly 0, a target `(R, X, Y, Z)` bool. The brain is where any
channel is not 0. Nothing changes outside the brain or in a channel that is 0 everywhere (a missing sequence).
"""

from __future__ import annotations

from gliomask.training.augment.faults import drop_modalities, keep_one_modality
from gliomask.training.augment.histogram import apply_histogram_mix, sample_histogram_mix
from gliomask.training.augment.lesion import apply_lesion_contrast, sample_lesion_contrast
from gliomask.training.augment.patch import augment
from gliomask.training.augment.settings import Augmentation
from gliomask.training.augment.transplant import apply_transplant, sample_transplant

__all__ = [
    "Augmentation",
    "apply_histogram_mix",
    "apply_lesion_contrast",
    "apply_transplant",
    "augment",
    "drop_modalities",
    "keep_one_modality",
    "sample_histogram_mix",
    "sample_lesion_contrast",
    "sample_transplant",
]
