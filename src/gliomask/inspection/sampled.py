"""The images at every third millimetre within the brain, which is all that the checks look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.inspection.brain_box import main_box
from gliomask.volume import Grid, Spacing, Volume, reorient

_SAMPLE_MM = 3.0
_CORNERS = np.ix_((0, -1), (0, -1), (0, -1))


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of an examination; axes increase towards L, P, S, and absent sequences are left out."""

    images: Mapping[str, NDArray[np.float32]]
    """By sequence, `(x, y, z)`: the samples in the box around the voxels that are not zero in some image.

    See `main_box`."""
    files: Mapping[str, Path]
    """The file of each; some may be missing."""
    whole_floats: Mapping[str, bool]
    """By sequence: whether some values are fractions, where a scanner writes integers."""
    filled: Mapping[str, float]
    """By sequence: the share of the whole field of view that is not zero."""
    corners: Mapping[str, NDArray[np.float32]]
    """By sequence: the eight corner voxels."""
    cut: Mapping[str, float]
    """By face of the field of view (`left right front back bottom top`): the brain's area in it.

    As a share of the brain's largest parallel slice.
    """
    spacing_mm: Spacing
    """The distance between samples."""
    grid: Grid
    """The grid of the examination, with all voxels."""

    @cached_property
    def brain(self) -> NDArray[np.bool_]:
        """The samples that are not zero in some image."""
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
        """The volume of what is not zero in some image."""
        return float(np.count_nonzero(self.brain) * math.prod(self.spacing_mm) / 1000)

    def named(self, modalities: Sequence[str]) -> str:
        """Return the names of sequences with their files, for a sentence."""
        return ", ".join(f"{m} ({self.files[m].name})" if m in self.files else m for m in modalities)


def take_samples(volume: Volume, modalities: Sequence[str], files: Mapping[str, Path]) -> Samples:
    """Return the samples of an examination.

    Args:
        volume: One channel per sequence, in any orientation; an absent sequence is all zero.
        modalities: The channels' names.
        files: The file of each, for the sentences.
    """
    oriented = reorient(volume, "LPS")
    steps = [max(1, round(_SAMPLE_MM / mm)) for mm in oriented.spacing_mm]
    every = (slice(None), *(slice(None, None, step) for step in steps))
    samples = np.ascontiguousarray(oriented.data[every])
    there = [number for number, channel in enumerate(samples) if channel.any()]
    nonzero = samples != 0
    box = main_box(nonzero.any(axis=0), step=1, margin=1) or (slice(0), slice(0), slice(0))
    names = [modalities[number] for number in there]
    x, y, z = (mm * step for mm, step in zip(oriented.spacing_mm, steps, strict=True))
    by_name = dict(zip(names, there, strict=True))
    return Samples(
        images={name: samples[number][box].astype(np.float32) for name, number in by_name.items()},
        files={name: files[name] for name in names if name in files},
        whole_floats={name: bool(samples.dtype.kind == "f" and (samples[n] % 1).any()) for name, n in by_name.items()},
        filled={name: float(nonzero[number].mean()) for name, number in by_name.items()},
        corners={name: oriented.data[number][_CORNERS].ravel().astype(np.float32) for name, number in by_name.items()},
        cut=_cut(oriented.data, there, nonzero.any(axis=0)),
        spacing_mm=(x, y, z),
        grid=oriented.grid,
    )


def _cut(data: NDArray[Any], there: list[int], sampled: NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of the brain in each face of the field of view; of these, every voxel is looked at."""
    shares = {}
    for axis, faces in enumerate((("right", "left"), ("front", "back"), ("bottom", "top"))):
        largest = float(sampled.mean(axis=tuple(other for other in range(3) if other != axis)).max())
        for face, plane in zip(faces, (0, -1), strict=True):
            # Not `take`, which copies an array whole when it is not in C order, as those of NIfTI files are not.
            touched = float((np.moveaxis(data, axis + 1, 0)[plane][there] != 0).any(axis=0).mean())
            shares[face] = touched / largest if largest else 0.0
    return shares
