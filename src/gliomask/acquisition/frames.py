"""Slices of DICOM files put into order as one volume, by their places in space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.itk import require_itk
from gliomask.errors import InputError
from gliomask.volume import Grid, Volume

# Fewer slices, or a thinner slab than this, show no brain.
_LEAST_SLICES, _LEAST_MM = 8, 50.0
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Slices whose distances differ by more than this share of the usual one are not evenly spaced.
_UNEVEN = 0.1


@dataclass(frozen=True)
class Frame:
    """One slice: where it lies, and in which file."""

    path: Path
    index: int
    """Its number within the file, from 0; 0 for files of one slice."""
    position: tuple[float, float, float]
    """Of the first voxel's centre, in DICOM's millimetres (LPS)."""
    orientation: tuple[float, ...]
    """Six direction cosines: along a row, then along a column."""
    spacing: tuple[float, float]
    """Between rows, and between columns."""
    size: tuple[int, int]
    """Rows and columns."""
    pass_: tuple[str, ...]
    """What may tell acquisitions within one series apart: echo, acquisition, time point."""
    taken: tuple[int, int] = (0, 0)
    """The number of the image in its series, and of the slice in it."""
    image: str = field(default="", repr=False)
    """The image's UID, by which copies of a file are recognised."""


@dataclass(frozen=True)
class Geometry:
    """A stack of slices on one grid."""

    grid: Grid
    """RAS+, axes along a row, along a column, and from slice to slice."""
    frames: tuple[Frame | None, ...]
    """In the order of the grid's last axis; None for a single missing slice, which is interpolated."""


def arrange(frames: Sequence[Frame]) -> Geometry | str:
    """Return slices in the order of their places, or the reason why they form no volume."""
    first = frames[0]
    if len({frame.size for frame in frames}) > 1 or len({frame.spacing for frame in frames}) > 1:
        return "its slices differ in size"
    directions = np.array([frame.orientation for frame in frames])
    if np.abs(directions - directions[0]).max() > 1e-2:
        return "its slices are not parallel: a localizer?"
    if len(frames) < _LEAST_SLICES:
        return f"it has {len(frames)} slices only"
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    places = np.array([frame.position for frame in frames]) @ normal
    order = np.argsort(places)
    steps = np.diff(places[order])
    usual = float(np.median(steps))
    if usual < 1e-3 or (steps < (1 - _UNEVEN) * usual).any():
        return "several slices lie at one place"
    stack: list[Frame | None] = [frames[order[0]]]
    gaps = steps / usual
    for gap, place in zip(gaps, order[1:], strict=True):
        if abs(gap - 2) < 2 * _UNEVEN and stack[-1] is not None and None not in stack:
            stack.append(None)
        elif abs(gap - 1) > _UNEVEN:
            return f"slices are missing or unevenly spaced (distances of {steps.min():.1f} to {steps.max():.1f} mm)"
        stack.append(frames[place])
    if (extent := usual * len(stack)) < _LEAST_MM:
        return f"its slices cover {extent:.0f} mm only"
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    start, end = np.array(frames[order[0]].position), np.array(frames[order[-1]].position)
    affine[:3, 2] = (end - start) / (len(stack) - 1)
    affine[:3, 3] = start
    return Geometry(Grid((first.size[1], first.size[0], len(stack)), _TO_RAS @ affine), tuple(stack))


def read_stack(geometry: Geometry) -> Volume:
    """Return the voxels of a stack of slices, `(1, X, Y, Z)`, float32; a missing slice is the mean of its neighbours.

    Raises:
        InputError: A file is cut or damaged, or packed in a way that is not known here.
    """
    sitk = require_itk()
    files: dict[Path, NDArray[Any]] = {}
    data = np.zeros(geometry.grid.shape, np.float32)
    for place, frame in enumerate(geometry.frames):
        if frame is None:
            continue
        if frame.path not in files:
            try:
                pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(frame.path)))
            except RuntimeError as error:
                raise InputError(f"{frame.path}: its pixels cannot be read: is the file damaged?") from error
            files = {frame.path: pixels.reshape(-1, *pixels.shape[-2:])}  # one file at a time is kept
        data[:, :, place] = files[frame.path][frame.index].T
    for place, frame in enumerate(geometry.frames):
        if frame is None:
            data[:, :, place] = (data[:, :, place - 1] + data[:, :, place + 1]) / 2
    if not data.any():
        raise InputError(f"{geometry.frames[0].path if geometry.frames[0] else ''}: every voxel is zero.")
    return Volume(data[None], geometry.grid.affine)
