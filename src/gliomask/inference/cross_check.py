"""A second answer from T2-FLAIR alone, compared with that from all sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Case
from gliomask.inference.averaging import mean_probabilities
from gliomask.inference.postprocessing import clean
from gliomask.inference.preprocessing import Prepared
from gliomask.inference.windows import Inference, Predictor
from gliomask.model.plan import Plan
from gliomask.volume import voxel_volume_ml

FLAIR = "t2f"
# Two whole tumours differ if their Dice is below the first number and more than so many mL are in one of them only. On
# ten cases that the built-in model has not learned from this holds for two; in one of them T2-FLAIR alone was right, in
# the other all sequences together.
_LEAST_DICE, _LEAST_ML = 0.85, 10.0


def can_cross_check(models: Sequence[Predictor], case: Case) -> bool:
    """Return whether a case has T2-FLAIR and other sequences, and all models accept T2-FLAIR alone."""
    plans = [model.plan for model in models]
    used = {name for plan in plans for name in plan.modalities if name in case.images}
    return FLAIR in used and len(used) > 1 and all(_accepts_flair(plan) for plan in plans)


def compare_with_flair(
    models: Sequence[Predictor],
    plan: Plan,
    prepared: Sequence[Prepared],
    whole_tumour: NDArray[np.bool_],
    inference: Inference,
) -> str | None:
    """Return a warning if the whole tumour from T2-FLAIR alone differs much from that of all sequences, else None.

    Args:
        models: The models; see `can_cross_check`.
        plan: The plan of the first.
        prepared: The case, prepared for each model.
        whole_tumour: The mask from all sequences, `(X, Y, Z)` on the grid of the images.
        inference: How the networks are run.
    """
    alone = [_flair_only(each, model.plan) for each, model in zip(prepared, models, strict=True)]
    probabilities, decided, _ = mean_probabilities(models, plan, alone, inference, lambda _: None)
    rules = plan.postprocessing.given([FLAIR])
    masks = clean(probabilities.data, plan.regions, rules, probabilities.spacing_mm, decided)
    other = masks[plan.regions.index("WT")]
    voxel_ml = voxel_volume_ml(probabilities.affine)
    all_ml, alone_ml, common_ml = (
        float(np.count_nonzero(mask)) * voxel_ml for mask in (whole_tumour, other, whole_tumour & other)
    )
    total = all_ml + alone_ml
    if not total or 2 * common_ml / total >= _LEAST_DICE or max(all_ml, alone_ml) - common_ml < _LEAST_ML:
        return None
    return (
        f"T2-FLAIR alone gives a whole tumour of {alone_ml:.1f} mL, all sequences together {all_ml:.1f} mL; "
        f"{alone_ml - common_ml:.1f} mL of the first lie outside the mask, and {all_ml - common_ml:.1f} mL of the mask "
        "outside the first. Compare the mask with T2-FLAIR: part of the tumour may be missing, or too much was found."
    )


def _accepts_flair(plan: Plan) -> bool:
    return plan.can_miss and FLAIR in plan.modalities and "WT" in plan.regions


def _flair_only(prepared: Prepared, plan: Plan) -> Prepared:
    """Return a case without its other sequences: their channels are zero, as those of missing sequences are."""
    place = plan.modalities.index(FLAIR)
    data = np.zeros_like(prepared.data)
    data[place] = prepared.data[place]
    return replace(prepared, data=data, present=tuple(number == place for number in range(len(data))))
