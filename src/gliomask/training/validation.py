"""Validation: whole cases are predicted as by `predict`, and scored."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliomask.inference.loading import Model
from gliomask.inference.postprocessing import clean, to_probabilities
from gliomask.inference.preprocessing import normalize
from gliomask.inference.windows import Inference
from gliomask.labels import get_convention, to_labels, to_regions
from gliomask.model.choices import Precision
from gliomask.training.cache import CachedCase
from gliomask.training.confusion import Confusion
from gliomask.training.distributed import ProcessGroup
from gliomask.training.losses import Loss


@dataclass(frozen=True)
class CaseScore:
    """The scores of a model on one case."""

    case: str
    loss: float
    dice: Mapping[str, float]
    """The Dice of each region over the whole mask, including what is outside the brain's box. Both empty: 1; NaN if the
    mask does not label the region."""
    confusion: Confusion
    """Counts over the voxels of the brain's box; empty if the mask does not label all regions."""


def validate(
    model: Model,
    cases: Sequence[CachedCase],
    loss_of: Loss,
    precision: Precision,
    *,
    group: ProcessGroup = ProcessGroup(),  # noqa: B008 (frozen)
    on_case: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Return the means over the cases, with the names used in a run's log; empty without cases.

    The mean Dice of a region is over the cases whose masks label it; a region that no mask labels is left out.
    Accuracy and mean IoU are over all voxels of the brains' boxes together; `all_background_accuracy` is the accuracy
    of an empty mask there. The cases are shared among the processes of `group`, and all return the same values.
    """
    if not cases:
        return {}
    started = time.monotonic()
    mine = []
    for case in group.share(cases):
        mine.append(score_cached_case(model, case, loss_of, precision))
        on_case(case.id)
    parts = group.gather(mine)
    scores = [parts[number % len(parts)][number // len(parts)] for number in range(len(cases))]
    confusion = Confusion(np.sum([score.confusion.counts for score in scores], axis=0))
    labelled = {
        region: [score.dice[region] for score in scores if not math.isnan(score.dice[region])]
        for region in model.plan.regions
    }
    means = {region: float(np.mean(values)) for region, values in labelled.items() if values}
    return {
        "val_loss": float(np.mean([score.loss for score in scores])),
        "val_accuracy": confusion.accuracy(),
        "all_background_accuracy": confusion.background_accuracy(),
        "val_mean_iou": confusion.mean_iou(),
        **{f"val_dice_{region}": mean for region, mean in means.items()},
        "val_dice": float(np.mean(list(means.values()))),
        "val_seconds": round(time.monotonic() - started, 2),
    }


def score_cached_case(model: Model, case: CachedCase, loss_of: Loss, precision: Precision) -> CaseScore:
    """Return the scores of a model on one prepared case; the Dice are those of the mask that `predict` would write."""
    truth = to_regions(case.labels(), get_convention(case.convention), model.plan.regions)
    logits = _logits(model, case, precision)
    known = [region in case.known for region in model.plan.regions]
    loss = float(loss_of(logits[None], torch.from_numpy(truth)[None], torch.tensor([known])))
    found = _nested(model, logits)
    confusion = Confusion()
    if all(known):
        confusion.add(truth[None], found[None], model.plan.regions)
    dice = {
        region: _dice(true, predicted, case.outside.get(region, 0)) if region in case.known else math.nan
        for region, true, predicted in zip(model.plan.regions, truth, found, strict=True)
    }
    return CaseScore(case.id, loss, dice, confusion)


def dice_as_predicted(model: Model, case: CachedCase, precision: Precision) -> dict[str, float]:
    """Return the Dice of each region with the model's rules of post-processing, as in the masks that `predict` writes.

    Both empty: 1; NaN if the mask does not label the region.
    """
    plan = model.plan
    rules = plan.postprocessing.given(name for name, there in zip(case.modalities, case.present, strict=True) if there)
    probabilities = to_probabilities(_logits(model, case, precision).float().numpy(), plan.regions, rules)
    masks = clean(probabilities, plan.regions, rules, case.spacing_mm)
    numbers = get_convention(plan.convention)
    found = to_regions(to_labels(masks, plan.regions, numbers), numbers, plan.regions)
    truth = to_regions(case.labels(), get_convention(case.convention), plan.regions)
    return {
        region: _dice(true, predicted, case.outside.get(region, 0)) if region in case.known else math.nan
        for region, true, predicted in zip(plan.regions, truth, found, strict=True)
    }


def predict_cached_case(model: Model, case: CachedCase, precision: Precision) -> dict[str, NDArray[np.bool_]]:
    """Return the regions that a model finds in a prepared case, `(x, y, z)` each, within the brain's box."""
    return dict(zip(model.plan.regions, _nested(model, _logits(model, case, precision)), strict=True))


def _logits(model: Model, case: CachedCase, precision: Precision) -> Tensor:
    channels = [case.modalities.index(modality) for modality in model.plan.modalities]
    moments = [case.moments[channel] for channel in channels]
    data = normalize(case.image()[channels], moments, model.plan.normalization)
    return torch.from_numpy(model.run(data, Inference(precision=precision))[0])


def _nested(model: Model, logits: Tensor) -> NDArray[np.bool_]:
    """Return the regions nested as in a mask that is written to a file."""
    numbers = get_convention(model.plan.convention)
    return to_regions(to_labels((logits > 0).numpy(), model.plan.regions, numbers), numbers, model.plan.regions)


def _dice(truth: NDArray[np.bool_], found: NDArray[np.bool_], outside: int) -> float:
    both = np.count_nonzero(truth & found)
    total = np.count_nonzero(truth) + np.count_nonzero(found) + outside
    return 2 * both / total if total else 1.0
