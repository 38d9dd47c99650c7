"""The simulated scanner: four sequences with their contrasts, blur, shading, noise and arbitrary intensity scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gliomask.phantom.anatomy import Head
from gliomask.phantom.fields import Field, Frame, noise
from gliomask.phantom.tumour import Tumour, TumourPlan


@dataclass(frozen=True)
class _Sequence:
    """The signal of each tissue relative to white matter, and the intensity of white matter in a typical file."""

    csf: float
    grey: float
    deep: float
    vessel: float
    necrosis: float
    solid: float
    oedema: float
    enhancing: float
    white_level: float


# Typical of preoperative examinations at 1.5 T and 3 T: water is dark on T1 and bright on T2, FLAIR suppresses free
# water, and contrast agent brightens tissue without a blood-brain barrier. `solid` is the core of a glioma that takes
# up no contrast agent.
_SEQUENCES: Mapping[str, _Sequence] = {
    "t1n": _Sequence(0.42, 0.80, 0.87, 0.85, 0.60, 0.68, 0.82, 0.80, 780),
    "t1c": _Sequence(0.44, 0.83, 0.88, 2.60, 0.55, 0.68, 0.80, 1.90, 1900),
    "t2w": _Sequence(3.60, 1.45, 1.20, 1.00, 2.70, 2.40, 2.05, 1.75, 420),
    "t2f": _Sequence(0.42, 1.20, 1.12, 0.80, 1.35, 1.95, 1.85, 1.60, 850),
}


def scan(seed: int, frame: Frame, head: Head, plan: TumourPlan, tumour: Tumour) -> dict[str, NDArray[np.int16]]:
    """Return the four sequences on the whole grid: at least 1 inside the brain and exactly 0 outside."""
    rng = np.random.default_rng([seed, 4])
    texture = 1 + np.float32(0.025) * noise(rng, frame, 5)[head.mask]
    images = {}
    for name, sequence in _SEQUENCES.items():
        signal = _signal(rng, name, sequence, head, plan, tumour) * texture
        image = np.zeros(frame.shape, np.int16)
        image[frame.box] = _acquire(rng, frame, head.mask, signal, sequence)
        images[name] = image
    return images


def _signal(
    rng: np.random.Generator, name: str, sequence: _Sequence, head: Head, plan: TumourPlan, tumour: Tumour
) -> Field:
    """Return the signal of each voxel of the mask relative to white matter, before blur, shading and noise."""
    variation = rng.uniform(0.94, 1.06, 5).astype(np.float32)
    csf, grey, deep = sequence.csf * variation[0], sequence.grey * (1 + (variation[1] - 1) / 3), sequence.deep
    fluid = head.csf + head.ventricle
    signal = head.white + csf * fluid + grey * head.grey + deep * head.deep
    if name == "t2f":
        # The thin bright lining of the ventricles ("caps and bands").
        signal += np.float32(0.45) * np.exp(-np.abs(head.ventricles) / 2) * head.white
    signal += (sequence.vessel - signal) * head.vessel
    signal += (
        (sequence.oedema * variation[2] - signal) * tumour.oedema * (np.float32(0.85) + np.float32(0.08) * tumour.grain)
    )
    necrosis = sequence.solid if plan.kind == "non_enhancing" else sequence.necrosis
    signal += (necrosis * variation[3] * (1 + np.float32(0.06) * tumour.grain) - signal) * tumour.core
    enhancing = sequence.enhancing * variation[4] * (1 + np.float32(0.15) * tumour.grain)
    whole: Field = signal + (enhancing - signal) * tumour.rim
    return whole


def _acquire(
    rng: np.random.Generator, frame: Frame, mask: NDArray[np.bool_], signal: Field, sequence: _Sequence
) -> NDArray[np.int16]:
    """Return the box as a scanner stores it: blurred, with coil shading and Rician noise, in arbitrary units."""
    h = frame.spacing_mm
    blur = rng.uniform(0.55, 0.85) / h
    level = sequence.white_level * float(np.exp(rng.normal(0, 0.25)))
    noise_level = np.float32(rng.uniform(0.012, 0.026))
    shade = np.exp(np.float32(0.07) * noise(rng, frame, 80)[mask])
    volume = np.full(mask.shape, sequence.csf, np.float32)
    volume[mask] = signal
    if blur > 0.25:
        volume = gaussian_filter(volume, blur, truncate=3)
    grainy = volume[mask] * shade
    real, imaginary = (noise_level * rng.standard_normal(grainy.shape, dtype=np.float32) for _ in range(2))
    magnitude = np.hypot(grainy + real, imaginary) * np.float32(level)
    stored = np.zeros(mask.shape, np.int16)
    stored[mask] = np.clip(np.rint(magnitude), 1, np.iinfo(np.int16).max)
    return stored
