"""What the checks look at: images sampled every three millimetres, within the brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.volume import Grid, Spacing, Volume, bounding_box, reorient

_SAMPLE_MM = 3.0
_CORNERS = np.ix_((0, -1), (0, -1), (0, -1))


@dataclass(frozen=True, eq=False)
class Samples:
    """An examination as the checks see it: axes grow to L, P, S; the images are those that are there."""

    images: Mapping[str, NDArray[np.float32]]
    """By sequence, `(x, y, z)`: samples within the box around every voxel that is not zero in some image."""
    files: Mapping[str, Path]
    """Where they came from; a sequence may lack here."""
    whole_floats: Mapping[str, bool]
    """Whether the file stores fractions, not the integers of a scanner."""
    filled: Mapping[str, float]
    """The share of each image's whole field of view that is not zero."""
    corners: Mapping[str, NDArray[np.float32]]
    """The eight corner voxels of each image."""
    cut: Mapping[str, float]
    """By face (`left right front back bottom top`): the brain's area there, as a share of its largest parallel one."""
    spacing_mm: Spacing
    """Between samples."""
    grid: Grid
    """Of the examination."""

    @cached_property
    def brain(self) -> NDArray[np.bool_]:
        """Where some image is not zero."""
        found: NDArray[np.bool_] = np.logical_or.reduce([image != 0 for image in self.images.values()])
        return found

    def rim(self, depth_mm: float) -> NDArray[np.bool_]:
        """Return the samples of the brain that have background within a distance."""
        reach = [int(depth_mm / mm) for mm in self.spacing_mm]
        outside = np.pad(~self.brain, [(far, far) for far in reach], constant_values=True)
        near = np.zeros_like(self.brain)
        for step in np.ndindex(*(2 * far + 1 for far in reach)):
            away = [(at - far) * mm for at, far, mm in zip(step, reach, self.spacing_mm, strict=True)]
            if sum(mm * mm for mm in away) <= depth_mm * depth_mm:
                x, y, z = (slice(at, at + size) for at, size in zip(step, self.brain.shape, strict=True))
                near |= outside[x, y, z]
        return near & self.brain

    @property
    def volume_ml(self) -> float:
        """Of all that is not zero in some image."""
        return float(np.count_nonzero(self.brain) * np.prod(self.spacing_mm) / 1000)

    def named(self, modalities: Sequence[str]) -> str:
        """Return sequences with their files, for a sentence."""
        return ", ".join(f"{m} ({self.files[m].name})" if m in self.files else m for m in modalities)


def take_samples(volume: Volume, modalities: Sequence[str], files: Mapping[str, Path]) -> Samples:
    """Return what the checks look at.

    Args:
        volume: One channel a modality, in any orientation; an absent one is all zero.
        modalities: The channels' names.
        files: The file of each, for the sentences.
    """
    oriented = reorient(volume, "LPS")
    steps = [max(1, round(_SAMPLE_MM / mm)) for mm in oriented.spacing_mm]
    every = (slice(None), *(slice(None, None, step) for step in steps))
    samples = np.ascontiguousarray(oriented.data[every])
    there = [number for number, channel in enumerate(samples) if channel.any()]
    nonzero = samples != 0
    box = bounding_box(nonzero.any(axis=0)) or (slice(0), slice(0), slice(0))
    names = [modalities[number] for number in there]
    x, y, z = (mm * step for mm, step in zip(oriented.spacing_mm, steps, strict=True))
    by_name = dict(zip(names, there, strict=True))
    return Samples(
        images={name: samples[number][box].astype(np.float32) for name, number in by_name.items()},
        files={name: files[name] for name in names if name in files},
        whole_floats={name: bool(samples.dtype.kind == "f" and (samples[n] % 1).any()) for name, n in by_name.items()},
        filled={name: float(nonzero[number].mean()) for name, number in by_name.items()},
        corners={name: oriented.data[number][_CORNERS].ravel().astype(np.float32) for name, number in by_name.items()},
        cut=_cut(oriented.data[there], nonzero.any(axis=0)),
        spacing_mm=(x, y, z),
        grid=oriented.grid,
    )


def _cut(data: NDArray[np.generic], sampled: NDArray[np.bool_]) -> dict[str, float]:
    """How much of the brain lies in each face of the field of view, which is looked at whole."""
    shares = {}
    for axis, faces in enumerate((("right", "left"), ("front", "back"), ("bottom", "top"))):
        largest = float(sampled.mean(axis=tuple(other for other in range(3) if other != axis)).max())
        for face, plane in zip(faces, (0, -1), strict=True):
            touched = float((data.take(plane, axis=axis + 1) != 0).any(axis=0).mean())
            shares[face] = touched / largest if largest else 0.0
    return shares
