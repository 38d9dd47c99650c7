"""Checks of the examination as a whole: skull, background, size, voxels, field of view, orientation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliomask.inspection.sampled import Samples
from gliomask.volume import Spacing

# Figures about real brains come from 53 cases of BraTS 2018 to 2021.

# A skull-stripped brain fills 13-19 % of BraTS's grid and up to 51 % of its bounding box. The air around a head is
# noise, so nearly all of the grid is not zero.
_MOST_FILLED = 0.6
# In T1, the median intensity of the outermost 4 mm divided by that of what lies deeper than 12 mm. Stripped brains
# reach 0.87 without and 1.01 with contrast; the fat of a scalp is brighter than all of the brain. The rim of a T2 that
# was named T1 is bright too, so the rim is judged only where there is more than nearly any brain.
_RIM_MM, _INSIDE_MM, _BRIGHT_RIM, _HEAD_ML = 4.0, 12.0, 1.25, 1800.0
# Real brains are 1146-1746 mL. Smaller are infants' brains and parts of a brain, larger are heads.
_BRAIN_ML = (600.0, 2300.0)
# A voxel size that differs from the model's by more than this factor is reported.
_OTHER_SPACING = 1.2
_THICK_MM = 2.5
# The area of the brain in a face of the field of view, as a share of its largest parallel slice. BraTS's grid cuts the
# brain stem, with 14 % at most, and touches no other face; a grid cropped to the brain touches the top of the brain.
_CUT = {"left": 0.2, "right": 0.2, "front": 0.2, "back": 0.2, "bottom": 0.3, "top": 0.2}
# If more than this is cut off, the shape of the rest does not tell how it is oriented.
_CUT_MUCH = 0.3
# The overlap (Dice) of a brain with its mirror image is largest across the midline, by .077 at least; a brain's height
# is .71-.89 of its length.
_SYMMETRY_SLACK = 0.03
# The lowest sixth of a brain (cerebellum, brain stem) lies towards the back: its centre is at .64-.73 of the brain's
# length, that of the uppermost sixth at .45-.57. The former is farther from .5, by .11 at least.
_LOPSIDED = 0.05
_FEW_SAMPLES = 2000


def background(samples: Samples) -> str | None:
    """Name the images whose background is a number other than zero."""
    found = [m for m, values in samples.corners.items() if values[0] != 0 and (values == values[0]).all()]
    if not found:
        return None
    return (
        f"{samples.named(found)}: the background is {samples.corners[found[0]][0]:g}, not 0, and is taken for brain. "
        "Set it to 0."
    )


def skull(samples: Samples) -> str | None:
    """Name the images that seem to show more than a brain: noise around a head, or the bright fat of a scalp."""
    full = [m for m, share in samples.filled.items() if share > _MOST_FILLED]
    if full:
        most = max(samples.filled[m] for m in full)
        return (
            f"{samples.named(full)}: {most:.0%} of the field of view is not zero, as in a head with its skull. "
            "`gliomask predict --raw` removes all but the brain first (skull stripping; gliomask docs predicting)."
        )
    if samples.volume_ml < _HEAD_ML:
        return None
    rim, inside = samples.rim(_RIM_MM), samples.brain & ~samples.rim(_INSIDE_MM)
    t1 = [m for m in ("t1n", "t1c") if m in samples.images]
    scalp = [m for m in t1 if _ratio(samples.images[m], rim, inside) > _BRIGHT_RIM]
    if not scalp:
        return None
    return (
        f"{samples.named(scalp)}: a bright rim surrounds the brain, as the fat of a scalp does. `gliomask predict "
        "--raw` removes all but the brain first (skull stripping; gliomask docs predicting)."
    )


def size(samples: Samples) -> str | None:
    """Report a volume that is too small or too large for a brain."""
    least, most = _BRAIN_ML
    if least <= samples.volume_ml <= most:
        return None
    what, why = "too little", "Is it only a part of a brain"
    if is_too_large(samples):
        what, why = "too much", "Is the skull still there"
    return (
        f"{samples.volume_ml:.0f} mL are not zero, {what} for a brain ({least:.0f} to {most:.0f} mL). {why}, or is the "
        "header's voxel size wrong?"
    )


def is_too_large(samples: Samples) -> bool:
    """Tell whether there is more than a brain, so that other checks mean nothing."""
    return samples.volume_ml > _BRAIN_ML[1]


def voxels(samples: Samples, spacing_mm: Spacing, own_mm: Spacing) -> str | None:
    """Report voxels of another size than the model's.

    Args:
        samples: The examination.
        spacing_mm: Its voxel size along the plan's axes.
        own_mm: That of the model.
    """
    factors = np.array(spacing_mm) / own_mm
    if np.all((factors < _OTHER_SPACING) & (factors > 1 / _OTHER_SPACING)):
        return None
    given, known = (" x ".join(f"{mm:.3g}" for mm in sizes) for sizes in (spacing_mm, own_mm))
    thick = " What lies between thick slices is interpolated." if np.any(factors >= _THICK_MM) else ""
    return f"voxels of {given} mm; the model expects {known} mm. Images are resampled, and the mask back.{thick}"


def field_of_view(samples: Samples) -> str | None:
    """Report that the brain extends beyond the field of view."""
    faces = [face for face, share in samples.cut.items() if share > _CUT[face]]
    if not faces:
        return None
    return (
        f"the brain is cut off at the {_listed(faces)} of the field of view; volumes are those of the part that is "
        "visible."
    )


def orientation(samples: Samples) -> str | None:
    """Report a brain that is not oriented as the header says; left and right cannot be told apart."""
    brain = samples.brain
    if np.count_nonzero(brain) < _FEW_SAMPLES or max(samples.cut.values()) > _CUT_MUCH:
        return None
    length, height = (size * mm for size, mm in zip(brain.shape[1:], samples.spacing_mm[1:], strict=True))
    mirrored = [np.count_nonzero(brain & np.flip(brain, axis)) / np.count_nonzero(brain) for axis in range(3)]
    if max(mirrored[1:]) > mirrored[0] + _SYMMETRY_SLACK or height > length:
        return _turned(samples, "its axes seem swapped")
    part = max(1, brain.shape[2] // 6)
    low, high = _off_centre(brain[:, :, :part]), _off_centre(brain[:, :, -part:])
    if abs(high) > abs(low) + _LOPSIDED:
        return _turned(samples, "it seems upside down: the cerebellum is at the top")
    if low < -_LOPSIDED:
        return _turned(samples, "front and back seem swapped: the cerebellum is in front")
    return None


def _turned(samples: Samples, what: str) -> str:
    return (
        f"the brain is not oriented as its header says ({samples.grid.axes} after reading); {what}. Repair the "
        "header's orientation; left and right may be wrong too."
    )


def _off_centre(part: NDArray[np.bool_]) -> float:
    """Return where the centre of a part lies, from front (-.5) to back (.5)."""
    weights = part.sum(axis=(0, 2))
    return float((weights * np.arange(len(weights))).sum() / weights.sum() / max(1, len(weights) - 1)) - 0.5


def _ratio(image: NDArray[np.float32], where: NDArray[np.bool_], over: NDArray[np.bool_]) -> float:
    first, second = (image[mask & (image != 0)] for mask in (where, over))
    return float(np.median(first) / np.median(second)) if len(first) and len(second) and np.median(second) > 0 else 0.0


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
