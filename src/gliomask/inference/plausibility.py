"""A found tumour compared with those that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gliomask.model.plan import Plan, TypicalTumour
from gliomask.volume import Spacing


def measure_pieces(mask: NDArray[np.bool_], spacing_mm: Spacing, piece_mm3: float) -> list[float]:
    """Return the volumes in mL of a mask's 26-connected components of at least `piece_mm3`, the largest first."""
    from gliomask.metrics import components, joint_box  # imported here: it takes a third of a second

    if not mask.any():
        return []
    inside = mask[joint_box(mask)]
    sizes = np.bincount(components(inside).labels[inside])
    volumes = sizes * float(np.prod(spacing_mm))
    kept = volumes[(sizes > 0) & (volumes >= piece_mm3 * (1 - 1e-6))]  # 1e-6: an oblique affine's rounding
    return sorted((kept / 1000).tolist(), reverse=True)


def describe_unusual(pieces_ml: Sequence[float], typical: TypicalTumour) -> str | None:
    """Return a warning if a whole tumour differs from all tumours that the limits were measured on; else None.

    A mask without any piece gives no warning: that nothing was found is seen from the volumes.

    Args:
        pieces_ml: What `measure_pieces` returns for `typical.piece_mm3`.
        typical: The limits.
    """
    if not pieces_ml:
        return None
    total, share = sum(pieces_ml), pieces_ml[0] / sum(pieces_ml)
    unusual = []
    if total < typical.least_ml:
        unusual.append(f"{_below(total, typical.least_ml, 1)} mL (they have at least {typical.least_ml:g} mL)")
    if len(pieces_ml) > typical.most_pieces:
        unusual.append(f"{len(pieces_ml)} separate pieces (they have at most {typical.most_pieces})")
    if share < typical.least_share:
        percent, least = 100 * share, 100 * typical.least_share
        unusual.append(f"a largest piece of {_below(percent, least, 0)}% (theirs have at least {least:.3g}%)")
    if not unusual:
        return None
    return (
        f"the whole tumour that was found is unlike each of the {typical.cases} gliomas known to the model: "
        f"{', '.join(unusual)}. It may be another disease, or only part of the tumour was found."
    )


def _below(value: float, limit: float, decimals: int) -> str:
    """Return a number that is below a limit, with so many decimals or as many more as show that it is."""
    texts = [f"{value:.{number}f}" for number in range(decimals, 16)]
    return next((text for text in texts if float(text) < limit), texts[-1])


def find_unusual(masks: NDArray[np.bool_], plan: Plan, spacing_mm: Spacing) -> list[str]:
    """Return the warning about predicted masks `(R, X, Y, Z)`, if the plan has limits and they are exceeded."""
    if plan.typical is None or "WT" not in plan.regions:
        return []
    pieces_ml = measure_pieces(masks[plan.regions.index("WT")], spacing_mm, plan.typical.piece_mm3)
    warning = describe_unusual(pieces_ml, plan.typical)
    return [warning] if warning else []
