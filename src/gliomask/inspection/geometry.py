"""Checks of the examination as a whole: skull, background, size, voxels, field of view, orientation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliomask.inspection.sampled import Samples
from gliomask.volume import Spacing

# The figures of real brains are of 53 cases of BraTS 2018 to 2021.

# A skull-stripped brain fills 13-19 % of BraTS's grid and up to 51 % of its tightest box; air around a head is noise.
_MOST_FILLED = 0.6
# Of T1: the median of the outermost 4 mm over that beyond 12 mm. Stripped brains reach 0.87 without and 1.01 with
# contrast; the fat of a scalp is brighter than any of the brain. So is the rim of a T2 that is taken for a T1: only of
# what is larger than nearly any brain, a bright rim is a scalp.
_RIM_MM, _INSIDE_MM, _BRIGHT_RIM, _HEAD_ML = 4.0, 12.0, 1.25, 1800.0
# Real ones are 1146-1746 mL. Below these are infants' brains and parts of one, above are heads.
_BRAIN_ML = (600.0, 2300.0)
# Another voxel size than the model's by more than this, as a factor, is said.
_OTHER_SPACING = 1.2
_THICK_MM = 2.5
# Of the brain's largest parallel slice. BraTS's own grid cuts the brain stem, at 14 % at the most, and touches no other
# face; a grid cut to the brain touches its dome.
_CUT = {"left": 0.2, "right": 0.2, "front": 0.2, "back": 0.2, "bottom": 0.3, "top": 0.2}
# With more than this cut off, what is left may lie in any way.
_CUT_MUCH = 0.3
# The mirror overlap (Dice) is larger across the midline than along any other axis, by .077 at least; the height is
# .71-.89 of the length.
_SYMMETRY_SLACK = 0.03
# The lowest sixth of a brain (cerebellum, brain stem) lies towards the back: its centre at .64-.73 of the brain's
# length, that of the uppermost sixth at .45-.57; the former is farther from .5, by .11 at least.
_LOPSIDED = 0.05
_FEW_SAMPLES = 2000


def background(look: Samples) -> str | None:
    """Say which images have a background that is one number other than zero."""
    found = [m for m, values in look.corners.items() if values[0] != 0 and (values == values[0]).all()]
    if not found:
        return None
    return (
        f"{look.named(found)}: the background is {look.corners[found[0]][0]:g}, not 0, and is taken for brain. "
        "Set it to 0."
    )


def skull(look: Samples) -> str | None:
    """Say which images seem to hold more than a brain: noise around a head, or the bright fat of a scalp."""
    full = [m for m, share in look.filled.items() if share > _MOST_FILLED]
    if full:
        most = max(look.filled[m] for m in full)
        return (
            f"{look.named(full)}: {most:.0%} of the field of view is not zero, as of a head with its skull. Remove all "
            "but the brain first (skull stripping, docs/predicting.md)."
        )
    if look.volume_ml < _HEAD_ML:
        return None
    rim, inside = look.rim(_RIM_MM), look.brain & ~look.rim(_INSIDE_MM)
    t1 = [m for m in ("t1n", "t1c") if m in look.images]
    scalp = [m for m in t1 if _ratio(look.images[m], rim, inside) > _BRIGHT_RIM]
    if not scalp:
        return None
    return (
        f"{look.named(scalp)}: a bright rim surrounds the brain, as the fat of a scalp does. Remove all but the brain "
        "first (skull stripping, docs/predicting.md)."
    )


def size(look: Samples) -> str | None:
    """Say that what is there is too small or too large for a brain."""
    least, most = _BRAIN_ML
    if least <= look.volume_ml <= most:
        return None
    what, why = "too little", "Is it only a part of one"
    if is_too_large(look):
        what, why = "too much", "Is the skull still there"
    return (
        f"{look.volume_ml:.0f} mL are not zero, {what} for a brain ({least:.0f} to {most:.0f} mL). {why}, or is the "
        "header's voxel size wrong?"
    )


def is_too_large(look: Samples) -> bool:
    """Tell whether there is more than a brain, so that nothing else can be said of it."""
    return look.volume_ml > _BRAIN_ML[1]


def voxels(look: Samples, spacing_mm: Spacing, own_mm: Spacing) -> str | None:
    """Say that the voxels are of another size than the model knows.

    Args:
        look: The examination.
        spacing_mm: Its voxel size along the plan's axes.
        own_mm: The plan's.
    """
    factors = np.array(spacing_mm) / own_mm
    if np.all((factors < _OTHER_SPACING) & (factors > 1 / _OTHER_SPACING)):
        return None
    given, known = (" x ".join(f"{mm:.3g}" for mm in sizes) for sizes in (spacing_mm, own_mm))
    thick = " What lies between thick slices is a guess." if np.any(factors >= _THICK_MM) else ""
    return f"voxels of {given} mm; the model knows {known} mm. They are resampled, and the answer back.{thick}"


def field_of_view(look: Samples) -> str | None:
    """Say that the brain goes on beyond the field of view."""
    faces = [face for face, share in look.cut.items() if share > _CUT[face]]
    if not faces:
        return None
    return f"the brain is cut off at the {_listed(faces)} of the field of view; volumes are those of what is there."


def orientation(look: Samples) -> str | None:
    """Say that the brain does not lie as the header says; left and right cannot be told."""
    brain = look.brain
    if np.count_nonzero(brain) < _FEW_SAMPLES or max(look.cut.values()) > _CUT_MUCH:
        return None
    length, height = (size * mm for size, mm in zip(brain.shape[1:], look.spacing_mm[1:], strict=True))
    mirrored = [np.count_nonzero(brain & np.flip(brain, axis)) / np.count_nonzero(brain) for axis in range(3)]
    if max(mirrored[1:]) > mirrored[0] + _SYMMETRY_SLACK or height > length:
        return _turned(look, "its axes seem swapped")
    part = max(1, brain.shape[2] // 6)
    low, high = _off_centre(brain[:, :, :part]), _off_centre(brain[:, :, -part:])
    if abs(high) > abs(low) + _LOPSIDED:
        return _turned(look, "it seems upside down: the cerebellum is at the top")
    if low < -_LOPSIDED:
        return _turned(look, "front and back seem swapped: the cerebellum is in front")
    return None


def _turned(look: Samples, what: str) -> str:
    return (
        f"the brain does not lie as its header says ({look.grid.axes} after reading); {what}. Repair the header's "
        "orientation; left and right may be wrong too."
    )


def _off_centre(part: NDArray[np.bool_]) -> float:
    """Where the middle of a part lies from front (-.5) to back (.5)."""
    weights = part.sum(axis=(0, 2))
    return float((weights * np.arange(len(weights))).sum() / weights.sum() / max(1, len(weights) - 1)) - 0.5


def _ratio(image: NDArray[np.float32], where: NDArray[np.bool_], over: NDArray[np.bool_]) -> float:
    first, second = (image[mask & (image != 0)] for mask in (where, over))
    return float(np.median(first) / np.median(second)) if len(first) and len(second) and np.median(second) > 0 else 0.0


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
