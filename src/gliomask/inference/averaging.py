"""Several models as one: their common plan, and the mean of their probabilities for a case, on its images' grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.inference.postprocessing import class_masks, region_probabilities, softmax, to_probabilities
from gliomask.inference.preprocessing import Prepared, onto_frame, restore
from gliomask.inference.windows import Inference, OnPart, Predictor, Window, report_part
from gliomask.model.plan import Plan
from gliomask.model.sampling import Origin
from gliomask.volume import Volume, reorient

_OWN = Origin(made_with="gliomask")


def common_plan(models: Sequence[Predictor]) -> Plan:
    """Return the first model's plan with all sequences that any of the models uses, and where all of them come from.

    Raises:
        InputError: There is no model, or the models have different regions.
    """
    if not models:
        raise InputError("no model was given.")
    first, *others = models
    for other in others:
        if other.plan.regions != first.plan.regions:
            raise InputError(
                f"{other.name}: predicts {', '.join(other.plan.regions)}, but {first.name} predicts "
                f"{', '.join(first.plan.regions)}. Only models with the same regions can be averaged."
            )
    modalities = tuple(dict.fromkeys(m for member in models for m in member.plan.modalities))
    return first.plan.model_copy(update={"modalities": modalities, "origin": common_origin(models)})


def common_origin(models: Sequence[Predictor]) -> Origin | None:
    """Return where the models come from; None if gliomask trained all of them."""
    origins = list(dict.fromkeys(member.plan.origin or _OWN for member in models))
    if origins == [_OWN]:
        return None
    texts = (
        (getattr(origin, field) for origin in origins if getattr(origin, field))
        for field in ("made_with", "license", "cite")
    )
    made_with, terms, cite = ("; ".join(dict.fromkeys(each)) for each in texts)
    return Origin(made_with=made_with[:500], license=terms[:500], cite=cite[:2000])


def mean_probabilities(
    models: Sequence[Predictor], plan: Plan, prepared: Sequence[Prepared], inference: Inference, on_part: OnPart
) -> tuple[Volume, NDArray[np.bool_] | None, Window]:
    """Return the mean of the models' calibrated probabilities, and the last model's window.

    Where all models have the same classes, the regions' masks follow from the most probable class. They are returned
    too, else None.

    Args:
        models: The models, with the same regions.
        plan: The plan of the first, whose rules are used.
        prepared: The images, prepared for each model.
        inference: How the networks are run.
        on_part: Called with the completed fraction of the work.

    Raises:
        InputError: A network returned values that are NaN or infinite, or cannot be run.
    """
    classes = plan.classes if all(member.plan.classes == plan.classes for member in models) else ()
    total: Volume | None = None
    for number, (member, images) in enumerate(zip(models, prepared, strict=True)):
        part = partial(report_part, on_part, number, len(models))
        logits, window = member.run(images.data, inference, part)
        _check_finite(logits, member)
        answer = restore(images, _channels(onto_frame(images, logits, member.plan), member.plan, classes))
        # The models may read different sequences first, which may be stored in different orientations.
        total = answer if total is None else Volume(total.data + reorient(answer, total.grid.axes).data, total.affine)
    assert total is not None
    mean = total if len(models) == 1 else Volume(total.data / len(models), total.affine)
    if not classes:
        return mean, None, window
    found = region_probabilities(mean.data, classes, plan.regions, plan.postprocessing)
    return Volume(found, mean.affine), class_masks(mean.data, classes, plan.regions), window


def decide(logits: NDArray[np.float32], plan: Plan) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the probability of each region, `(R, ...)`, and its mask before it is cleaned, from a network's logits."""
    if not plan.classes:
        found = to_probabilities(logits, plan.regions, plan.postprocessing)
        thresholds = [plan.postprocessing.rule(region).threshold for region in plan.regions]
        return found, found > np.array(thresholds, np.float32)[:, None, None, None]
    classes = softmax(logits)
    found = region_probabilities(classes, plan.classes, plan.regions, plan.postprocessing)
    return found, class_masks(classes, plan.classes, plan.regions)


def _channels(logits: NDArray[np.float32], plan: Plan, classes: Sequence[str]) -> NDArray[np.float32]:
    """Return the probabilities of the classes, if they are wanted, else those of the plan's regions."""
    if not plan.classes:
        return to_probabilities(logits, plan.regions, plan.postprocessing)
    found = softmax(logits)
    return found if classes else region_probabilities(found, plan.classes, plan.regions, plan.postprocessing)


def _check_finite(logits: NDArray[np.float32], model: Predictor) -> None:
    """Refuse logits that are NaN or infinite, which would otherwise give a mask that looks like any other."""
    with np.errstate(all="ignore"):
        total = logits.sum()  # NaN or infinite if any of them is, and much faster than a test of each
    if not np.isfinite(total):
        raise InputError(
            f"{model.name} returned values that are NaN or infinite. Try --precision fp32; if that does not help, the "
            "model file or the images are damaged."
        )
