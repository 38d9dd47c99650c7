"""The folding of the cortex: sulci are walls that start at the surface and end at individual depths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from gliomask.phantom.fields import Field, Place

# Sulci are half a wavelength apart; their depth varies with the longer wavelength.
_FOLD_WAVE_MM = 20.0
_DEPTH_WAVE_MM = 48.0
_WAVES = 40
_STEP_MM = 2.0

# No sulcus is deeper than this below the surface of the brain.
DEEPEST_MM = 24.0


@dataclass(frozen=True)
class _Lobe:
    """The capsule on which the surface of a lobe is unrolled: an axis from front to back at `(x, z)` with its radii."""

    x: float
    z: float
    front: float
    back: float
    lateral: float
    medial: float
    vertical: float
    pole: float


_MAIN = _Lobe(x=27, z=13, front=-48, back=46, lateral=37, medial=27, vertical=54, pole=40)
_TEMPORAL = _Lobe(x=43, z=-17, front=-34, back=25, lateral=22, medial=22, vertical=20, pole=20)
_LAYERS = (_MAIN, _MAIN, _TEMPORAL, _TEMPORAL)


def sulci(rng: np.random.Generator, place: Place, temporal: NDArray[np.bool_]) -> tuple[Field, Field]:
    """Return, for points of the cerebrum, the distance to the nearest sulcal wall and that wall's depth, both in mm.

    The surface of each lobe is unrolled on a capsule, on which band-limited noise is drawn. The zero lines of the noise
    wind like the folds of a cortex and are the sulci. A point inside the brain belongs to the point of the capsule that
    lies above it along the normal of the surface, so the walls follow the normals.

    Args:
        rng: The generator; four independent patterns are drawn (left and right, main lobe and temporal lobe).
        place: The x, y and z of the points in mm, flat arrays of one length; x > 0 is the left hemisphere.
        temporal: Whether a point belongs to the temporal lobe.
    """
    x, y, z = place
    rows = max(_rows(lobe) for lobe in _LAYERS)
    columns = 2 * round(np.pi * 45 / _STEP_MM)
    maps = [_unrolled(rng, lobe, rows, columns) for lobe in _LAYERS]
    wall = np.concatenate([m[0] for m in maps])
    bottom = np.concatenate([m[1] for m in maps])
    layer = 2 * temporal.astype(np.float32) + (x > 0)
    row, column = np.empty_like(x), np.empty_like(x)
    for lobe, members in ((_MAIN, ~temporal), (_TEMPORAL, temporal)):
        turn, along = _unroll(lobe, np.abs(x[members]), y[members], z[members])
        row[members] = along * np.float32(rows - 1)
        column[members] = turn * np.float32(columns)
    at = np.stack([row + layer * rows, column])
    distance: Field = np.abs(map_coordinates(wall, at, order=1, mode="nearest"))
    return distance, map_coordinates(bottom, at, order=1, mode="nearest")


def _rows(lobe: _Lobe) -> int:
    """Return the number of rows from pole to pole of a lobe's map."""
    return round((lobe.back - lobe.front + np.pi * lobe.pole) / _STEP_MM)


def _unroll(lobe: _Lobe, x: Field, y: Field, z: Field) -> tuple[Field, Field]:
    """Return the position on the capsule above a point: around the axis and from pole to pole, each from 0 to 1."""
    px, pz = x - np.float32(lobe.x), z - np.float32(lobe.z)
    axis = np.clip(y, np.float32(lobe.front), np.float32(lobe.back))
    turn = np.arctan2(pz, px) / np.float32(2 * np.pi) + np.float32(0.5)
    arc = np.arctan2(y - axis, np.sqrt(px * px + pz * pz)) * np.float32(lobe.pole)
    quarter = np.pi / 2 * lobe.pole
    along = (axis + arc - np.float32(lobe.front - quarter)) / np.float32(lobe.back - lobe.front + 2 * quarter)
    return turn, along


def _unrolled(rng: np.random.Generator, lobe: _Lobe, rows: int, columns: int) -> tuple[Field, Field]:
    """Return the maps `(rows, columns + 1)` of the signed distance to the nearest sulcus and of the sulci's depth."""
    turn = (np.arange(columns + 1, dtype=np.float32) / columns - np.float32(0.5)) * np.float32(2 * np.pi)
    quarter = np.pi / 2 * lobe.pole
    along = np.linspace(lobe.front - quarter, lobe.back + quarter, rows, dtype=np.float32)
    axis = np.clip(along, lobe.front, lobe.back)
    lift = (along - axis) / np.float32(lobe.pole)
    cos, sin = np.cos(turn), np.sin(turn)
    radius = 1 / np.sqrt((cos / np.where(cos > 0, lobe.lateral, lobe.medial)) ** 2 + (sin / lobe.vertical) ** 2)
    ring = np.cos(lift)[:, None] * radius
    shape = (rows, columns + 1)
    surface = np.stack(
        [ring * cos, np.broadcast_to((axis + lobe.pole * np.sin(lift))[:, None], shape), ring * sin], axis=-1
    ).astype(np.float32)
    outward = np.stack(
        [np.cos(lift)[:, None] * cos, np.broadcast_to(np.sin(lift)[:, None], shape), np.cos(lift)[:, None] * sin],
        axis=-1,
    ).astype(np.float32)
    value, slope = _waves(rng, surface, outward, _FOLD_WAVE_MM)
    # The phase within the local wave, in mm: exact for a plane wave, and at most a quarter of a wavelength.
    wall = np.float32(_FOLD_WAVE_MM / (2 * np.pi)) * np.arctan2(value, slope * np.float32(_FOLD_WAVE_MM / (2 * np.pi)))
    depth, _ = _waves(rng, surface, outward, _DEPTH_WAVE_MM)
    return wall, np.clip(15 + 6 * depth, 3, min(DEEPEST_MM - 3, 0.6 * lobe.vertical))


def _waves(rng: np.random.Generator, points: Field, normals: Field, wave_mm: float) -> tuple[Field, Field]:
    """Return a sum of plane waves in all directions (mean 0, deviation 1) and the size of its gradient per mm."""
    heading = rng.standard_normal((_WAVES, 3), dtype=np.float32)
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    heading *= (2 * np.pi / wave_mm * rng.uniform(0.85, 1.2, (_WAVES, 1))).astype(np.float32)
    phase = points @ heading.T + rng.uniform(0, 2 * np.pi, _WAVES).astype(np.float32)
    scale = np.float32(np.sqrt(2 / _WAVES))
    value = np.cos(phase).sum(axis=-1) * scale
    slope = (np.sin(phase) @ heading) * scale
    slope -= (slope * normals).sum(axis=-1, keepdims=True) * normals
    return value, np.linalg.norm(slope, axis=-1)
